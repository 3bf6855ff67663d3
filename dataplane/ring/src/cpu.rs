// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping a thread on one CPU.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// CPUs this thread may run on.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Keeps the calling thread on `cpu`, if the system allows it: nothing depends on it.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        // Refused inside some sandboxes.
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pinned_thread_may_run_there_only() {
        let pinned = std::thread::spawn(|| {
            let first = super::allowed()[0];
            super::pin(first);
            (first, super::allowed())
        });
        let (first, now) = pinned.join().unwrap();
        assert_eq!(now, [first]);
    }
}
