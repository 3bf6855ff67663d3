// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is it the same device, and can it stand behind this one? (design 3.8, 3.3; F11, W18)

use engine::{Action, Event, GateOffer, HostRequest, Offer, RequestTag, SendData, SessionId};
use nbd::Command::{Read, Write};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{AccessPolicy, DeviceProgram, MILLISECOND, ReportKind, SECOND};

use crate::script::{SIZE, Script, Sent, device, offer, without};

/// 3.8: other data is refused and gets no host request.
#[test]
fn a_path_to_other_data_is_refused() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        assert_eq!(read.data, SendData::Digest);
        s.answer_digest(read, u128::from(read.offset) + u128::from(read.path as u64), false);
    }
    assert_eq!((s.state(0), s.state(1)), ("up", "refused"));
    assert!(s.reason(1).contains("other data"), "{}", s.reason(1));
    for n in 0..10 {
        s.request(Read, n * 4096, 4096);
    }
    assert!(s.sent.iter().all(|sent| sent.path == 0));
}

/// 3.8: a blank volume proves nothing until a written block reads back equal.
#[test]
fn a_blank_path_waits_for_a_written_block() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        s.answer_digest(read, 0, true);
    }
    assert_eq!(s.state(1), "unproven");
    s.wait_alive(100 * MILLISECOND, |_| true);
    let write = s.request(Write, 40960, 4096);
    let sent = s.take();
    assert_eq!(sent.path, 0, "no host I/O on an unproven path");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
    s.wait(50 * MILLISECOND);
    let mut compared = false;
    while let Some(read) = s.sent.pop_front() {
        compared |= read.offset == 40960 && read.path == 1;
        s.answer_digest(read, u128::from(read.offset == 40960), read.offset != 40960);
    }
    assert!(compared, "the written block was compared");
    assert_eq!(s.state(1), "up");
}

/// 3.8: gates name their volume, so a blank one is known all the same; a block that differs outweighs the name.
#[test]
fn gates_of_one_volume_need_no_written_block() {
    let gate = |volume| {
        let gate = GateOffer { volume, nonce: 1, cache_generation: 1, epoch: 1, killed: false };
        Offer { gate: Some(gate), ..offer() }
    };
    for (other, differs, state) in [(7, false, "up"), (8, false, "unproven"), (7, true, "refused")] {
        let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
        s.open_path(0, gate(7));
        s.open_path(1, gate(other));
        while let Some(read) = s.sent.pop_front() {
            let value = u128::from(differs && read.path == 1);
            s.answer_digest(read, value, value == 0);
        }
        assert_eq!(s.state(1), state);
    }
}

/// 3.8: a check that the accepted path holds up is not the returning path's fault: it is not
/// closed and backed off for it, and takes over what hangs on the other.
#[test]
fn a_hung_reference_is_not_held_against_a_returning_path() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    let content = |sent: &Sent| u128::from(sent.offset) + 1;
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        s.answer_digest(read, content(&read), false);
    }
    assert_eq!((s.state(0), s.state(1)), ("up", "up"));
    s.reset(1);
    // On a sampled place: the check waits for its range, too.
    let write = s.request(Write, 0, 4096);
    assert_eq!(s.take().path, 0, "from here on path 0 answers nothing");
    s.open_path(1, offer());
    let returning = s.lanes.iter().find(|(_, path, _)| *path == 1).expect("just opened").0;
    for _ in 0..80 {
        s.wait(100 * MILLISECOND);
        for sent in std::mem::take(&mut s.sent) {
            match (sent.path, sent.data) {
                (1, SendData::Digest) => s.answer_digest(sent, content(&sent), false),
                (1, _) => s.answer(sent, Ok(())),
                _ => s.sent.push_back(sent),
            }
        }
    }
    assert!(s.closing.iter().all(|(lane, _)| *lane != returning), "the returning path was blamed");
    assert_eq!(s.result(write), Some(Ok(())), "path 1: {} {}", s.state(1), s.reason(1));
}

