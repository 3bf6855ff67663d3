// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run has exercised (rule T6): fault classes and outcomes, as counters.
//!
//! A class counts when it met something: a stop with nothing in flight is no fault.

use std::fmt;

macro_rules! list {
    ($(#[doc = $head:literal])+ $type:ident { $($(#[doc = $doc:literal])+ $name:ident,)+ }) => {
        $(#[doc = $head])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[doc = $doc])+ $name,)+ }

        impl $type {
            /// Every one, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

list! {
    /// What is done to the world.
    FaultClass {
        /// A server process dies and comes back.
        Kill,
        /// A server process is stopped and continued.
        Stop,
        /// A link's connections are reset; the server keeps what it has.
        Reset,
        /// A server closes its connections unasked.
        Fin,
        /// Nothing reaches the server.
        SilentTo,
        /// Nothing comes back.
        SilentFrom,
        /// Neither.
        SilentBoth,
        /// A server answers EIO.
        Eio,
        /// A server answers FLUSH with EIO.
        FlushEio,
        /// A server announces its shutdown (ESHUTDOWN), then dies.
        Leaving,
        /// A server answers writes with ENOSPC.
        NoSpace,
        /// A server is slow.
        Slow,
        /// A server never finishes what it works on.
        Hang,
        /// A server comes back with other data.
        OtherData,
        /// A server comes back smaller.
        Smaller,
        /// A server breaks framing.
        Garbage,
        /// `path fail` and `path reinstate`.
        PathFail,
        /// `path drain` and `path reinstate`.
        PathDrain,
        /// A changed program.
        Reload,
        /// A host's connection breaks; it comes back and sends again.
        HostLost,
        /// Our own process is killed with everything in flight and started again (W10).
        Restart,
        /// Our own process is told to stop, finishes what it can, and the next one is started (W10, F9).
        OwnStop,
        /// The storage host goes down with all its servers and their cache.
        HostCrash,
    }
}

list! {
    /// What came of it.
    Mark {
        /// A write was issued over one that was not answered (W8).
        Ordered,
        /// A write was issued over one in doubt (W4).
        OverDoubt,
        /// The engine let a successor go on without proof.
        Unproven,
        /// A reply came on a lane that was given up.
        LateReply,
        /// A ghost was carried out after its connection was gone.
        Ghost,
        /// A ghost TRIM or WRITE_ZEROES.
        GhostDiscard,
        /// A lost connection had cut a frame.
        CutFrame,
        /// A lost connection had frames that never began to leave.
        UnsentFrame,
        /// A write was sent again.
        Resent,
        /// A resent write carried FUA.
        ResentFua,
        /// A FLUSH was lost with its lane.
        FlushLost,
        /// A FLUSH took more than one server's.
        FlushMany,
        /// An emulated FUA.
        FuaEmulated,
        /// An operation was done twice.
        Twice,
        /// A reset left requests in a stopped server's receive queue.
        StalledReceive,
        /// A lane was lost with requests in execution.
        StalledExecution,
        /// A lane was lost with bytes in our kernel's queue.
        StalledSend,
        /// Bytes were in the network when their connection went.
        StalledNetwork,
        /// A server was turned away.
        Refused,
        /// The identity of a lane could not be proven yet.
        UnprovenLane,
        /// The hold ended and requests failed.
        HoldOver,
        /// A host was told a definite error.
        Definite,
        /// A host was told of a failed FLUSH.
        FlushFailed,
        /// An active-passive device changed its path.
        Switched,
        /// What was measured put a path into another group.
        Moved,
        /// The other writer wrote.
        OtherWriter,
        /// A server drained after DISC.
        Drained,
        /// The kernel gave a connection up (TCP_USER_TIMEOUT).
        UserTimeout,
        /// A server lost what was acknowledged and not stable.
        CacheLost,
        /// Acknowledged writes were written again.
        Replayed,
        /// A write that was let go without proof landed over newer ones (W13).
        Haunted,
        /// What is newer was written again after that.
        Repaired,
        /// Acknowledged writes could not be written again; hosts were told.
        WritesLost,
        /// A late read was sent to a second path as well.
        Hedged,
        /// The second copy of a read answered first.
        HedgeWon,
        /// A copy of a hedged read answered after its host was, and was thrown away.
        HedgeDrained,
        /// A connection broke in the middle of the data of a read, and only the rest was read anew.
        Continued,
        /// A stop of our own left nothing: what was acknowledged was stable (T3).
        EndedClean,
        /// It left something, and the next process waited for it (W10).
        EndedUnclean,
        /// It could not make stable what was acknowledged, and the next process told so (F9).
        EndedWithLoss,
        /// What was lost was written again, or what was not stable was flushed, before it ended.
        EndedSettling,
        /// A gate finished a lost session (2.4).
        Fenced,
        /// Behind gates a new process of ours went on at once (W10).
        Recovered,
        /// On plain storage it did so after `quiesce`.
        RecoveredUnproven,
        /// A cache that the process before may have left something in was not there in time.
        InheritedUnproven,
    }
}

/// Counters of one run or of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    faults: Vec<u64>,
    marks: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { faults: vec![0; FaultClass::ALL.len()], marks: vec![0; Mark::ALL.len()] }
    }
}

impl Coverage {
    /// A fault met something.
    pub fn fault(&mut self, class: FaultClass) {
        self.faults[class as usize] += 1;
    }

    /// An outcome was reached.
    pub fn mark(&mut self, mark: Mark) {
        self.marks[mark as usize] += 1;
    }

    /// How often.
    pub fn count(&self, mark: Mark) -> u64 {
        self.marks[mark as usize]
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.faults.iter_mut().zip(&other.faults) {
            *sum += count;
        }
        for (sum, count) in self.marks.iter_mut().zip(&other.marks) {
            *sum += count;
        }
    }

    /// What was never exercised.
    pub fn missing(&self) -> Vec<String> {
        let faults = FaultClass::ALL.iter().filter(|&&class| self.faults[class as usize] == 0);
        let marks = Mark::ALL.iter().filter(|&&mark| self.marks[mark as usize] == 0);
        faults.map(|class| format!("{class:?}")).chain(marks.map(|mark| format!("{mark:?}"))).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults:")?;
        for class in FaultClass::ALL {
            write!(f, " {class:?} {}", self.faults[*class as usize])?;
        }
        write!(f, "\noutcomes:")?;
        for mark in Mark::ALL {
            write!(f, " {mark:?} {}", self.marks[*mark as usize])?;
        }
        Ok(())
    }
}
