// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of `[[device]]`; all but `name` may stand in `[defaults]` too.

use super::Fallback::{Required, Text, Unset};
use super::{Key, Kind};
use program::{MILLISECOND, Nanos, SECOND};

const HOUR: Nanos = 3600 * SECOND;
const DAY: Nanos = 24 * HOUR;

pub(crate) const DEVICE: &[Key] = &[
    Key::new("name", Kind::ExportName, Required, "NBD export name; unique."),
    Key::new(
        "policy",
        Kind::Choice(&["active-active", "active-passive"]),
        Text("\"active-active\""),
        "Whether every usable path of the best group carries I/O at once, or exactly one. Active-active is for paths \
         that show one cache (see `coherent`).",
    ),
    Key::new(
        "groups",
        Kind::Choice(&["priority", "latency"]),
        Text("\"priority\""),
        "Whether paths of equal `priority` and access state are one group, or one for each step of distance: the storage is \
         measured through each path at rest, and what takes more than 4 times as long as the nearest is a group behind it.",
    ),
    Key::new(
        "selector",
        Kind::Choice(&["latency", "round-robin", "queue-depth", "service-time"]),
        Text("\"latency\""),
        "How a path is chosen among the usable ones of the best group.",
    ),
    Key::new(
        "size",
        Kind::Size { min: 1, max: 1 << 62 },
        Unset("the paths, or what an earlier run recorded, tell it"),
        "Size to export while no path tells it. A path that is smaller is refused.",
    ),
    Key::new(
        "writers",
        Kind::Choice(&["one", "many"]),
        Text("\"one\""),
        "`\"many\"` if other members or hosts write the same storage beside this node: then a write in doubt is not \
         answered before its outcome is certain.",
    ),
    Key::new(
        "coherent",
        Kind::Bool,
        Unset("assumed, and shown as assumed"),
        "Whether all paths show one cache. `false` makes the device active-passive with one lane and FUA on every \
         write, whatever `policy` says.",
    ),
    Key::new(
        "exclusive",
        Kind::Choice(&["issue", "proven"]),
        Text("\"issue\""),
        "Active-passive: the new path starts when nothing more is issued on the old one and, behind gates, its sessions \
         are finished (half a second at most), or only when the old session is proven finished, however long that takes.",
    ),
    Key::new(
        "unproven",
        Kind::Choice(&["assume", "hold"]),
        Text("\"assume\""),
        "What a write does that overlaps a write in doubt which nothing proves finished: it goes on after `quiesce`, \
         or waits and fails with EIO at the hold limit.",
    ),
    Key::new(
        "quiesce",
        Kind::Duration { min: 100 * MILLISECOND, max: HOUR },
        Text("\"5s\""),
        "How long a write in doubt may still reach the storage behind plain NBD; an assumption about the server, shown \
         as one. Must be longer than `deadline.write`.",
    ),
    Key::new(
        "host_sessions",
        Kind::Choice(&["shared", "exclusive"]),
        Text("\"shared\""),
        "Whether a host may have several sessions. `\"exclusive\"`: a new session from an address (Unix sockets count as \
         one) ends its older ones before it is served, so that nothing a host sent on a connection it gave up can be \
         carried out after what it sends on the next; such a device does not offer multi-conn.",
    ),
    Key::new(
        "retention",
        Kind::Size { min: 0, max: 64 << 30 },
        Text("\"64MiB\""),
        "Memory for acknowledged writes that are not flushed yet, to be written again if a storage server loses its cache. At \
         half of it Holdfast flushes by itself, at all of it writes carry FUA. The devices of a node share a quarter of \
         `memory` for this. `0B`: nothing is kept, and a server that loses its cache loses what was not flushed.",
    ),
    Key::new(
        "id",
        Kind::Label,
        Unset("content samples prove that paths lead to one volume"),
        "Declares that all paths lead to the volume of this name; their content is then not compared. Needless behind \
         gates of one host: they name their volume.",
    ),
    Key::new(
        "no_path.mode",
        Kind::Choice(&["hold", "fail", "forever"]),
        Text("\"hold\""),
        "What requests do while no path is usable, and writes while none that may be written is: wait up to `no_path.hold` and fail, fail at once, wait for ever.",
    ),
    Key::new(
        "no_path.hold",
        Kind::Duration { min: SECOND, max: 7 * DAY },
        Text("\"600s\""),
        "How long requests wait for a path with `no_path.mode = \"hold\"`. Must be longer than `deadline.write`, and \
         the host's own timer longer still.",
    ),
    Key::new(
        "hedge.mode",
        Kind::Choice(&["on", "off"]),
        Text("\"on\""),
        "Whether a read that is late is also sent to a second path; the first good answer counts. Active-passive devices \
         never do it.",
    ),
    Key::new(
        "hedge.budget",
        Kind::Fraction { max: 0.5 },
        Text("0.03"),
        "Share of all reads that may be sent twice; what is not used is saved up, at most as many as one path may have in \
         flight. 0 is `off`.",
    ),
    Key::new(
        "failback",
        Kind::DurationOr { min: 0, max: DAY, words: &["immediate", "manual"] },
        Text("\"60s\""),
        "How long a recovered path of a better group must be stable before I/O returns to it; `\"manual\"` waits for \
         `holdfast path reinstate`.",
    ),
    Key::new(
        "deadline.read",
        Kind::Duration { min: 10 * MILLISECOND, max: 10 * 60 * SECOND },
        Text("\"1s\""),
        "Age at which a read is moved to another path; the bytes ahead of it on its connection are allowed for.",
    ),
    Key::new(
        "deadline.write",
        Kind::Duration { min: 10 * MILLISECOND, max: 10 * 60 * SECOND },
        Text("\"2s\""),
        "The same for writes. Must be shorter than `quiesce` and `no_path.hold`.",
    ),
    Key::new(
        "canary.interval",
        Kind::Duration { min: 10 * MILLISECOND, max: HOUR },
        Text("\"1s\""),
        "Pause between probe reads on a usable path of a busy device; any reply counts as one.",
    ),
    Key::new(
        "canary.idle",
        Kind::Duration { min: 10 * MILLISECOND, max: HOUR },
        Text("\"10s\""),
        "The same while the device is idle.",
    ),
    Key::new(
        "canary.deadline",
        Kind::Duration { min: 10 * MILLISECOND, max: 10 * 60 * SECOND },
        Text("\"1s\""),
        "A probe read without a reply for this long counts as failed. Must not be longer than `deadline.read`.",
    ),
];
