// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate's texts (semantics 2.4): one text for one meaning, and nothing malformed is taken for plain.

use nbd::gate::{
    Admission, Authentication, Claim, ClaimError, Identity, IdentityError, RegisterWriters, SignedClaim,
    is_valid_member,
};

const S: &str = "0123456789abcdef0123456789abcdef";
const K: &str = "fffffffffffffffffffffffffffffffe";

fn claim() -> Claim {
    Claim {
        volume: "vol0".into(),
        epoch: 7,
        member: "m1".into(),
        session: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        kill: None,
        fence: None,
    }
}

fn identity() -> Identity {
    Identity {
        volume: 1,
        nonce: 2,
        challenge: 3,
        cache_generation: 4,
        epoch: 5,
        writers: RegisterWriters::One,
        authentication: Authentication::Key,
        holder: Some("m1".into()),
    }
}

fn refused(name: &str) -> ClaimError {
    SignedClaim::parse(name).expect_err(name)
}

#[test]
fn a_claim_has_one_text() {
    let all = Claim { kill: Some(u128::MAX - 1), fence: Some(("m2".into(), 9)), ..claim() };
    let mac = [0xab; 32];
    let cases = [
        (claim(), None, format!("vol0;e=7;m=m1;s={S}")),
        (all.clone(), None, format!("vol0;e=7;m=m1;s={S};kill={K};fence=m2:9")),
        (all, Some(mac), format!("vol0;e=7;m=m1;s={S};kill={K};fence=m2:9;mac={}", "ab".repeat(32))),
    ];
    for (claim, mac, text) in cases {
        assert_eq!(claim.to_name(mac.as_ref()), text);
        assert_eq!(SignedClaim::parse(&text), Ok(SignedClaim { claim, mac }));
    }
}

#[test]
fn a_volume_may_be_named_anything() {
    for volume in ["a;b", "v;e=1", "v;e=1;m=x;s=0", "x-holdfast:gate", "ü=;"] {
        let claim = Claim { volume: volume.into(), ..claim() };
        let parsed = SignedClaim::parse(&claim.to_name(None)).expect(volume);
        assert_eq!(parsed.claim, claim);
    }
}

#[test]
fn plain_names_are_no_claims() {
    for name in ["", "vol0", "vol0;m=m1", "e=1", "vol0;E=1"] {
        assert_eq!(refused(name), ClaimError::Plain, "{name}");
    }
}

#[test]
fn a_malformed_claim_is_never_taken_for_a_plain_name() {
    let cases = [
        (format!(";e=1;m=m1;s={S}"), "volume"),
        (format!("v;e=0;m=m1;s={S}"), "e"),
        (format!("v;e=01;m=m1;s={S}"), "e"),
        (format!("v;e=+1;m=m1;s={S}"), "e"),
        (format!("v;e=;m=m1;s={S}"), "e"),
        (format!("v;e=18446744073709551616;m=m1;s={S}"), "e"),
        (format!("v;e=1;s={S}"), "m"),
        (format!("v;e=1;m=;s={S}"), "m"),
        (format!("v;e=1;m=a b;s={S}"), "m"),
        (format!("v;e=1;m={};s={S}", "m".repeat(65)), "m"),
        ("v;e=1;m=m1".to_owned(), "s"),
        (format!("v;e=1;m=m1;s={}", &S[1..]), "s"),
        (format!("v;e=1;m=m1;s={}", S.to_uppercase()), "s"),
        (format!("v;e=1;m=m1;s={}", "0".repeat(32)), "s"),
        (format!("v;e=1;m=m1;s={S};kill=1"), "kill"),
        (format!("v;e=1;m=m1;s={S};fence=m2"), "fence"),
        (format!("v;e=1;m=m1;s={S};fence=:2"), "fence"),
        (format!("v;e=1;m=m1;s={S};mac=00"), "mac"),
    ];
    for (name, field) in cases {
        assert_eq!(refused(&name), ClaimError::Field(field), "{name}");
    }
    for tail in [";", ";x=1", &format!(";fence=m2:1;kill={K}"), &format!(";kill={K};kill={K}")] {
        assert_eq!(refused(&format!("v;e=1;m=m1;s={S}{tail}")), ClaimError::Trailing, "{tail}");
    }
    assert_eq!(refused(&format!("v;e=1;m=m1;s={S};kill={S}")), ClaimError::KillsItself);
    assert_eq!(refused(&format!("{};e=1;m=m1;s={S}", "v".repeat(4096))), ClaimError::Field("volume"));
}

