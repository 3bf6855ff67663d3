// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of every target, and by which client.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use crate::load::Pattern;
use crate::units::parse_block;

/// One kind of load: `PATTERN-BLOCK-DEPTH`, as in `randread-4k-32`; with `-flushN` behind it, as in
/// `randwrite-4k-32-flush4096`, a FLUSH follows N writes, as a host with a file system sends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As written.
    pub name: String,
    /// Order and kind of requests; never mixed.
    pub pattern: Pattern,
    /// Bytes of a request.
    pub block_bytes: u32,
    /// Requests in flight.
    pub depth: u32,
    /// Writes between two FLUSHes; `None` for no FLUSH.
    pub flush_every: Option<u32>,
}

/// Who sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// fio with its nbd engine (libnbd, one connection).
    Fio,
    /// The load generator of this program.
    Own,
}

/// The workloads of the goals and of bulk transfer.
pub const DEFAULT_WORKLOADS: &str =
    "randread-4k-32,randwrite-4k-32,randread-4k-1,randwrite-4k-1,read-128k-16,write-128k-16";

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "allowed: PATTERN-BLOCK-DEPTH, as in randread-4k-32, and -flushN behind a pattern that writes"
                .to_owned()
        };
        let mut parts = text.split('-');
        let (Some(pattern), Some(block), Some(depth)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let (flush, None) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let pattern = Pattern::from_str(pattern, false).map_err(|_| wrong())?;
        let depth = depth.parse().ok().filter(|depth| (1..=4096).contains(depth)).ok_or_else(wrong)?;
        if pattern == Pattern::Mixed {
            return Err("a mixed load has no single number to compare".to_owned());
        }
        let flush_every = flush.map(|flush| flush_every(flush).ok_or_else(wrong)).transpose()?;
        if flush_every.is_some() && !pattern.writes() {
            return Err(wrong());
        }
        Ok(Self { name: text.to_owned(), pattern, block_bytes: parse_block(block)?, depth, flush_every })
    }
}

fn flush_every(text: &str) -> Option<u32> {
    text.strip_prefix("flush")?.parse().ok().filter(|&writes| writes > 0)
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_WORKLOADS, Workload};

    #[test]
    fn names_say_what_is_done() {
        let workload: Workload = "write-128k-16".parse().expect("it is one");
        assert_eq!((workload.block_bytes, workload.depth), (131_072, 16));
        assert!(workload.pattern.writes() && workload.flush_every.is_none());
        let workload: Workload = "randwrite-4k-32-flush4096".parse().expect("it is one");
        assert_eq!(workload.flush_every, Some(4096));
        for text in [
            "",
            "randread",
            "randread-4k",
            "randread-4k-0",
            "randread-4k-32-1",
            "mixed-4k-1",
            "trim-4k-1",
            "randread-4k-32-flush8",
            "write-4k-32-flush0",
            "write-4k-32-flush8-1",
        ] {
            assert!(text.parse::<Workload>().is_err(), "{text}");
        }
        for text in DEFAULT_WORKLOADS.split(',') {
            assert!(text.parse::<Workload>().is_ok(), "{text}");
        }
    }
}
