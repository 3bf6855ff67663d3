// SPDX-License-Identifier: MIT OR Apache-2.0
//! The load generator: an NBD host that measures, and if wanted checks every byte.
//!
//! It exists beside fio for three things that fio does not do: it says how long the longest silence was (T8), it knows which
//! write a READ must return and so finds a lost or resurrected one (T1), and it never gives up on a request (T2). It is small
//! on purpose: batched sends and receives, no copy of a payload that is not checked, one thread for any number of
//! connections unless told otherwise.

mod connection;
mod control;
mod error;
mod gap;
mod ledger;
mod options;
mod plan;
mod report;
mod socket;
mod stamp;
mod tally;
mod worker;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nbd::TransmissionFlags;
use nbd::client::Negotiated;
use xxhash_rust::xxh3::xxh3_64;

pub use control::Control;
pub use error::{ConnectionError, LoadError};
pub use ledger::{Findings, Ledger};
pub use options::{LoadOptions, Pattern, Replies};
pub use report::{Latency, Report};
pub use socket::{Socket, Target};
pub use stamp::{Random, SECTOR_BYTES, Sector, Stamp};

use connection::Connection;
use plan::Plan;
use tally::Tally;
use worker::{Limits, Worker};

use crate::usage::CpuTime;

/// Blocks that `--verify` can keep books about: 24 bytes each.
const VERIFIED_BLOCKS_MAX: u64 = 1 << 26;
/// After this long without any answer somebody is told; nothing else happens (T2).
const SILENCE_TOLD_AFTER: Duration = Duration::from_secs(10);

/// Runs a load to its end.
///
/// # Errors
///
/// It could not start; nothing was written then. What goes wrong later is in the report.
pub fn run(options: &LoadOptions, control: &Arc<Control>) -> Result<Report, LoadError> {
    let target = Target::parse(&options.uri, options.replies)?;
    let (socket, export) = target.open()?;
    let region = Region::of(options, &export)?;
    let mut sockets = vec![(socket, export)];
    while sockets.len() < options.connections as usize {
        sockets.push(target.open()?);
    }
    let writer = writer_nonce();
    let device = options.device.unwrap_or_else(|| xxh3_64(target.export().as_bytes()));
    let workers = make_workers(options, &region, sockets, control, device, writer);
    let before = CpuTime::of_self();
    let handles: Vec<_> = workers.into_iter().map(|worker| thread::spawn(move || worker.run())).collect();
    tell_of_silence(&handles, control);
    let mut tally = Tally::default();
    for handle in handles {
        let part = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        tally.merge(&part);
    }
    Ok(Report::new(&tally, options.block_bytes, options.verify, CpuTime::of_self() - before))
}

/// The blocks that are used.
struct Region {
    offset: u64,
    blocks_per_thread: u64,
    threads: u32,
}

impl Region {
    fn of(options: &LoadOptions, export: &Negotiated) -> Result<Self, LoadError> {
        let mismatch = |what: String| Err(LoadError::Mismatch(what));
        let (block, size) = (u64::from(options.block_bytes), export.size_bytes);
        if options.block_bytes > export.block.max_bytes
            || !options.block_bytes.is_multiple_of(export.block.min_bytes)
            || !options.offset.is_multiple_of(u64::from(export.block.min_bytes).max(SECTOR_BYTES as u64))
        {
            return mismatch(format!(
                "requests of {block} bytes from {} do not fit the export's blocks: {:?}",
                options.offset, export.block
            ));
        }
        let room = size.saturating_sub(options.offset);
        let wanted = options.size_bytes.unwrap_or(room);
        if wanted > room {
            return mismatch(format!("the export ends at {size}, before {} + {wanted}", options.offset));
        }
        if options.pattern.writes() && export.flags.contains(TransmissionFlags::READ_ONLY) {
            return mismatch("the export is read-only".to_owned());
        }
        if options.flush_every.is_some() && !export.flags.contains(TransmissionFlags::SEND_FLUSH) {
            return mismatch("the export has no FLUSH".to_owned());
        }
        let threads = options.threads.min(options.connections);
        let blocks_per_thread = wanted / block / u64::from(threads);
        Self::check_books(options, threads, blocks_per_thread)?;
        Ok(Self { offset: options.offset, blocks_per_thread, threads })
    }