#[test]
fn member_names_are_short_and_plain() {
    for name in ["a", "node-1.example_x", &"m".repeat(64)] {
        assert!(is_valid_member(name), "{name}");
    }
    for name in ["", "a;b", "a:b", "a=b", "ü", " ", &"m".repeat(65)] {
        assert!(!is_valid_member(name), "{name}");
    }
}

#[test]
fn an_identity_has_one_text_and_later_fields_are_skipped() {
    let text = "x-holdfast:gate;v=1;u=00000000000000000000000000000001;n=00000000000000000000000000000002;\
                c=00000000000000000000000000000003;g=4;e=5;w=one;a=key;h=m1";
    assert_eq!(identity().to_string(), text);
    assert_eq!(Identity::parse(text), Ok(identity()));
    assert_eq!(Identity::parse(&format!("{text};z=later")), Ok(identity()));
    let open = Identity {
        writers: RegisterWriters::Many,
        authentication: Authentication::Local,
        holder: None,
        ..identity()
    };
    assert_eq!(Identity::parse(&open.to_string()), Ok(open));
}

#[test]
fn what_is_no_identity_is_told_apart() {
    let text = identity().to_string();
    for other in ["base:allocation", "x-holdfast:", "x-holdfast:gate", "x-holdfast:gateway;v=1"] {
        assert_eq!(Identity::parse(other), Err(IdentityError::NotAGate), "{other}");
    }
    assert_eq!(Identity::parse(&text.replace("v=1", "v=2")), Err(IdentityError::Version));
    for (from, to) in
        [("v=1", "v=x"), ("g=4", "g=04"), ("w=one", "w=two"), ("a=key", "a="), ("h=m1", "h=a b")]
    {
        assert_eq!(Identity::parse(&text.replace(from, to)), Err(IdentityError::Malformed), "{to}");
    }
    for len in "x-holdfast:gate;".len()..text.len() {
        let cut = Identity::parse(&text[..len]);
        // The holder is the last field and may be absent or shorter.
        assert!(cut.is_err() || len > text.len() - ";h=m1".len() - 1, "cut at {len}");
    }
}

#[test]
fn an_admission_has_one_text() {
    let admission = Admission { epoch: 7, session: claim().session, killed: true };
    let text = format!("x-holdfast:admitted;e=7;s={S};k=1");
    assert_eq!(admission.to_text(None), text);
    assert_eq!(Admission::parse(&text), Some((admission, None)));
    let signed = admission.to_text(Some(&[1; 32]));
    assert_eq!(Admission::parse(&signed), Some((admission, Some([1; 32]))));
    for wrong in ["", "a volume", &text[..text.len() - 1], &format!("{text};x"), &text.replace("k=1", "k=2")]
    {
        assert_eq!(Admission::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn what_a_mac_covers_differs_with_everything_it_must_cover() {
    let base = claim();
    let variants = [
        base.clone(),
        Claim { volume: "vol1".into(), ..base.clone() },
        Claim { epoch: 8, ..base.clone() },
        Claim { member: "m2".into(), ..base.clone() },
        Claim { session: 1, ..base.clone() },
        Claim { kill: Some(1), ..base.clone() },
        Claim { kill: Some(2), ..base.clone() },
        Claim { fence: Some(("m2".into(), 1)), ..base.clone() },
        Claim { fence: Some(("m2".into(), 2)), ..base },
    ];
    let here = identity();
    let gates = [
        here.clone(),
        Identity { volume: 9, ..here.clone() },
        Identity { nonce: 9, ..here.clone() },
        Identity { challenge: 9, ..here },
    ];
    let mut inputs = Vec::new();
    for gate in &gates {
        inputs.extend(variants.iter().map(|claim| claim.mac_input(gate)));
        for killed in [false, true] {
            inputs.push(Admission { epoch: 7, session: 1, killed }.mac_input(gate));
        }
    }
    let count = inputs.len();
    inputs.sort();
    inputs.dedup();
    assert_eq!(inputs.len(), count);
}
