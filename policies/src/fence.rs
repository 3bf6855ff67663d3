// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may open a volume at a gate, and which sessions that ends (semantics 2.4).
//!
//! A register belongs to a volume: the highest epoch and who holds it, and for each member that ever came a
//! *floor* below which nothing of it is admitted. Epochs only rise. An ask is judged against the register:
//!
//! | | one writer | many writers |
//! |---|---|---|
//! | below its member's floor | refused | refused |
//! | below the register's epoch | refused | admitted |
//! | at the register's epoch | admitted, if the same member holds it | admitted |
//! | above it | admitted; ends every session of a lower epoch | admitted; raises its own floor, so ends its own older sessions |
//! | `fence=m:e` | raises m's floor, so ends m's sessions below e | the same |
//! | `kill=s` | ends session s of the same member | the same |
//! | more than 2^20 above anything seen | refused | refused |
//! | from a stranger | refused | refused |
//!
//! *Ends* means: nothing more of it is read, what was not started is dropped, what was started is waited for,
//! and only then is the ask answered. [`holds_up`] says for which sessions. A raise is durable before any of
//! that, so a wait that takes too long fails the ask and leaves the raise: the next ask waits again.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::limits::{EPOCH_JUMP_MAX, FENCE_MEMBERS_MAX};

/// Who may write a volume at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writers {
    /// One member: the holder of the highest epoch.
    One,
    /// Several members, each with a floor of its own.
    Many,
}

/// A member that has come to this volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name; unique in the register.
    pub name: String,
    /// Nothing of it is admitted below this epoch.
    pub floor: u64,
}

/// The register of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Register {
    /// Highest epoch that was admitted; 0 while none was.
    pub epoch: u64,
    /// Index of the member it was admitted for.
    pub holder: Option<usize>,
    /// At most [`FENCE_MEMBERS_MAX`], in the order of their first coming: an index means the same member
    /// for ever.
    pub members: Vec<Member>,
}

/// What is known of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The MAC is right.
    Authenticated,
    /// The gate has no key, and the ask came from its own host.
    Local,
    /// The gate has a key, and the ask has no MAC.
    NoMac,
    /// The gate has a key, and the MAC is wrong: another key, or another connection's claim.
    WrongMac,
    /// The gate has no key, and the ask came from elsewhere.
    Remote,
}

impl Standing {
    /// Whether the ask is heard at all.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Authenticated | Self::Local)
    }
}

/// What a claim asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask<'a> {
    /// Who.
    pub member: &'a str,
    /// With which epoch, at least 1.
    pub epoch: u64,
    /// A member and its new floor.
    pub fence: Option<(&'a str, u64)>,
}

/// An ask that is granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Index of the member in the register, in the raised one if there is one.
    pub member: usize,
    /// The register as it must be made durable before anything else is done.
    pub raised: Option<Register>,
}

/// An ask that is not granted. The texts go to the operator of whoever asked: what holds, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// See [`Standing`].
    Standing(Standing),
    /// One writer, and a higher epoch was admitted.
    LowerEpoch {
        /// Asked for.
        epoch: u64,
        /// Admitted.
        register: u64,
        /// For whom.
        holder: String,
    },
    /// One writer, and another member holds this epoch.
    HeldByOther {
        /// The epoch.
        epoch: u64,
        /// Who.
        holder: String,
    },
    /// The member was fenced.
    BelowFloor {
        /// Asked for.
        epoch: u64,
        /// The member's floor.
        floor: u64,
    },
    /// An epoch that no run of restarts reaches: a mistake or an attack that would lock everybody out.
    Jump {
        /// Asked for.
        epoch: u64,
        /// The highest that would be taken.
        max: u64,
    },
    /// The register is full.
    Members,
    /// `kill` names a session of another member.
    KillOfOther,
    /// This session's id was used before.
    SessionKnown,
}

