// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processor time and memory: ours, of a process, of the machine.
//!
//! `/proc/PID/stat` counts all threads of a process, those that have ended included, in ticks of 10 ms; the kernel derives
//! it from exact run times, so a run of seconds is known to a percent.

use std::fs;
use std::ops::Sub;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use serde::{Deserialize, Serialize};

/// Ticks of `/proc` per second; fixed for user space on every Linux architecture (USER_HZ).
const TICKS_PER_S: f64 = 100.0;

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTime {
    /// In user mode.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
}

impl CpuTime {
    /// Of this process so far.
    pub fn of_self() -> Self {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    /// Of the children of this process that have ended.
    pub fn of_ended_children() -> Self {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Self {
        let usage = getrusage(who).unwrap_or_else(|e| panic!("our own usage: {e}"));
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Self { user_s: seconds(usage.user_time()), system_s: seconds(usage.system_time()) }
    }

    /// Of a process so far; `None` when it is gone.
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// User and kernel mode together.
    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    /// Fields 14 and 15 of `/proc/PID/stat`; the name in field 2 may hold anything, so it is skipped by its last bracket.
    fn parse(stat: &str) -> Option<Self> {
        let (_, behind_name) = stat.rsplit_once(") ")?;
        let mut fields = behind_name.split_whitespace().skip(11).map(str::parse::<f64>);
        let mut ticks = || fields.next()?.ok();
        Some(Self { user_s: ticks()? / TICKS_PER_S, system_s: ticks()? / TICKS_PER_S })
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }
}

/// What all processors did since boot, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineTime {
    /// Not idle, without what the hypervisor took.
    pub busy_s: f64,
    /// Taken by the hypervisor.
    pub steal_s: f64,
}

impl MachineTime {
    /// So far.
    pub fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// First line of `/proc/stat`: user nice system idle iowait irq softirq steal.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let [user, nice, system, _idle, _wait, irq, softirq, steal, ..] = ticks[..] else { return None };
        let busy_s = (user + nice + system + irq + softirq) / TICKS_PER_S;
        Some(Self { busy_s, steal_s: steal / TICKS_PER_S })
    }
}

/// Resident memory of a process in KiB; `None` when it is gone.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets this process, and those it starts, have as many descriptors as the system allows it; returns how many.
pub fn raise_open_files() -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|e| panic!("our own limits: {e}"));
    let (_, hard) = limits;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => limits.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuTime, MachineTime};

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 130 7 7 20 0 3 0 1 1 1";
        assert_eq!(CpuTime::parse(stat), Some(CpuTime { user_s: 2.5, system_s: 1.3 }));
        assert_eq!(CpuTime::parse("42 (a) S 1"), None);
    }

    #[test]
    fn busy_time_leaves_out_idle_and_stolen_time() {
        let stat = "cpu  100 20 300 4000 50 6 4 700 0 0\ncpu0 1 2 3\n";
        assert_eq!(MachineTime::parse(stat), Some(MachineTime { busy_s: 4.3, steal_s: 7.0 }));
    }

    #[test]
    fn our_own_time_is_found_both_ways() {
        let (by_call, by_file) = (CpuTime::of_self(), CpuTime::of_process(std::process::id()));
        let by_file = by_file.unwrap_or_else(|| panic!("this process runs"));
        // The file is read later and rounds to ticks.
        assert!(by_file.total_s() + 0.05 >= by_call.total_s(), "{by_file:?} {by_call:?}");
    }
}
