// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine itself: what it holds, and which part handles which event.
//!
//! | file | concern | rules |
//! |---|---|---|
//! | `accept` | host requests and sessions | W8 |
//! | `dispatch` | which path, which form, cutting | 3.4 |
//! | `candidates` | which paths and lanes could carry a piece | 3.4 |
//! | `complete` | replies, retries | W2, W3, W7, W14 |
//! | `opinion` | errors, and what another path says of them | W7, W14 |
//! | `answer` | the end of a request, and what stays of it | W4, W5, W14 |
//! | `doubt` | copies whose fate is open | W4, W5, W13 |
//! | `fence` | sessions a gate is to finish | 2.4 |
//! | `ghost` | copies let go without proof, repair | W13 |
//! | `recover` | after a crash of our own | W10 |
//! | `flush` | cache domains | F1-F4, F10 |
//! | `retain` | acknowledged writes that are not stable | F5, F7 |
//! | `compact` | a history that cannot be cut | F5 |
//! | `replay` | writing them again after a cache was lost | F2, F6 |
//! | `loss` | acknowledged writes that are gone for good | F9 |
//! | `lanes` | opening, losing, giving up | W1, 3.5 |
//! | `pace` | moved requests, a few at a time | 3.5 |
//! | `reconnect` | portals, when a path has failed | 3.4 |
//! | `verify` | same device? | 3.8 |
//! | `health` | canaries, silence, age, the timer | W15, W16 |
//! | `hedge` | second copies of late reads | W2 |
//! | `verdict` | what a sign means, by the fault table | 3.5 |
//! | `unanswered` | nothing comes: why, and then | W15, W16, W19 |
//! | `partial` | reads that go on elsewhere after a part came | W2 |
//! | `active` | which paths carry I/O | W18, W20, 3.4 |
//! | `unshared` | caches that are not shared: reads over a write that moves, coming apart | W18 |
//! | `rank` | which group a path is in | 3.4 |
//! | `budget` | what failures cost, and whose they were | |
//! | `decide` | why: what is kept of each decision | |
//! | `record` | decision points, for a shadow | |
//! | `geometry` | what hosts are told | F11, 3.3 |
//! | `reload` | a changed program, operator's commands | |
//! | `steering` | what is held against a path | 3.5 |
//! | `status` | snapshot | |
//! | `check` | invariants | |
//! | `rules` | switches, for tests only | T5 |

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use policies::limits::BUDGET_DELAY_BOUND;
use policies::{Candidate, Cause, Distances, ErrorBudget, Explain, Failback, Selector, SlowPaths};
use program::{DeviceProgram, Geometry, Nanos, ReportKind, SelectorKind};

use crate::active::Active;
use crate::budget::Outage;
use crate::decide::Grouping;
use crate::doubt::{Doubt, OpenReads};
use crate::ending::Ending;
use crate::fence::Kill;
use crate::flush::Domain;
use crate::ghost::Ghost;
use crate::hedge::Hedges;
use crate::lane::Lane;
use crate::path::Path;
use crate::ranges::{Holder, RangeTable};
use crate::record::Record;
use crate::replay::Replay;
use crate::request::{Piece, Request};
use crate::retain::Retention;
use crate::samples::Identity;
use crate::slab::{Key, Slab};
use crate::{Action, Event, Rules, SessionId};

/// Counters shown in status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) errors: u64,
    pub(crate) resent: u64,
}

/// Pieces that wait for a lane, in order of acceptance within each queue.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(crate) reads: VecDeque<Key>,
    pub(crate) writes: VecDeque<Key>,
    /// TRIM and WRITE_ZEROES: at most two in flight per device (W6).
    pub(crate) discards: VecDeque<Key>,
    pub(crate) flushes: VecDeque<Key>,
    /// Of a lost path, paced: reads, writes, discards.
    pub(crate) moved: crate::pace::Moved,
}

/// One host session, as the engine sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) in_flight: u32,
    /// A FLUSH failed since this session was last told: its next one fails too.
    pub(crate) flush_error: bool,
}

