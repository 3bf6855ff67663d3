// SPDX-License-Identifier: MIT OR Apache-2.0
//! HMAC-SHA256 over claims and admissions. Comparison takes the same time wherever the difference is.

use hmac::{Hmac, KeyInit, Mac};
use nbd::gate::{Admission, Claim, Identity};
use program::GateKey;
use sha2::Sha256;

fn mac(key: &GateKey, input: &[u8]) -> Hmac<Sha256> {
    // Invariant: HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("a key of 32 bytes");
    mac.update(input);
    mac
}

pub(crate) fn sign_claim(key: &GateKey, claim: &Claim, identity: &Identity) -> [u8; 32] {
    mac(key, &claim.mac_input(identity)).finalize().into_bytes().into()
}

pub(crate) fn claim_is_ours(key: &GateKey, claim: &Claim, identity: &Identity, told: &[u8; 32]) -> bool {
    mac(key, &claim.mac_input(identity)).verify_slice(told).is_ok()
}

pub(crate) fn sign_admission(key: &GateKey, admission: &Admission, identity: &Identity) -> [u8; 32] {
    mac(key, &admission.mac_input(identity)).finalize().into_bytes().into()
}

pub(crate) fn admission_is_ours(
    key: &GateKey,
    admission: &Admission,
    identity: &Identity,
    told: &[u8; 32],
) -> bool {
    mac(key, &admission.mac_input(identity)).verify_slice(told).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, with the key padded to our length: HMAC pads keys with zeroes itself.
    #[test]
    fn it_is_hmac_sha256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let tag: [u8; 32] =
            mac(&GateKey(key), b"what do ya want for nothing?").finalize().into_bytes().into();
        let wanted = 0x5bdc_c146_bf60_754e_6a04_2426_0895_75c7_u128;
        assert_eq!(tag[..16], wanted.to_be_bytes());
        let wanted = 0x5a00_3f08_9d27_3983_9dec_58b9_64ec_3843_u128;
        assert_eq!(tag[16..], wanted.to_be_bytes());
    }
}
