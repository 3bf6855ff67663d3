// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `status --json` document and events, as an operator's scripts would read them.

use crate::Json;

/// One device of a status document.
#[derive(Clone, Debug)]
pub struct DeviceStatus {
    json: Json,
}

impl DeviceStatus {
    /// A device of a status document that may not be there yet.
    pub fn find(document: &Json, name: &str) -> Option<Self> {
        let devices = document.get("devices").items();
        devices.into_iter().find(|device| device.get("name").text() == name).map(|json| Self { json })
    }

    /// State of the device.
    pub fn state(&self) -> String {
        self.json.get("state").text().to_owned()
    }

    /// Export size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.json.get("size_bytes").number()
    }

    /// A number that may be there.
    pub fn number(&self, key: &str) -> u64 {
        self.json.get(key).number()
    }

    /// One path that may not be there yet.
    pub fn find_path(&self, name: &str) -> Option<PathStatus> {
        self.paths().into_iter().find(|path| path.name == name)
    }

    /// One path by name.
    pub fn path(&self, name: &str) -> PathStatus {
        self.find_path(name).unwrap_or_else(|| panic!("no path {name} in {}", self.json))
    }

    /// All paths.
    pub fn paths(&self) -> Vec<PathStatus> {
        self.json.get("paths").items().iter().map(PathStatus::from).collect()
    }

    /// The document.
    pub fn json(&self) -> &Json {
        &self.json
    }
}

/// One path of a status document.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Its name.
    pub name: String,
    /// Its state: `up`, `down`, ...
    pub state: String,
    /// How it is used: `optimized`, `standby`, ...
    pub access: String,
    /// Why it is in this state.
    pub reason: String,
    /// Requests in flight.
    pub inflight: u64,
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Failures counted against it.
    pub errors: u64,
}

impl PathStatus {
    /// Whether it carries I/O.
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// Reads and writes completed.
    pub fn completed(&self) -> u64 {
        self.reads + self.writes
    }
}

impl From<&Json> for PathStatus {
    fn from(json: &Json) -> Self {
        Self {
            name: json.get("name").text().to_owned(),
            state: json.get("state").text().to_owned(),
            access: json.get("access").text().to_owned(),
            reason: json.get("reason").text().to_owned(),
            inflight: json.get("inflight").number(),
            reads: json.get("reads").number(),
            writes: json.get("writes").number(),
            errors: json.get("errors").number(),
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Rises by one with each event.
    pub number: u64,
    /// Stable name.
    pub name: String,
    /// Path concerned, or empty.
    pub path: String,
    /// The whole of it, for looking further and for failure texts.
    pub json: Json,
}

impl From<&Json> for Event {
    fn from(json: &Json) -> Self {
        Self {
            number: json.get("seq").number(),
            name: json.get("name").text().to_owned(),
            path: json.find("path").map(|path| path.text().to_owned()).unwrap_or_default(),
            json: json.clone(),
        }
    }
}