/// The state machine of one device. See the crate header.
#[derive(Debug)]
pub struct Engine {
    pub(crate) rules: Rules,
    pub(crate) program: DeviceProgram,
    pub(crate) now: Nanos,
    /// Counts events: tells what was sent before another thing happened, also within one instant.
    pub(crate) turn: u64,
    /// State of the deterministic draws that jitter needs.
    pub(crate) draws: u64,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) requests: Slab<Request>,
    pub(crate) pieces: Slab<Piece>,
    pub(crate) ranges: RangeTable,
    pub(crate) queues: Queues,
    pub(crate) order: u64,
    pub(crate) discards_in_flight: u32,
    pub(crate) paths: Vec<Path>,
    pub(crate) lanes: Vec<Option<Lane>>,
    /// Incarnations of the lane slots.
    pub(crate) lane_generations: Vec<u32>,
    pub(crate) doubts: Vec<Doubt>,
    /// Reads on lost connections that may still be carried out (W20).
    pub(crate) open_reads: Vec<OpenReads>,
    /// Sessions a gate is to finish.
    pub(crate) kills: Vec<Kill>,
    /// Copies that were let go without proof.
    pub(crate) ghosts: Vec<Ghost>,
    /// Writes wait for what an earlier process of ours may have in flight (W10).
    pub(crate) recovering: Option<Nanos>,
    /// No gate speaks for all that the process before this one sent.
    pub(crate) left_elsewhere: bool,
    /// Until then FLUSH waits for every cache that process may have left something in.
    pub(crate) inheriting: Option<Nanos>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) retention: Retention,
    /// Acknowledged writes are being written again.
    pub(crate) replay: Option<Box<Replay>>,
    /// Acknowledged writes are gone, and why; FLUSH and FUA fail until it is cleared (F9).
    pub(crate) lost_writes: Option<String>,
    pub(crate) active: Active,
    pub(crate) selector: Selector,
    pub(crate) hedges: Hedges,
    pub(crate) failback: Failback,
    /// Compares the paths' service times.
    pub(crate) slow: SlowPaths,
    pub(crate) distances: Distances,
    pub(crate) geometry: Option<Geometry>,
    pub(crate) identity: Identity,
    /// Since when no path is usable.
    pub(crate) held_since: Option<Nanos>,
    /// The hold is over: requests fail at once until a path is back.
    pub(crate) failed: bool,
    /// How far an orderly end is.
    pub(crate) ending: Ending,
    /// `None` before the first.
    pub(crate) last_request: Option<Nanos>,
    pub(crate) next_tick: Nanos,
    pub(crate) counters: Counters,
    pub(crate) budget: ErrorBudget,
    /// What was last to blame, and in which turn.
    pub(crate) blamed: Option<(u64, Cause)>,
    /// The last time without a path.
    pub(crate) outage: Option<Outage>,
    /// The last decisions, and which paths they said carry I/O.
    pub(crate) explain: Explain,
    pub(crate) grouping: Grouping,
    /// Decision points, while somebody asks for them.
    pub(crate) record: Option<Box<Record>>,
    /// Scratch space, kept to avoid allocation.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) candidate_paths: Vec<usize>,
    pub(crate) good_standing: Vec<bool>,
    /// Moved requests are held back.
    pub(crate) pacing: bool,
    pub(crate) granted: Vec<Holder>,
}

impl Engine {
    /// A device with no lane yet. The first call of [`Engine::handle`] opens them.
    ///
    /// `seed` feeds jitter only; equal seeds and events give equal actions.
    pub fn new(program: &DeviceProgram, seed: u64, now: Nanos) -> Self {
        Self::with_rules(program, seed, now, Rules::ALL)
    }

