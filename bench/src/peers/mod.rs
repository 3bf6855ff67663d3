// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that are measured: started, watched and ended here, by their ids.

mod error;
mod holdfast;
mod process;
mod servers;

pub use error::PeerError;
pub use holdfast::{Device, Holdfast, PathStatus, binary};
pub use process::{Process, free_port, search_path, version_of};
pub use servers::{
    Listener, file, haproxy, memory, nbdkit, nbdkit_at, nbdkit_relay, of_image, qemu_relay, uri_of,
};
