// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every bound of the driver, with its unit last and its reason.

use std::time::Duration;

use program::{MILLISECOND, Nanos, SECOND};

/// Requests of one host session that are accepted and whose reply is not sent yet. The
/// Linux kernel has 128 tags per connection; twice that leaves no host waiting.
pub(crate) const SESSION_REQUESTS_MAX: u32 = 256;

/// What a request costs besides its data, in bytes: its entries and its reply header.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 512;

/// A session that has requests in flight may use at most the free memory divided by
/// this: one greedy host cannot starve the next.
pub(crate) const SESSION_SHARE: usize = 4;

/// Second copies of late reads may use at most the free memory divided by this.
pub(crate) const HEDGE_SHARE: usize = 4;

/// The memory of a reactor divided by this is for acknowledged writes that are retained.
pub(crate) const RETENTION_SHARE: usize = 4;

/// Payload up to this is copied out of the receive chunk, in bytes; the rest of a larger
/// one is received straight into the request's buffer. Measured with 16 and 32 KiB
/// requests: receives of their own (8 KiB here) cost 20 to 45 % more CPU per request,
/// because every one of them ends a turn early.
pub(crate) const COPY_BYTES_MAX: usize = 32 << 10;

/// Bytes asked of the first receive of a connection; grows while receives come full.
pub(crate) const RECV_BYTES_MIN: usize = 4 << 10;

/// A payload up to this is received by one operation that waits for all of it; of a
/// larger one every arrival is seen, so that a slow peer is known to be alive.
pub(crate) const RECV_WHOLE_BYTES_MAX: usize = 128 << 10;

/// Receive chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Receive chunks of a reactor. They are given back in the turn they are filled, so
/// this bounds what one turn parses, not the number of connections.
pub(crate) const CHUNKS: u16 = 32;

/// CPUs from which reactors are pinned. Below, the scheduler knows better.
pub(crate) const PIN_CPUS_MIN: usize = 4;

/// Least memory of one reactor, in bytes: its chunks and enough for some concurrency. A
/// larger request than fits is taken when nothing else is in hand.
pub(crate) const REACTOR_MEMORY_MIN: u64 = 16 << 20;

/// A host that takes no reply byte, or does not end a payload, for this long is closed
/// when memory is short or its session is to end.
pub(crate) const HOST_STALL: Nanos = 30 * SECOND;

/// After the last reply of a session that ends in order, its peer has this long to close.
pub(crate) const LINGER: Nanos = 2 * SECOND;

/// Host connections above `max_sessions` that are told so at once; still further ones are
/// closed without a word.
pub(crate) const TURNED_AWAY_MAX: u32 = 64;
/// A host that is turned away has this long to ask for its export and to read the answer.
pub(crate) const TURNED_AWAY: Nanos = 2 * SECOND;

/// A storage server has this long between our DISC and its EOF.
pub(crate) const DISCONNECT: Nanos = 5 * SECOND;

/// A gap in which we did not run is a pause of our own from here on (rule W17).
pub(crate) const PAUSE_MIN: Nanos = 50 * MILLISECOND;

/// TCP_USER_TIMEOUT of lanes in use, in milliseconds (design section 4).
pub(crate) const LANE_USER_TIMEOUT_MS: u32 = 2000;

/// Session ids claimed at gates that a device remembers.
pub(crate) const GATE_SESSIONS_MAX: usize = 4096;

/// Time between looks at stalled sessions and idle memory.
pub(crate) const SWEEP: Nanos = SECOND;
/// Time between looks at idle memory.
pub(crate) const TRIM: Nanos = 10 * SECOND;

/// Pause after an accept failed for lack of descriptors.
pub(crate) const ACCEPT_RETRY: Nanos = 100 * MILLISECOND;

/// Threads that resolve names, open files and ask for extents, per reactor.
pub(crate) const JOB_THREADS_MAX: usize = 4;

/// Reports that wait for the control plane; the oldest are dropped, and counted.
pub(crate) const REPORTS_MAX: usize = 4096;

/// Empty messages kept for use.
pub(crate) const MESSAGES_KEPT_MAX: usize = 64;

/// Requests in hand from which a turn gathers before it sends: one alone must not wait.
pub(crate) const GATHER_REQUESTS_MIN: usize = 8;
/// Gathering that takes longer than this means that others need the CPU.
pub(crate) const GATHER_MAX: Nanos = 300_000;
/// For so long there is none then.
pub(crate) const GATHER_PAUSE: Nanos = 20 * MILLISECOND;

/// Rounds of reaping before timers are looked at although completions keep coming.
pub(crate) const REAP_ROUNDS_MAX: u32 = 64;

/// Extents of one BLOCK_STATUS answer of local storage.
pub(crate) const LOCAL_EXTENTS_MAX: usize = 4096;

/// At start an address in use may still be that of a process that was killed a moment ago.
pub(crate) const PREDECESSOR_GONE_WITHIN: Duration = Duration::from_secs(1);
/// Between two attempts to have it.
pub(crate) const LISTEN_AGAIN: Duration = Duration::from_millis(20);

const _: () = assert!(COPY_BYTES_MAX < CHUNK_BYTES);
const _: () = assert!(RECV_BYTES_MIN >= nbd::REQUEST_HEADER_MAX);
const _: () = assert!(REACTOR_MEMORY_MIN >= 2 * CHUNKS as u64 * CHUNK_BYTES as u64);
const _: () = assert!(ring::CLASS_BYTES_MAX == nbd::limits::PAYLOAD_MAX_BYTES as usize);
