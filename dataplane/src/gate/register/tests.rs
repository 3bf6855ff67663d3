// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two processes are two open files here: locks and slots are by open file. Real processes are in `tests/interop`.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use program::MILLISECOND;

use super::*;
use crate::gate::Gate;
use crate::gate::guard::Guard;

struct Volume {
    _dir: tempfile::TempDir,
    fence: FenceProgram,
}

impl Volume {
    fn new(writers: program::Writers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.holdfast-gate").to_str().unwrap().to_owned();
        let fence = FenceProgram {
            register: RegisterPlace::Shared(path),
            writers,
            allow_unfenced: false,
            cache: CacheLife::Boot,
            drain_max: MILLISECOND,
            idle_limit: 0,
        };
        Self { _dir: dir, fence }
    }

    fn one() -> Self {
        Self::new(program::Writers::One)
    }

    fn path(&self) -> &Path {
        match &self.fence.register {
            RegisterPlace::Shared(path) | RegisterPlace::Exclusive(path) => Path::new(path),
            RegisterPlace::Memory => panic!("no file"),
        }
    }

    fn open(&self) -> Register {
        Register::open(&self.fence).expect("a register")
    }

    fn guard(&self) -> Guard {
        Guard::new(Gate::open(&self.fence).expect("a gate"))
    }

    /// The record as it is on disk.
    fn record(&self) -> Record {
        read(&open_file(self.path()).unwrap()).unwrap()
    }
}

fn wish(member: &str, epoch: u64, session: u128) -> Wish {
    Wish { member: member.into(), epoch, session, kill: None, fence: None, standing: Standing::Local }
}

fn granted(register: &Register, wish: &Wish) -> Granted {
    register.claim(wish).expect("a working register").expect("granted")
}

#[test]
fn a_register_outlives_its_process_and_its_volume_keeps_its_name() {
    let volume = Volume::one();
    let first = volume.open();
    granted(&first, &wish("m1", 3, 1));
    let (name, nonce, generation) = (first.volume, first.nonce, first.cache_generation);
    drop(first);
    let second = volume.open();
    assert_eq!((second.volume, second.cache_generation), (name, generation), "the same kernel runs");
    assert_ne!(second.nonce, nonce);
    assert_eq!(second.live.epoch(), 3);
    let lower = second.claim(&wish("m1", 2, 2)).unwrap();
    assert!(matches!(lower, Err(Refusal::LowerEpoch { register: 3, .. })), "{lower:?}");
    let known = second.epoch_and_holder();
    assert_eq!(known, (3, Some("m1".to_owned())));
}

/// One that runs beside it can speak for it and tells the same nonce, also when it is the last one left.
#[test]
fn processes_that_share_the_table_share_the_nonce() {
    let volume = Volume::one();
    let first = volume.open();
    let second = volume.open();
    assert_eq!(second.nonce, first.nonce);
    let nonce = first.nonce;
    drop(first);
    assert_eq!(volume.open().nonce, nonce);
    drop(second);
    assert_ne!(volume.open().nonce, nonce, "nobody was left of those who shared it");
}

#[test]
fn a_cache_that_ends_with_its_process_is_counted_at_each_start() {
    let mut volume = Volume::one();
    volume.fence.cache = CacheLife::Process;
    let generations = [volume.open().cache_generation, volume.open().cache_generation];
    assert_eq!(generations, [1, 2]);
}

#[test]
fn another_kernel_is_another_cache() {
    let volume = Volume::one();
    drop(volume.open());
    let mut record = volume.record();
    record.boot ^= 1;
    write(&open_file(volume.path()).unwrap(), &mut record).unwrap();
    assert_eq!(volume.open().cache_generation, 2);
}

#[test]
fn a_torn_write_leaves_the_record_before() {
    let volume = Volume::one();
    let register = volume.open();
    granted(&register, &wish("m1", 1, 1));
    let before = volume.record();
    granted(&register, &wish("m1", 2, 2));
    drop(register);
    let file = open_file(volume.path()).unwrap();
    let after = volume.record();
    let at = after.sequence % 2 * PAGE_BYTES as u64;
    let whole = after.encode();
    // Cut anywhere, what was there before, or nothing, behind the cut.
    for cut in [0, 1, 8, 39, 40, 100, PAGE_BYTES - 8, PAGE_BYTES - 1] {
        let mut torn = [0xaa; PAGE_BYTES];
        torn[..cut].copy_from_slice(&whole[..cut]);
        file.write_all_at(&torn, at).unwrap();
        assert_eq!(volume.record(), before, "cut at {cut}");
    }
    let reopened = volume.open();
    assert_eq!(reopened.live.epoch(), 1);
    granted(&reopened, &wish("m1", 2, 3));
}