/// Judges an ask. Nothing is changed: a raise is in the answer.
///
/// # Errors
///
/// The [`Refusal`].
pub fn admit(
    register: &Register,
    writers: Writers,
    ask: &Ask<'_>,
    standing: Standing,
) -> Result<Grant, Refusal> {
    if !standing.is_trusted() {
        return Err(Refusal::Standing(standing));
    }
    let highest = register.members.iter().map(|member| member.floor).max().unwrap_or(0).max(register.epoch);
    let max = highest.saturating_add(EPOCH_JUMP_MAX);
    let wanted = ask.fence.map_or(ask.epoch, |(_, floor)| floor.max(ask.epoch));
    if wanted > max {
        return Err(Refusal::Jump { epoch: wanted, max });
    }
    let mut raised = register.clone();
    let member = raised.member(ask.member)?;
    if writers == Writers::One {
        raised.claim(ask.epoch, member)?;
    } else {
        raised.raise_floor(member, ask.epoch)?;
    }
    if let Some((name, floor)) = ask.fence {
        let fenced = raised.member(name)?;
        let known = &mut raised.members[fenced].floor;
        *known = floor.max(*known);
    }
    let floor = raised.members[member].floor;
    if ask.epoch < floor {
        return Err(Refusal::BelowFloor { epoch: ask.epoch, floor });
    }
    let raised = (raised != *register).then_some(raised);
    Ok(Grant { member, raised })
}

impl Register {
    /// The index of a member, which is entered if it is new.
    fn member(&mut self, name: &str) -> Result<usize, Refusal> {
        if let Some(index) = self.members.iter().position(|member| member.name == name) {
            return Ok(index);
        }
        if self.members.len() >= FENCE_MEMBERS_MAX {
            return Err(Refusal::Members);
        }
        self.members.push(Member { name: name.into(), floor: 0 });
        Ok(self.members.len() - 1)
    }

    /// One writer: takes the epoch, if it is free or higher.
    fn claim(&mut self, epoch: u64, member: usize) -> Result<(), Refusal> {
        let holder = || self.holder.map_or_else(|| "nobody".into(), |index| self.members[index].name.clone());
        if epoch < self.epoch {
            return Err(Refusal::LowerEpoch { epoch, register: self.epoch, holder: holder() });
        }
        if epoch == self.epoch && self.holder.is_some_and(|held_by| held_by != member) {
            return Err(Refusal::HeldByOther { epoch, holder: holder() });
        }
        self.epoch = epoch;
        self.holder = Some(member);
        Ok(())
    }

    /// Many writers: a member that comes with a higher epoch has ended its own older sessions.
    fn raise_floor(&mut self, member: usize, epoch: u64) -> Result<(), Refusal> {
        let floor = self.members[member].floor;
        if epoch < floor {
            return Err(Refusal::BelowFloor { epoch, floor });
        }
        self.members[member].floor = epoch;
        self.epoch = self.epoch.max(epoch);
        Ok(())
    }
}

/// Why a session is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Its epoch is below the register's or its member's floor.
    Epoch,
    /// It was named by a kill.
    Killed,
}

/// Whether a session of `epoch` has been overtaken: `register` is the epoch of its volume's register, `floor`
/// that of its member.
pub fn is_overtaken(writers: Writers, epoch: u64, register: u64, floor: u64) -> bool {
    epoch < floor || (writers == Writers::One && epoch < register)
}

/// Whether an ask must wait until an ended session has nothing in execution any more. What was ended by an
/// epoch holds up everybody, also whoever comes after an ask that gave up waiting; a killed session only who
/// wants to hear that it is finished.
pub fn holds_up(why: Ended, is_named_by_ask: bool) -> bool {
    why == Ended::Epoch || is_named_by_ask
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standing(standing) => f.write_str(match standing {
                Standing::NoMac => "this gate takes claims with its key only: set gate_key",
                Standing::WrongMac => {
                    "the claim's MAC is wrong: another key, or the claim of another connection"
                }
                _ => {
                    "this gate has no key and takes claims only over Unix sockets and loopback: give it --key"
                }
            }),
            Self::LowerEpoch { epoch, register, holder } => write!(
                f,
                "epoch {epoch} is over: {holder} holds epoch {register}; a restart claims the next one, \
                 `holdfast gate reset-epoch` is the way out"
            ),
            Self::HeldByOther { epoch, holder } => {
                write!(
                    f,
                    "{holder} holds epoch {epoch}, and the volume has one writer; only a higher epoch takes over"
                )
            }
            Self::BelowFloor { epoch, floor } => {
                write!(f, "this member is fenced: epoch {epoch} is below its floor {floor}")
            }
            Self::Jump { epoch, max } => write!(
                f,
                "epoch {epoch} is too far above what this gate knows (at most {max}); \
                 `holdfast gate reset-epoch` is the way out"
            ),
            Self::Members => write!(
                f,
                "the register knows {FENCE_MEMBERS_MAX} members and takes no more; \
                 `holdfast gate reset-epoch` forgets them"
            ),
            Self::KillOfOther => f.write_str("kill names a session of another member"),
            Self::SessionKnown => f.write_str("a session of this id was here before"),
        }
    }
}
