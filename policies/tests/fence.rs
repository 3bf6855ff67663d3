// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate's decisions (semantics 2.4): the table of the page, every small register against every small ask,
//! and sequences of asks against what must hold whatever was asked.

use policies::fence::{
    Ask, Ended, Grant, Member, Refusal, Register, Standing, Writers, admit, holds_up, is_overtaken,
};
use policies::limits::{EPOCH_JUMP_MAX, FENCE_MEMBERS_MAX};

const NAMES: [&str; 2] = ["a", "b"];

fn register(epoch: u64, holder: Option<usize>, floors: &[u64]) -> Register {
    let member = |(name, floor): (&&str, &u64)| Member { name: (*name).into(), floor: *floor };
    Register { epoch, holder, members: NAMES.iter().zip(floors).map(member).collect() }
}

fn ask(member: &str, epoch: u64) -> Ask<'_> {
    Ask { member, epoch, fence: None }
}

fn one(register: &Register, ask: Ask<'_>) -> Result<Grant, Refusal> {
    admit(register, Writers::One, &ask, Standing::Authenticated)
}

fn many(register: &Register, ask: Ask<'_>) -> Result<Grant, Refusal> {
    admit(register, Writers::Many, &ask, Standing::Authenticated)
}

#[test]
fn one_writer_by_the_table() {
    let held = register(5, Some(0), &[0, 0]);
    assert_eq!(one(&held, ask("a", 5)), Ok(Grant { member: 0, raised: None }));
    let higher = Grant { member: 1, raised: Some(register(6, Some(1), &[0, 0])) };
    assert_eq!(one(&held, ask("b", 6)), Ok(higher));
    let lower = Refusal::LowerEpoch { epoch: 4, register: 5, holder: "a".into() };
    assert_eq!(one(&held, ask("a", 4)), Err(lower.clone()));
    assert_eq!(one(&held, ask("b", 4)), Err(lower));
    assert_eq!(one(&held, ask("b", 5)), Err(Refusal::HeldByOther { epoch: 5, holder: "a".into() }));
    let fenced = register(5, Some(0), &[9, 0]);
    assert_eq!(one(&fenced, ask("a", 8)), Err(Refusal::BelowFloor { epoch: 8, floor: 9 }));
    assert!(one(&fenced, ask("b", 8)).is_ok(), "only a is fenced");
    // After reset-epoch nobody holds the epoch that was set.
    let reset = register(5, None, &[]);
    assert_eq!(one(&reset, ask("a", 5)).map(|grant| grant.raised), Ok(Some(register(5, Some(0), &[0]))));
}

#[test]
fn many_writers_have_floors_only() {
    let both = register(5, None, &[5, 3]);
    assert_eq!(many(&both, ask("b", 3)), Ok(Grant { member: 1, raised: None }), "below a's epoch");
    assert_eq!(many(&both, ask("b", 2)), Err(Refusal::BelowFloor { epoch: 2, floor: 3 }));
    assert_eq!(many(&both, ask("b", 4)).map(|grant| grant.raised), Ok(Some(register(5, None, &[5, 4]))));
    let fence = Ask { member: "b", epoch: 3, fence: Some(("a", 7)) };
    assert_eq!(many(&both, fence).map(|grant| grant.raised), Ok(Some(register(5, None, &[7, 3]))));
}

#[test]
fn a_fence_raises_one_floor_and_never_lowers_it() {
    let held = register(5, Some(1), &[4, 0]);
    let fence = |floor| Ask { member: "b", epoch: 5, fence: Some(("a", floor)) };
    assert_eq!(one(&held, fence(7)).map(|grant| grant.raised), Ok(Some(register(5, Some(1), &[7, 0]))));
    assert_eq!(one(&held, fence(3)), Ok(Grant { member: 1, raised: None }));
    let own = Ask { member: "b", epoch: 5, fence: Some(("b", 6)) };
    assert_eq!(one(&held, own), Err(Refusal::BelowFloor { epoch: 5, floor: 6 }));
    // A member nobody has seen may be fenced before it comes.
    let fresh = register(5, Some(0), &[0]);
    let unseen = Ask { member: "a", epoch: 5, fence: Some(("b", 8)) };
    assert_eq!(one(&fresh, unseen).map(|grant| grant.raised), Ok(Some(register(5, Some(0), &[0, 8]))));
}

#[test]
fn only_who_is_trusted_is_heard() {
    for standing in [Standing::NoMac, Standing::WrongMac, Standing::Remote] {
        let refused = admit(&register(0, None, &[]), Writers::One, &ask("a", 1), standing);
        assert_eq!(refused, Err(Refusal::Standing(standing)));
    }
    for standing in [Standing::Authenticated, Standing::Local] {
        assert!(admit(&register(0, None, &[]), Writers::One, &ask("a", 1), standing).is_ok());
    }
}

#[test]
fn epochs_do_not_jump() {
    let max = EPOCH_JUMP_MAX;
    let fresh = Register::default();
    assert!(one(&fresh, ask("a", max)).is_ok());
    assert_eq!(one(&fresh, ask("a", max + 1)), Err(Refusal::Jump { epoch: max + 1, max }));
    let fence = Ask { member: "a", epoch: 1, fence: Some(("b", u64::MAX)) };
    assert_eq!(many(&fresh, fence), Err(Refusal::Jump { epoch: u64::MAX, max }));
    // Near the end of the numbers nothing wraps.
    let last = register(u64::MAX, Some(0), &[0]);
    assert_eq!(one(&last, ask("a", u64::MAX)), Ok(Grant { member: 0, raised: None }));
}

