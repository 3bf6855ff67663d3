// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every bound of the control plane, in one place, with its unit in its name.

use std::time::Duration;

/// A configuration file larger than this is refused before it is read.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Devices in one configuration.
pub const DEVICES_MAX: usize = 4096;
/// Paths of one device.
pub const PATHS_PER_DEVICE_MAX: usize = 64;
/// Portals of one path.
pub const PORTALS_PER_PATH_MAX: usize = 16;
/// Addresses in `listen.nbd`.
pub const LISTENERS_MAX: usize = 64;
/// Bytes of an export name (NBD protocol document, "string").
pub const EXPORT_NAME_BYTES_MAX: usize = 4096;
/// Bytes of a path name, a node name, an identity and other labels.
pub const LABEL_BYTES_MAX: usize = 255;
/// Bytes of a Unix socket path that the kernel takes (`sun_path` less its end).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Mistakes shown in one go.
pub const MISTAKES_SHOWN_MAX: usize = 100;
/// Characters of a source line shown with a mistake.
pub const EXCERPT_CHARS_MAX: usize = 100;

/// Events kept in memory; older ones are dropped and counted.
pub const EVENTS_KEPT_MAX: usize = 8192;
/// Reports waiting for the control plane; beyond it the oldest are dropped and counted.
pub const REPORTS_WAITING_MAX: usize = 8192;
/// Events in one answer.
pub const EVENTS_PER_ANSWER_MAX: usize = 1000;
/// Events that an event stream holds ready for a reader; more are read when it has taken these.
pub const EVENTS_PER_STREAM_MAX: usize = 100;
/// An event stream without events says this often that it stands.
pub const EVENT_STREAM_BEAT: Duration = Duration::from_secs(5);
/// A caller may wait this long for an event.
pub const EVENT_WAIT_MAX: Duration = Duration::from_secs(30);
/// The data plane is given this long for a snapshot.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(250);
/// A request waits this long for a fresh snapshot, then gets the last one.
pub const SNAPSHOT_WAIT_MAX: Duration = Duration::from_millis(500);

/// `/healthz` fails when the data plane has not answered for this long.
pub const HEALTHY_ANSWER_AGE_MAX: Duration = Duration::from_secs(5);

/// API connections at once, on each listener.
pub const API_CONNECTIONS_MAX: usize = 128;
/// An API connection that has not sent its (next) request for this long is closed.
pub const API_REQUEST_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An API connection that neither sends nor takes anything for this long is closed.
pub const API_IDLE_MAX: Duration = Duration::from_mins(1);
/// Bytes of a state record that are read at most.
pub const STATE_RECORD_BYTES_MAX: u64 = 1 << 20;
/// A record that could not be written is tried again after this long.
pub const RECORD_RETRY: Duration = Duration::from_secs(10);

// A long poll must not look idle.
const _: () = assert!(API_IDLE_MAX.as_secs() >= 2 * EVENT_WAIT_MAX.as_secs());
// Nor must an event stream: after a write a connection is given this long.
const _: () = assert!(API_REQUEST_MAX.as_secs() >= 2 * EVENT_STREAM_BEAT.as_secs());
// A selector keeps its candidates in one word.
const _: () = assert!(PATHS_PER_DEVICE_MAX <= policies::limits::SELECTOR_CANDIDATES_MAX);
const _: () = assert!(SNAPSHOT_WAIT_MAX.as_millis() > SNAPSHOT_TIMEOUT.as_millis());