#[test]
fn a_damaged_register_is_refused_and_reset_by_force_only() {
    let volume = Volume::one();
    drop(volume.open());
    let file = open_file(volume.path()).unwrap();
    file.write_all_at(&[0xff; 2 * PAGE_BYTES], 0).unwrap();
    let refused = Register::open(&volume.fence).err().expect("damaged");
    assert!(refused.to_string().contains("reset-epoch --force"), "{refused}");
    assert!(Register::reset(volume.path(), 4, false).is_err());
    assert_eq!(Register::reset(volume.path(), 4, true).unwrap(), 0);
    assert_eq!(volume.open().live.epoch(), 4);
}

#[test]
fn reset_waits_for_nobody_who_serves() {
    let volume = Volume::one();
    assert_eq!(Register::reset(volume.path(), 0, false).unwrap_err().kind(), io::ErrorKind::NotFound);
    let register = volume.open();
    granted(&register, &wish("m1", 7, 1));
    let busy = Register::reset(volume.path(), 0, false).unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
    drop(register);
    assert_eq!(Register::reset(volume.path(), 2, false).unwrap(), 7);
    let register = volume.open();
    granted(&register, &wish("m2", 2, 2));
}

#[test]
fn a_process_that_died_between_disk_and_memory_is_made_up_for() {
    let volume = Volume::one();
    let survivor = volume.open();
    let first = granted(&survivor, &wish("m1", 1, 1));
    let generation = survivor.live.generation();
    // Another process wrote epoch 2 and died before it told anybody.
    let mut record = volume.record();
    record.register.epoch = 2;
    write(&open_file(volume.path()).unwrap(), &mut record).unwrap();
    assert_eq!(survivor.ended(0, 1, 1, first.kills), None, "not known yet");
    let again = granted(&survivor, &wish("m1", 2, 2));
    assert!(survivor.live.generation() > generation && again.generation == survivor.live.generation());
    assert_eq!(survivor.ended(0, 1, 1, first.kills), Some(Ended::Epoch));
}

#[test]
fn kills_end_one_session_of_one_member() {
    let volume = Volume::new(program::Writers::Many);
    let register = volume.open();
    let (a, b) = (granted(&register, &wish("a", 1, 1)), granted(&register, &wish("b", 1, 2)));
    let kill = granted(&register, &Wish { kill: Some(1), ..wish("a", 1, 3) });
    assert_eq!(register.ended(a.member, 1, 1, a.kills), Some(Ended::Killed));
    assert_eq!(register.ended(b.member, 1, 2, b.kills), None);
    assert_eq!(register.ended(kill.member, 1, 3, kill.kills), None);
    // Naming a session of another member ends nothing.
    granted(&register, &Wish { kill: Some(2), ..wish("a", 1, 4) });
    assert_eq!(register.ended(b.member, 1, 2, b.kills), None);
    // The same kill again is not another one.
    let generation = register.live.generation();
    let again = granted(&register, &Wish { kill: Some(1), ..wish("a", 1, 5) });
    assert_eq!((register.live.generation(), again.generation), (generation, generation));
    let killed = register.claim(&wish("a", 1, 1)).unwrap();
    assert_eq!(killed, Err(Refusal::SessionKnown), "a killed session does not come back");
}

#[test]
fn who_missed_too_many_kills_takes_its_sessions_for_killed() {
    let volume = Volume::one();
    let register = volume.open();
    let first = granted(&register, &wish("m1", 1, 1));
    for session in 0..62 {
        granted(&register, &Wish { kill: Some(1000 + session), ..wish("m1", 1, 2 + session) });
    }
    assert_eq!(register.ended(0, 1, 1, first.kills), None);
    for session in 62..64 {
        granted(&register, &Wish { kill: Some(1000 + session), ..wish("m1", 1, 2 + session) });
    }
    assert_eq!(register.ended(0, 1, 1, first.kills), Some(Ended::Killed));
}

#[test]
fn floors_of_one_member_leave_the_others_alone() {
    let volume = Volume::new(program::Writers::Many);
    let register = volume.open();
    let (a, b) = (granted(&register, &wish("a", 1, 1)), granted(&register, &wish("b", 1, 2)));
    granted(&register, &Wish { fence: Some(("a".into(), 2)), ..wish("b", 1, 3) });
    assert_eq!(register.ended(a.member, 1, 1, a.kills), Some(Ended::Epoch));
    assert_eq!(register.ended(b.member, 1, 2, b.kills), None);
    let below = register.claim(&wish("a", 1, 4)).unwrap();
    assert_eq!(below, Err(Refusal::BelowFloor { epoch: 1, floor: 2 }));
}