/// 3.8: a path whose disk fails is no reference while another one is well: the others come back beside it.
#[test]
fn a_path_that_answers_eio_keeps_no_other_one_out() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(3) });
    let content = |sent: &Sent| u128::from(sent.offset) + 1;
    for path in 0..3 {
        s.open_path(path, offer());
    }
    let answer = |s: &mut Script, failing: Option<usize>| {
        for sent in std::mem::take(&mut s.sent) {
            match sent.data {
                _ if failing == Some(sent.path) => s.answer(sent, Err(Errno::Io)),
                SendData::Digest => s.answer_digest(sent, content(&sent), false),
                _ => s.answer(sent, Ok(())),
            }
        }
    };
    while !s.nothing_sent() {
        answer(&mut s, None);
    }
    assert_eq!([s.state(0), s.state(1), s.state(2)], ["up"; 3]);
    for block in 0..30 {
        s.request(Read, block * 4096, 4096);
        while !s.nothing_sent() {
            answer(&mut s, Some(0));
        }
    }
    assert_eq!(s.state(0), "down", "W7: {}", s.reason(0));
    s.reset(2);
    s.wait(10 * MILLISECOND);
    s.open_path(2, offer());
    for _ in 0..20 {
        answer(&mut s, Some(0));
        s.wait(10 * MILLISECOND);
    }
    assert_ne!(s.state(2), "unproven", "{}", s.reason(2));
}

/// 3.8: where it is the only other path, what is known of the content decides: a path that was proven
/// before comes back, one that leads to other data does not.
#[test]
fn a_reference_that_cannot_be_read_is_none() {
    let geometry = Script::up(&device(1)).engine.geometry().expect("known once a path is up");
    let recorded = Some(program::Recorded { geometry, samples: vec![(0, 1)] });
    for (shift, states) in [(0, ["up", "probation"]), (7, ["refused", "refused"])] {
        let mut s = Script::new(&DeviceProgram { identity: None, recorded: recorded.clone(), ..device(2) });
        let mut failing = false;
        let answer = |s: &mut Script, failing: bool, shift: u128| {
            for sent in std::mem::take(&mut s.sent) {
                match sent.data {
                    _ if failing && sent.path == 0 => s.answer(sent, Err(Errno::Io)),
                    SendData::Digest => s.answer_digest(sent, u128::from(sent.offset) + 1 + shift, false),
                    _ => s.answer(sent, Ok(())),
                }
            }
        };
        for path in 0..2 {
            s.open_path(path, offer());
            while !s.nothing_sent() {
                answer(&mut s, failing, 0);
            }
        }
        assert_eq!([s.state(0), s.state(1)], ["up"; 2]);
        failing = true;
        s.reset(1);
        s.wait(10 * MILLISECOND);
        s.open_path(1, offer());
        for _ in 0..20 {
            answer(&mut s, failing, shift);
            s.wait(10 * MILLISECOND);
        }
        assert!(states.contains(&s.state(1)), "{}: {}", s.state(1), s.reason(1));
    }
}

/// 3.8: without a live path the recorded samples decide.
#[test]
fn the_first_path_up_is_checked_against_the_record() {
    let geometry = {
        let s = Script::up(&device(1));
        s.engine.geometry().expect("known once a path is up")
    };
    let recorded = Some(program::Recorded { geometry, samples: vec![(0, 77)] });
    for (digest, state) in [(77, "up"), (78, "refused")] {
        let mut s = Script::new(&DeviceProgram { identity: None, recorded: recorded.clone(), ..device(2) });
        s.open_path(1, offer());
        let read = s.take();
        assert_eq!((read.offset, read.data), (0, SendData::Digest));
        s.answer_digest(read, digest, false);
        assert_eq!(s.state(1), state);
    }
}

