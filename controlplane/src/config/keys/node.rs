// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of `[node]` and `[listen]`.

use super::Fallback::{Computed, Text, Unset};
use super::{Key, Kind};
use program::{MILLISECOND, REACTOR_MEMORY_BYTES_MIN, SECOND};

pub(crate) const NODE: &[Key] = &[
    Key::new(
        "name",
        Kind::Label,
        Computed("the host name"),
        "Name of this node in status, events and metrics, and as a member at gates: nodes that use one gate need different names.",
    )
    .restart(),
    Key::new(
        "state_dir",
        Kind::Directory,
        Text("\"/var/lib/holdfast\""),
        "Directory for what must outlive a restart (recorded geometry and identity of each device) and for the \
         control socket `api.sock`; created with mode 0700, one node each. The command line's `--state-dir` wins over it.",
    )
    .restart(),
    Key::new(
        "gate_key",
        Kind::File,
        Unset("no key"),
        "File with the key that gates and their clients share: 64 hexadecimal digits, readable by its owner alone. With it \
         claims at gates carry a MAC, and a gate without the same key is refused; without it gates take claims from their \
         own host only.",
    )
    .restart(),
    Key::new(
        "reactors",
        Kind::IntegerOr { min: 1, max: 256, words: &["auto"] },
        Text("\"auto\""),
        "I/O threads; a device lives on one of them. `\"auto\"` is one for each core, as far as `memory` has 16MiB for each.",
    )
    .restart(),
    Key::new(
        "memory",
        Kind::Size { min: REACTOR_MEMORY_BYTES_MIN, max: 1 << 40 },
        Text("\"512MiB\""),
        "Memory for payload in flight, over all reactors, at least 16MiB for each. When it is full, hosts are read more \
         slowly; nothing fails.",
    ),
    Key::new(
        "profile",
        Kind::Choice(&["safe", "fast"]),
        Text("\"safe\""),
        "Set of heartbeat and lease times between the members of a failover set.",
    )
    .later("there are no failover sets yet"),
];

pub(crate) const LISTEN: &[Key] = &[
    Key::new(
        "nbd",
        Kind::Listeners,
        Text("[\"127.0.0.1:10809\"]"),
        "Where hosts connect; every device is exported on each address. NBD without TLS knows no users: whoever \
         reaches the address can read and write.",
    ),
    Key::new(
        "api",
        Kind::ApiAddress,
        Text("\"127.0.0.1:10880\""),
        "Where status, events and metrics are served, read-only. Changes are taken on the Unix socket \
         `state_dir/api.sock` alone.",
    )
    .restart(),
    Key::new(
        "max_sessions",
        Kind::Integer { min: 1, max: 1_000_000 },
        Text("4096"),
        "Host connections at once, those in their handshake included; further ones are answered and closed.",
    ),
    Key::new(
        "handshake_timeout",
        Kind::Duration { min: 100 * MILLISECOND, max: 300 * SECOND },
        Text("\"10s\""),
        "A handshake with a host or a storage server that takes longer is closed.",
    ),
];