    /// The same with some safety rules turned off: for tests that must find the damage.
    pub fn with_rules(program: &DeviceProgram, seed: u64, now: Nanos, rules: Rules) -> Self {
        let mut engine = Self {
            rules,
            program: program.clone(),
            now,
            turn: 0,
            draws: seed,
            actions: VecDeque::new(),
            sessions: Vec::new(),
            requests: Slab::new(),
            pieces: Slab::new(),
            ranges: RangeTable::new(rules.w8_order),
            queues: Queues::default(),
            order: 0,
            discards_in_flight: 0,
            paths: Vec::new(),
            lanes: Vec::new(),
            lane_generations: Vec::new(),
            doubts: Vec::new(),
            open_reads: Vec::new(),
            kills: Vec::new(),
            ghosts: Vec::new(),
            recovering: None,
            left_elsewhere: program.unclean && program.left_elsewhere,
            inheriting: None,
            domains: Vec::new(),
            retention: Retention::new(program.retention_bytes),
            replay: None,
            lost_writes: program.lost_writes.clone(),
            active: Active::default(),
            selector: Selector::new(selector_kind(program.selector)),
            hedges: Hedges::new(program),
            failback: Failback::new(crate::reload::failback_when(program.failback)),
            slow: SlowPaths::new(0),
            distances: Distances::new(0),
            geometry: program.recorded.as_ref().map(|recorded| recorded.geometry),
            identity: Identity::new(program),
            held_since: Some(now),
            failed: false,
            ending: Ending::No,
            last_request: None,
            next_tick: now,
            counters: Counters::default(),
            budget: ErrorBudget::new(BUDGET_DELAY_BOUND),
            blamed: None,
            outage: None,
            explain: Explain::new(0),
            grouping: Grouping::default(),
            record: None,
            candidates: Vec::new(),
            candidate_paths: Vec::new(),
            good_standing: Vec::new(),
            pacing: false,
            granted: Vec::new(),
        };
        engine.begin_outage(Cause { path: None, rule: "start" });
        for index in 0..engine.program.paths.len() {
            engine.add_path(index);
        }
        if let Some(geometry) = engine.geometry {
            engine.actions.push_back(Action::Offer(geometry));
        }
        if let Some(text) = engine.lost_writes.clone() {
            // Of an earlier process, and nobody has taken note yet (F9).
            engine.event("writes_lost", None, "F9", text);
            engine.decide_loss();
        }
        engine.begin_recovery();
        engine.open_lanes();
        engine
    }

    /// Takes one event; `now` never goes back.
    pub fn handle(&mut self, now: Nanos, event: Event) {
        assert!(now >= self.now, "time went back from {} to {now}", self.now);
        self.now = now;
        self.turn += 1;
        match event {
            Event::SessionOpened(session) => self.session_opened(session),
            Event::SessionClosed { session, clean } => self.session_closed(session, clean),
            Event::Request(request) => self.accept(request),
            Event::LaneOpened { lane, offer } => self.lane_opened(lane, offer),
            Event::LaneDown { lane, fault, sent_bytes } => self.lane_down(lane, &fault, sent_bytes),
            Event::LaneSent { lane, sent_bytes } => self.lane_sent(lane, sent_bytes),
            Event::LaneActive(lane) => self.lane_active(lane),
            Event::Reply { lane, cookie, result, data, digest } => {
                self.reply(lane, cookie, result, data, digest);
            }
            Event::ReadPart { lane, cookie, data, len } => self.read_part(lane, cookie, data, len),
            Event::Tcp { lane, sample } => self.tcp_sample(lane, sample),
            Event::Timer => self.timer(),
            Event::Program(program) => self.reload(*program),
            Event::Path { path, command } => self.path_command(path, command),
            Event::Device(command) => self.device_command(command),
            Event::Shutdown => self.shutdown(),
            Event::Abandon { why } => self.abandon(why),
        }
        self.settle();
        self.dispatch();
        if self.is_ending() {
            // What that has ended may have been the last.
            self.settle();
            self.dispatch();
        }
    }

    /// The next thing to do; call until `None` after each batch of events.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// No host request is accepted and unanswered.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// What hosts are told; `None` while nothing is known of the device.
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// A draw for jitter and phases (SplitMix64): deterministic by the seed.
    pub(crate) fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draws;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn event(
        &mut self,
        name: &'static str,
        path: Option<usize>,
        rule: &'static str,
        text: String,
    ) {
        let path = path.map(|path| self.paths[path].program.name.clone());
        self.act(Action::Report(ReportKind::Event { name, path, rule, text }));
    }
}

pub(crate) fn selector_kind(kind: SelectorKind) -> policies::selector::Kind {
    match kind {
        SelectorKind::RoundRobin => policies::selector::Kind::RoundRobin,
        SelectorKind::QueueDepth => policies::selector::Kind::QueueDepth,
        SelectorKind::ServiceTime => policies::selector::Kind::ServiceTime,
        SelectorKind::Latency => policies::selector::Kind::Latency,
    }
}
