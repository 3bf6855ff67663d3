// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of `[[device.path]]`.

use super::Fallback::{Required, Text, Unset};
use super::{Key, Kind};

pub(crate) const PATH: &[Key] = &[
    Key::new(
        "name",
        Kind::Label,
        Required,
        "Name of the path in status and commands; unique within its device.",
    ),
    Key::new(
        "uri",
        Kind::Uri,
        Required,
        "Where the path leads, by the NBD URI specification, or a local file or block device. `nbds` and `nbds+unix` \
         are refused until TLS is there.",
    ),
    Key::new(
        "priority",
        Kind::Integer { min: 0, max: 1000 },
        Text("50"),
        "Higher wins: paths of equal priority form a group (but for `access_state` and the device's `groups`), and a group \
         is used only when no better one has a usable path.",
    ),
    Key::new(
        "access_state",
        Kind::Choice(&["optimized", "non-optimized", "standby"]),
        Unset("what the storage says: a gate can, anything else is optimized"),
        "Among paths of equal priority the optimized ones are the best group, then the non-optimized, then those on \
         standby.",
    ),
    Key::new(
        "weight",
        Kind::Integer { min: 1, max: 1000 },
        Text("1"),
        "Share of the I/O relative to the other paths of the group.",
    ),
    Key::new(
        "lanes",
        Kind::Integer { min: 1, max: 64 },
        Text("1"),
        "NBD connections of this path. More than one needs a server that advertises multi-conn.",
    ),
    Key::new(
        "in_flight",
        Kind::Integer { min: 1, max: 65_535 },
        Text("128"),
        "Requests in flight on this path at most, so that one hung path cannot hold every slot.",
    ),
    Key::new(
        "portals",
        Kind::Portals,
        Unset("the address in `uri` alone"),
        "Addresses of the same server to try in order after the one in `uri`, before the path is failed. Only for \
         `nbd://`.",
    ),
    Key::new(
        "bind",
        Kind::IpAddress,
        Unset("the kernel chooses"),
        "Local source address of the connections. Only for `nbd://`.",
    ),
    Key::new(
        "drains",
        Kind::Bool,
        Text("false"),
        "The server finishes its requests before it closes a connection that was ended in order (nbdkit and nbd-server \
         do, qemu-nbd does not): that close then proves a write in doubt finished. Only for a server that is reached directly: a proxy in between closes on its own account.",
    ),
    Key::new(
        "same_cache",
        Kind::Label,
        Unset("a cache of its own, unless the servers prove otherwise"),
        "Paths of a device with the same text lead to one server process and share its volatile cache.",
    ),
    Key::new("read_only", Kind::Bool, Text("false"), "Nothing is written through this path."),
];
