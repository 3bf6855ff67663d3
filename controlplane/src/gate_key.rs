// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file that holds the key of gates and their clients.
//!
//! 64 hexadecimal digits, and white space around them. Whoever can read it can raise epochs and kill sessions,
//! so a file that others may read is refused and not merely warned about.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use program::GateKey;

/// Digits, and room for white space.
const FILE_BYTES_MAX: u64 = 256;

/// Reads the key.
///
/// # Errors
///
/// What is wrong with the file, and what to do.
pub fn read_gate_key(path: &Path) -> Result<GateKey, String> {
    let shown = path.display();
    let wrong = |why: &str| format!("cannot use the gate key {shown}: {why}");
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let found = file.metadata().map_err(|error| wrong(&error.to_string()))?;
    if !found.is_file() {
        return Err(wrong("it is not a file"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(wrong("others may read or write it; chmod 600 it"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| wrong(&error.to_string()))?;
    parse(text.trim()).ok_or_else(|| {
        wrong("it must hold 64 hexadecimal digits; make one with: (umask 077; od -An -vtx1 -N32 /dev/urandom | tr -d ' \\n' > FILE)")
    })
}

fn parse(text: &str) -> Option<GateKey> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(GateKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_private_and_64_digits() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("key");
        let read = |text: &str, mode: u32| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            read_gate_key(&path)
        };
        assert_eq!(
            read(&format!("{}\n", "0aB1".repeat(16)), 0o600),
            Ok(GateKey([0x0a, 0xb1].repeat(16).try_into().unwrap()))
        );
        assert!(read(&"00".repeat(32), 0o640).unwrap_err().contains("chmod 600"));
        for text in ["", "00", &"00".repeat(33), &"0g".repeat(32), &"+0".repeat(32)] {
            assert!(read(text, 0o600).unwrap_err().contains("64 hexadecimal digits"), "{text}");
        }
        assert!(read_gate_key(dir.path()).unwrap_err().contains("not a file"));
        assert!(read_gate_key(&dir.path().join("none")).unwrap_err().contains("No such file"));
        assert!(!format!("{:?}", GateKey([7; 32])).contains('7'), "a key is never printed");
    }
}
