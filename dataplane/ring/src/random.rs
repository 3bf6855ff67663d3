// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that must not be guessed or repeated: sessions, nonces, challenges.

use std::io;

use nix::errno::Errno;

/// 128 bits from the kernel's generator; never 0.
///
/// # Errors
///
/// The system's: none on any kernel this program runs on.
pub fn id() -> io::Result<u128> {
    loop {
        let mut bytes = [0_u8; 16];
        // SAFETY: the pointer and length are those of `bytes`. Up to 256 bytes come whole.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match Errno::result(got) {
            Ok(16) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let id = u128::from_be_bytes(bytes);
        if id != 0 {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_differ() {
        assert_ne!(super::id().unwrap(), super::id().unwrap());
    }
}
