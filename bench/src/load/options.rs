// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a load does. Declared once: these are the command line's options and the library's at the same time.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::units::{parse_block, parse_bytes, parse_seconds};

/// Order and kind of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// READs at random places.
    #[value(name = "randread")]
    RandRead,
    /// WRITEs at random places.
    #[value(name = "randwrite")]
    RandWrite,
    /// READs from front to back, again and again.
    Read,
    /// WRITEs from front to back, again and again.
    Write,
    /// READs and WRITEs at random places.
    Mixed,
}

impl Pattern {
    /// Whether it sends WRITEs.
    pub fn writes(self) -> bool {
        matches!(self, Self::RandWrite | Self::Write | Self::Mixed)
    }
}

/// Which dialect to ask the server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Replies {
    /// What the Linux kernel's client speaks.
    Simple,
    /// What QEMU and libnbd (so fio too) speak.
    Structured,
    /// Extended headers where the server has them, else structured replies.
    Extended,
}

/// A load. It never times out: a request that is never answered is waited for (rule T2), because a host that gave up could
/// not tell a lost write from one that comes later.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// Export to use: nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH
    #[arg(long)]
    pub uri: String,
    /// Order and kind of the requests; everything that writes destroys what the device holds
    #[arg(long = "rw", value_enum, default_value = "randread")]
    pub pattern: Pattern,
    /// Bytes of a request, a multiple of 512
    #[arg(long = "bs", value_parser = parse_block, default_value = "4k", value_name = "BYTES")]
    pub block_bytes: u32,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub depth: u32,
    /// Connections to the export
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Threads that share the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// For how long requests are sent
    #[arg(long = "seconds", value_parser = parse_seconds, default_value = "5", value_name = "SECONDS")]
    pub duration: Duration,
    /// End after this many requests instead, should that come first
    #[arg(long, value_name = "COUNT")]
    pub requests: Option<u64>,
    /// First byte of the region that is used
    #[arg(long, value_parser = parse_bytes, default_value = "0", value_name = "BYTES")]
    pub offset: u64,
    /// Bytes of the region that is used [default: to the end of the export]
    #[arg(long = "size", value_parser = parse_bytes, value_name = "BYTES")]
    pub size_bytes: Option<u64>,
    /// Share of READs in a mixed load
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub read_percent: u8,
    /// A FLUSH after every so many WRITEs of a connection
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub flush_every: Option<u64>,
    /// Stamp every sector, check every READ against what was acknowledged, read everything back at the end
    #[arg(long)]
    pub verify: bool,
    /// Number of the device in the stamps [default: from the export's name]
    #[arg(long, value_name = "NUMBER")]
    pub device: Option<u64>,
    /// Dialect to ask the server for
    #[arg(long, value_enum, default_value = "structured")]
    pub replies: Replies,
}

impl LoadOptions {
    /// The defaults of the command line, for `uri`.
    pub fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            pattern: Pattern::RandRead,
            block_bytes: 4096,
            depth: 32,
            connections: 1,
            threads: 1,
            duration: Duration::from_secs(5),
            requests: None,
            offset: 0,
            size_bytes: None,
            read_percent: 50,
            flush_every: None,
            verify: false,
            device: None,
            replies: Replies::Structured,
        }
    }
}
