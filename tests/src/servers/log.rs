// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's `log` filter, read back: which requests were in flight at the storage, when.

use std::collections::HashMap;
use std::path::Path;

/// One request between its call and its return, in microseconds of the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// `Read`, `Write`, `Flush`, `Trim`, `Zero`.
    pub kind: String,
    /// Number of the connection, within one run of the server.
    pub connection: String,
    /// First byte, 0 where there is none.
    pub offset: u64,
    /// Length in bytes, 0 where there is none.
    pub count: u64,
    /// When the server began.
    pub begin_us: u64,
    /// When it was done, or the last sign of life of a server that was killed before.
    pub end_us: u64,
    /// Whether it was done.
    pub returned: bool,
}

/// All requests of a log file; several runs of a server may have written it.
pub fn read_log(path: &Path) -> Vec<Interval> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut intervals: Vec<Interval> = Vec::new();
    let mut open: HashMap<(String, String), usize> = HashMap::new();
    let mut last_us = 0;
    for line in text.lines() {
        if line.contains(" Ready ") {
            // A new run: what the last one had begun ended with it.
            close_all(&mut intervals, &mut open, last_us);
        }
        let Some(entry) = Entry::parse(line) else { continue };
        last_us = entry.at_us;
        let key = (entry.connection.clone(), entry.id);
        if entry.returns {
            if let Some(index) = open.remove(&key) {
                intervals[index].end_us = entry.at_us;
                intervals[index].returned = true;
            }
        } else {
            open.insert(key, intervals.len());
            let Entry { connection, kind, offset, count, at_us: begin_us, .. } = entry;
            intervals.push(Interval {
                kind,
                connection,
                offset,
                count,
                begin_us,
                end_us: begin_us,
                returned: false,
            });
        }
    }
    close_all(&mut intervals, &mut open, last_us);
    intervals
}

fn close_all(intervals: &mut [Interval], open: &mut HashMap<(String, String), usize>, at_us: u64) {
    for (_, index) in open.drain() {
        intervals[index].end_us = at_us;
    }
}

struct Entry {
    at_us: u64,
    connection: String,
    id: String,
    kind: String,
    offset: u64,
    count: u64,
    returns: bool,
}

impl Entry {
    /// `DATE TIME connection=N Write id=M offset=0x0 count=0x1000 fua=0 ...`, and later
    /// `DATE TIME connection=N ...Write id=M return=0`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let at_us = microseconds(words.nth(1)?)?;
        let connection = words.next()?.strip_prefix("connection=")?.to_owned();
        let kind = words.next()?;
        let id = words.next()?.strip_prefix("id=")?.to_owned();
        let mut number = |name: &str| {
            let hex = words.find_map(|word| word.strip_prefix(name));
            hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
        };
        let (offset, count) = (number("offset=0x"), number("count=0x"));
        let (kind, returns) = (kind.trim_start_matches('.').to_owned(), kind.starts_with("..."));
        Some(Self { at_us, connection, id, kind, offset, count, returns })
    }
}

fn microseconds(clock: &str) -> Option<u64> {
    let (time, fraction) = clock.split_once('.')?;
    let mut parts = time.split(':').map(str::parse::<u64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::read_log;
    use crate::servers::Nbdkit;
    use crate::wire::Client;
    use crate::{Endpoint, TestDir};

    /// Read from the real thing: a format that changed would make every test of
    /// exclusivity pass on an empty list.
    #[test]
    fn the_installed_nbdkit_writes_what_we_read() {
        let dir = TestDir::new();
        let endpoint = Endpoint::unix(dir.join("s.sock"));
        let parameter = format!("logfile={}", dir.text("requests"));
        let _server = Nbdkit::memory("1M").filter("log", &[&parameter]).start(&dir, "nbdkit", &endpoint);
        let mut client = Client::open(&endpoint, "").expect("nbdkit serves");
        client.write(4096, &[7; 8192]).expect("memory takes it");
        client.flush().expect("memory flushes");
        client.disconnect().expect("nbdkit closes");

        let intervals = read_log(&dir.join("requests"));
        let kinds: Vec<(&str, u64)> = intervals.iter().map(|i| (i.kind.as_str(), i.count)).collect();
        assert_eq!(kinds, [("Write", 8192), ("Flush", 0)]);
        assert!(intervals.iter().all(|i| i.returned && i.end_us >= i.begin_us), "{intervals:?}");
    }
}
