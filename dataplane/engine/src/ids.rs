// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names the engine and its driver use for things.

/// A host session of this device; chosen by the driver, never reused while open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// One host request; chosen by the driver, unique until answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestTag(pub u64);

/// A buffer in the driver's pool. A token: whoever holds it releases it exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// One connection of one path; chosen by the engine. `slot` is small and reused,
/// `generation` tells the incarnations of a slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Index into the engine's lane table.
    pub slot: u16,
    /// Incarnation.
    pub generation: u32,
}
