// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pure state machine of one device.
//!
//! Events and the time go in by [`Engine::handle`]; actions come out by
//! [`Engine::next_action`]. No socket, clock, randomness, thread or lock: the
//! same code runs in production, in the simulator and under fuzzing. The contract
//! with the driver is in `ARCHITECTURE.md`; the map of the parts is in the header
//! of `engine.rs`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod accept;
mod action;
mod active;
mod answer;
mod behind;
mod budget;
mod canary;
mod candidates;
mod check;
mod compact;
mod complete;
mod covered;
mod decide;
mod dispatch;
mod doubt;
mod ending;
mod engine;
mod event;
mod fence;
mod flush;
mod geometry;
mod ghost;
mod health;
mod hedge;
mod hold;
mod ids;
mod lane;
mod lanes;
mod loss;
mod lost;
mod opinion;
mod pace;
mod partial;
mod path;
mod ranges;
mod rank;
mod reconnect;
mod record;
mod recover;
mod reload;
mod replay;
mod request;
mod retain;
mod rules;
mod samples;
mod slab;
mod status;
mod steering;
mod unanswered;
mod unshared;
mod verdict;
mod verify;
mod zombie;

pub use action::{Action, Close, SendData};
pub use engine::Engine;
pub use event::{Digest, Event, GateOffer, HostRequest, LaneFault, Offer, TcpSample};
pub use ids::{BufferId, LaneId, RequestTag, SessionId};
pub use record::DecisionPoint;
pub use rules::Rules;