    fn check_books(options: &LoadOptions, threads: u32, blocks_per_thread: u64) -> Result<(), LoadError> {
        let mismatch = |what: &str| Err(LoadError::Mismatch(what.to_owned()));
        let connections_per_thread = options.connections.div_ceil(threads);
        let in_flight = u64::from(options.depth) * u64::from(connections_per_thread);
        if blocks_per_thread == 0 {
            return mismatch("the region has no block for each thread");
        }
        if !options.verify {
            return Ok(());
        }
        if !options.pattern.writes() {
            return mismatch("--verify checks what it wrote itself: choose randwrite, write or mixed");
        }
        if blocks_per_thread <= in_flight {
            return mismatch("--verify needs more blocks than requests in flight: enlarge --size");
        }
        if blocks_per_thread * u64::from(threads) > VERIFIED_BLOCKS_MAX {
            return mismatch("--verify keeps books about 2^26 blocks at most: give --size");
        }
        Ok(())
    }
}

fn make_workers(
    options: &LoadOptions,
    region: &Region,
    sockets: Vec<(Socket, Negotiated)>,
    control: &Arc<Control>,
    device: u64,
    writer: u64,
) -> Vec<Worker> {
    let payload = plain_payload(options.block_bytes);
    let mut shares: Vec<Vec<Connection>> = (0..region.threads).map(|_| Vec::new()).collect();
    for (index, (socket, export)) in sockets.into_iter().enumerate() {
        let connection =
            Connection::new(socket, export.mode, options.depth, options.verify, Arc::clone(&payload));
        shares[index % region.threads as usize].push(connection);
    }
    let limits = Limits {
        duration: options.duration,
        requests: options.requests.map(|requests| requests.div_ceil(u64::from(region.threads))),
        flush_every: options.flush_every,
    };
    let blocks = region.blocks_per_thread;
    let worker = |(index, connections): (usize, Vec<Connection>)| {
        let index = index as u64;
        let offset = region.offset + index * blocks * u64::from(options.block_bytes);
        let plan = Plan::new(options, offset, blocks, index);
        let ledger =
            options.verify.then(|| Ledger::new(device, writer + index, offset, blocks, options.block_bytes));
        Worker::new(connections, plan, ledger, limits, Arc::clone(control))
    };
    shares.into_iter().enumerate().map(worker).collect()
}

/// A number that no other run has: so data of an older run are never taken for data of this one.
fn writer_nonce() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since_epoch.as_micros() as u64) << 8 ^ u64::from(std::process::id()) << 40
}

/// Content of WRITEs that are not stamped: not zeroes, which storage may treat in a special way.
fn plain_payload(block_bytes: u32) -> Arc<[u8]> {
    let mut random = Random::new(1);
    (0..block_bytes.div_ceil(8)).flat_map(|_| random.next().to_be_bytes()).collect()
}

/// Waits for the workers and says on stderr when nothing comes for long.
fn tell_of_silence(handles: &[thread::JoinHandle<Tally>], control: &Control) {
    let (mut answered, mut since) = (control.answered(), Instant::now());
    while handles.iter().any(|handle| !handle.is_finished()) {
        thread::sleep(Duration::from_millis(5));
        let now = control.answered();
        if now != answered {
            (answered, since) = (now, Instant::now());
        } else if since.elapsed() >= SILENCE_TOLD_AFTER {
            eprintln!("no answer for {} s; waiting", SILENCE_TOLD_AFTER.as_secs());
            since = Instant::now();
        }
    }
}
