// SPDX-License-Identifier: MIT OR Apache-2.0
//! Setting a ring up: the best flags this kernel takes, and whether it has what is needed.
//!
//! Set up with SINGLE_ISSUER and DEFER_TASKRUN (10 to 20 % less CPU): completions are
//! produced only while we wait. Older or restricted kernels fall back step by step.

use io_uring::{IoUring, Probe, opcode};

use crate::RingError;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Operations queued between two submissions; more are submitted early. Power of two.
    pub submission_entries: u32,
    /// Completions that wait in the ring; more wait in the kernel. Power of two.
    pub completion_entries: u32,
    /// Receive chunks, a power of two.
    pub chunks: u16,
    /// Bytes of a receive chunk, a multiple of 4096.
    pub chunk_bytes: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { submission_entries: 512, completion_entries: 8192, chunks: 64, chunk_bytes: 64 << 10 }
    }
}

/// What this kernel offers beyond the base (Linux 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Task work is deferred to our waits (6.1).
    pub defer_taskrun: bool,
}

/// Tries the best set of flags first. `true`: task work is deferred.
pub(crate) fn build(config: RingConfig) -> Result<(IoUring, bool), RingError> {
    let base = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(config.completion_entries).setup_clamp();
        builder
    };
    let mut deferred = base();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    match deferred.build(config.submission_entries) {
        Ok(uring) => return Ok((uring, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(RingError::from_setup(error)),
    }
    let mut cooperative = base();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    match cooperative.build(config.submission_entries) {
        Ok(uring) => return Ok((uring, false)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(RingError::from_setup(error)),
    }
    let uring = base().build(config.submission_entries).map_err(RingError::from_setup)?;
    Ok((uring, false))
}

/// The base set: what Linux 6.1 has.
pub(crate) fn check(uring: &IoUring) -> Result<(), RingError> {
    if !uring.params().is_feature_ext_arg() {
        return Err(RingError::Missing("waits with a time limit (EXT_ARG)"));
    }
    if !uring.params().is_feature_nodrop() {
        return Err(RingError::Missing("overflow of completions without loss (NODROP)"));
    }
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe).map_err(RingError::Other)?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Recv::CODE, "recv"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Read::CODE, "read"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::Timeout::CODE, "timeouts"),
        (opcode::AsyncCancel::CODE, "cancellation"),
    ];
    match needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(RingError::Missing(name)),
        None => Ok(()),
    }
}