/// D and F of the protocol, step by step, with a process that stops at every point.
#[test]
fn a_fence_waits_for_what_another_process_has_dispatched() {
    let volume = Volume::one();
    let (mut old, new) = (volume.guard(), volume.open());
    granted(&new, &wish("m1", 1, 1));
    assert!(old.must_judge());
    old.judged();
    // Stopped with nothing dispatched: nobody waits, and it finds out when it goes on.
    let fence = granted(&new, &wish("m1", 2, 2));
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 0);
    assert_eq!(old.begin(), None, "D3 sees the raise");
    assert!(old.must_judge());
    old.judged();
    // Stopped between D1 and the end of the request: in the way, however long it takes.
    let one = old.begin().expect("judged");
    let two = old.begin().expect("judged");
    let fence = granted(&new, &wish("m1", 3, 3));
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 1);
    old.end(one);
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 1);
    // It goes on and is busy with newer requests: only the old ones count.
    assert_eq!(old.begin(), None);
    assert!(old.must_judge());
    old.judged();
    let three = old.begin().expect("judged");
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 1);
    old.end(two);
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 0, "the newer one is still in execution");
    // A later fence waits for that one.
    let fence = granted(&new, &wish("m1", 4, 4));
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 1);
    // A claim that raises nothing waits for what an earlier one had to wait for.
    let late = granted(&new, &wish("m1", 4, 5));
    assert_eq!(new.others_in_the_way(late.generation).unwrap(), 1);
    // Its death ends it.
    drop(old);
    assert_eq!(new.others_in_the_way(fence.generation).unwrap(), 0);
    let _ = three;
}

/// The cost on the path of a write. The bound is loose; the figure is printed for the report.
#[test]
fn passing_the_fence_costs_next_to_nothing() {
    const REQUESTS: u32 = 2_000_000;
    let volume = Volume::one();
    let mut guard = volume.guard();
    let began = std::time::Instant::now();
    for _ in 0..REQUESTS / 16 {
        let started: [u64; 16] = std::array::from_fn(|_| guard.begin().expect("nobody raises"));
        for generation in started {
            guard.end(generation);
        }
    }
    let each = began.elapsed() / REQUESTS;
    eprintln!("{each:?} for each write");
    assert!(each < std::time::Duration::from_micros(2), "{each:?}");
}

#[test]
fn two_processes_that_raise_at_once_agree() {
    let volume = Volume::one();
    let gates: Vec<Arc<Register>> = (0..4).map(|_| Arc::new(volume.open())).collect();
    let threads: Vec<_> = gates
        .iter()
        .enumerate()
        .map(|(index, register)| {
            let register = register.clone();
            std::thread::spawn(move || {
                let member = format!("m{index}");
                (1..=50).filter(|epoch| register.claim(&wish(&member, *epoch, 1)).unwrap().is_ok()).count()
            })
        })
        .collect();
    let wins: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!((1..=200).contains(&wins));
    let record = volume.record();
    assert_eq!(record.register.epoch, 50);
    assert!(gates.iter().all(|register| register.live.epoch() == 50));
    let holder = &record.register.members[record.register.holder.expect("held")].name;
    for (index, register) in gates.iter().enumerate() {
        let member = format!("m{index}");
        let again = register.claim(&wish(&member, 50, 9)).unwrap();
        assert_eq!(again.is_ok(), member == *holder, "one member holds an epoch");
    }
}

#[test]
fn slots_are_bounded_and_one_process_may_have_them_all() {
    let volume = Volume::one();
    let all: Vec<Register> = (0..PROCESSES_MAX).map(|_| volume.open()).collect();
    assert_eq!(Register::open(&volume.fence).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(all);
    let mut volume = Volume::one();
    volume.fence.register = RegisterPlace::Exclusive(volume.path().to_str().unwrap().to_owned());
    let only = volume.open();
    assert!(!only.unclean);
    assert_eq!(Register::open(&volume.fence).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(only);
    let next = volume.open();
    assert!(next.unclean, "the one before did not say that it ended in order");
    next.leave_clean();
    drop(next);
    assert!(!volume.open().unclean);
}

#[test]
fn memory_has_a_register_that_ends_with_it() {
    let mut volume = Volume::one();
    volume.fence.register = RegisterPlace::Memory;
    let (one, other) = (volume.open(), volume.open());
    assert_ne!(one.volume, other.volume);
    granted(&one, &wish("m1", 5, 1));
    granted(&other, &wish("m2", 1, 1));
}