#[test]
fn members_are_bounded() {
    let members =
        (0..FENCE_MEMBERS_MAX).map(|index| Member { name: format!("m{index}"), floor: 0 }).collect();
    let full = Register { epoch: 1, holder: Some(0), members };
    assert_eq!(one(&full, ask("new", 2)), Err(Refusal::Members));
    let fence = Ask { member: "m0", epoch: 1, fence: Some(("new", 2)) };
    assert_eq!(one(&full, fence), Err(Refusal::Members));
    assert!(one(&full, ask("m63", 2)).is_ok());
}

/// Every register and ask with epochs up to 3 and two members.
fn small_space() -> impl Iterator<Item = (Register, Ask<'static>, Writers)> {
    let registers = (0..4_u64.pow(3) * 3).map(|n| {
        let (epoch, a, b, holder) = (n % 4, n / 4 % 4, n / 16 % 4, n / 64);
        register(epoch, [None, Some(0), Some(1)][holder as usize], &[a, b])
    });
    registers.flat_map(|register| {
        (0..2 * 4 * 9 * 2_u64).map(move |n| {
            let fence = match n / 8 % 9 {
                8 => None,
                f => Some((NAMES[(f % 2) as usize], f / 2 + 1)),
            };
            let ask = Ask { member: NAMES[(n % 2) as usize], epoch: n / 2 % 4 + 1, fence };
            (register.clone(), ask, if n / 72 == 0 { Writers::One } else { Writers::Many })
        })
    })
}

#[test]
fn every_small_ask_obeys_the_rules() {
    let (mut granted, mut raises) = (0, 0);
    for (before, ask, writers) in small_space() {
        let Ok(Grant { member, raised }) = admit(&before, writers, &ask, Standing::Local) else { continue };
        granted += 1;
        raises += u32::from(raised.is_some());
        let after = raised.unwrap_or_else(|| before.clone());
        assert_eq!(after.members[member].name, ask.member);
        // Nothing ever falls, and only the named floor and, with many writers, the own one rise.
        assert!(after.epoch >= before.epoch);
        for (index, (now, was)) in after.members.iter().zip(&before.members).enumerate() {
            let may_rise = ask.fence.is_some_and(|(name, _)| name == now.name)
                || (writers == Writers::Many && index == member);
            assert!(now.floor == was.floor || (may_rise && now.floor > was.floor), "{before:?} {ask:?}");
        }
        // Who was granted is not overtaken by its own ask.
        assert!(!is_overtaken(writers, ask.epoch, after.epoch, after.members[member].floor));
        if writers == Writers::One {
            // Whoever else was there with another epoch, or as another member with this one, is overtaken
            // or was never admitted.
            assert_eq!((after.epoch, after.holder), (ask.epoch, Some(member)), "{before:?} {ask:?}");
            for older in 1..ask.epoch {
                assert!(is_overtaken(writers, older, after.epoch, 0));
            }
        }
        if let Some((name, floor)) = ask.fence {
            let fenced = after.members.iter().find(|member| member.name == name).expect("entered");
            assert!(fenced.floor >= floor);
        }
        // The same ask again changes nothing more.
        assert_eq!(admit(&after, writers, &ask, Standing::Local), Ok(Grant { member, raised: None }));
    }
    assert!(granted > 1000 && raises > 1000, "{granted} granted, {raises} raises");
}

#[test]
fn no_two_members_ever_write_with_one_writer() {
    // All sequences of four asks of two members with epochs 1 to 3: at every moment the sessions that were
    // admitted and not overtaken belong to one member and one epoch.
    let asks: Vec<(usize, u64)> =
        (0..2).flat_map(|member| (1..4).map(move |epoch| (member, epoch))).collect();
    for first in &asks {
        for second in &asks {
            for third in &asks {
                for fourth in &asks {
                    let mut register = Register::default();
                    let mut sessions = Vec::new();
                    for (member, epoch) in [first, second, third, fourth] {
                        let Ok(grant) = one(&register, ask(NAMES[*member], *epoch)) else { continue };
                        register = grant.raised.unwrap_or(register);
                        sessions.push((*member, *epoch));
                        sessions.retain(|(_, epoch)| !is_overtaken(Writers::One, *epoch, register.epoch, 0));
                        assert!(sessions.iter().all(|live| live == &(*member, *epoch)), "{sessions:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn who_waits_for_whom() {
    assert!(holds_up(Ended::Epoch, false), "also who comes after an ask that gave up waiting");
    assert!(holds_up(Ended::Epoch, true));
    assert!(holds_up(Ended::Killed, true));
    assert!(!holds_up(Ended::Killed, false), "a stuck session holds up only who wants it finished");
}

#[test]
fn refusals_name_the_way_out() {
    let lower = Refusal::LowerEpoch { epoch: 1, register: 5, holder: "m2".into() }.to_string();
    assert!(lower.contains("m2 holds epoch 5") && lower.contains("reset-epoch"), "{lower}");
    let long = Refusal::LowerEpoch { epoch: u64::MAX, register: u64::MAX, holder: "m".repeat(64) };
    assert!(long.to_string().len() <= 256, "a client keeps 256 bytes of a server's text");
}