/// 3.8: a block that is about to be written is out of the record before the write is sent, or a crash of ours between
/// the two would leave a record that turns the storage away.
#[test]
fn a_block_leaves_the_record_before_it_is_written() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(1) });
    s.open_path(0, offer());
    s.wait(SECOND);
    let sample = s.take();
    assert_eq!(sample.data, SendData::Digest);
    s.answer_digest(sample, 77, false);
    let (tag, payload) = (RequestTag(1), Some(s.buffer()));
    let (session, flags) = (SessionId(1), CommandFlags::empty());
    let write =
        HostRequest { tag, session, command: Write, flags, offset: sample.offset + 512, len: 512, payload };
    s.engine.handle(s.now, Event::Request(write));
    let actions: Vec<Action> = std::iter::from_fn(|| s.engine.next_action()).collect();
    let told = actions.iter().position(|action| match action {
        Action::Report(ReportKind::Samples(known)) => known.iter().all(|(at, _)| *at != sample.offset),
        _ => false,
    });
    let sent = actions.iter().position(|action| matches!(action, Action::Send { command: Write, .. }));
    assert!(told.is_some() && sent.is_some() && told < sent, "{actions:?}");
}

/// 3.8, W10: while writes of a crashed process may still land nothing is recorded, or the next start would be turned away
/// by what they change.
#[test]
fn nothing_is_recorded_before_a_crashed_process_is_over() {
    for unclean in [false, true] {
        let quiesce = 15 * SECOND;
        let mut s = Script::new(&DeviceProgram { identity: None, unclean, quiesce, ..device(1) });
        s.open_path(0, offer());
        let began = s.now;
        let mut sampled = None;
        while s.now < began + 30 * SECOND {
            s.wait(100 * MILLISECOND);
            while let Some(sent) = s.sent.pop_front() {
                if sent.data == SendData::Digest && sent.len == 4096 {
                    sampled.get_or_insert(s.now - began);
                }
                s.answer_digest(sent, 77, false);
            }
        }
        let least = if unclean { quiesce } else { 0 };
        assert!(
            sampled.is_some_and(|at| (least..least + 11 * SECOND).contains(&at)),
            "{unclean}: {sampled:?}"
        );
    }
}

/// 3.3, F11: what cannot stand behind the device is refused, with the reason.
#[test]
fn paths_that_do_not_fit_are_refused() {
    let smaller = Offer { size_bytes: SIZE - 4096, ..offer() };
    let coarser = Offer { min_block_bytes: 4096, ..offer() };
    let cases = [
        (smaller, "hosts were told the larger size"),
        (coarser, "blocks of at least"),
        (without(Flags::SEND_FLUSH), "no FLUSH"),
    ];
    for (bad, reason) in cases {
        let mut s = Script::new(&device(2));
        s.open_path(0, offer());
        s.open_path(1, bad);
        assert_eq!(s.state(1), "refused");
        assert!(s.reason(1).contains(reason), "{}", s.reason(1));
    }
    let mut s = Script::new(&device(2));
    s.open_path(0, offer());
    s.open_path(1, Offer { size_bytes: SIZE * 2, ..offer() });
    assert_eq!(s.state(1), "up", "a larger path is accepted at the exported size");
    assert!(s.events.contains(&"path_larger"));
}

/// W18: a server without multi-conn narrows the device to one path with FUA.
#[test]
fn without_multi_conn_one_path_with_fua() {
    let mut s = Script::new(&device(2));
    s.open_path(0, without(Flags::CAN_MULTI_CONN));
    s.open_path(1, offer());
    for n in 0..4 {
        s.request(Write, n * 4096, 4096);
    }
    assert!(s.sent.iter().all(|sent| sent.path == s.sent[0].path && sent.flags.contains(CommandFlags::FUA)));
    assert_eq!(s.engine.status(s.now).access, AccessPolicy::ActivePassive);
}
