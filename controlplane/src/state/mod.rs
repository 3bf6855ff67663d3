// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state directory: what must outlive a restart.
//!
//! ```text
//! state_dir/            0700
//!   lock                held while a node uses the directory
//!   api.sock            control socket
//!   epoch               epoch of the last run at gates
//!   devices/NAME.json   recorded geometry and samples of a device
//!   devices/NAME.running  the device is served, over the paths it names, or was when we crashed
//!   devices/NAME.lost   acknowledged writes were lost, and why, until an operator takes note
//!   devices/NAME.json.set-aside-N  records that could not be used, kept for a look
//! ```
//!
//! A record is written to a temporary file, synced, renamed over the old one,
//! and the directory synced: after a crash there is the old record or the new
//! one. A record that cannot be used is set aside and treated as absent; the
//! device then waits for a path to tell its geometry, which is safe. A record
//! believed wrongly would not be.

mod crc32c;
mod epoch;
mod file_name;
mod lock;
mod record;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use program::Recorded;

use crate::limits::STATE_RECORD_BYTES_MAX;
use crate::log;

pub(crate) use crc32c::checksum;
use lock::Lock;
pub use lock::StateError;

/// What the process before this one may have left in doubt of a device (rule W10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Something, over the paths there are.
    OnThese,
    /// Something, perhaps over paths that there are no more.
    Elsewhere,
}

/// The marker of another device that is, or was, served over one of the same paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherMarker {
    file: PathBuf,
    /// Empty: it cannot be read.
    uris: BTreeSet<String>,
}

/// An open state directory; nobody else has it while this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    epoch: u64,
    _lock: Lock,
}

impl StateDir {
    /// Creates the directory if need be (0700) and locks it.
    ///
    /// # Errors
    ///
    /// [`StateError`], with advice, if it cannot be created, written or locked.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let devices = path.join("devices");
        for dir in [path, &devices] {
            create_dir(dir).map_err(|error| StateError::unusable(dir, "create", &error))?;
        }
        let lock = Lock::take(path)?;
        warn_of_strangers(path);
        remove_temporary(&devices);
        Ok(Self { path: path.to_owned(), epoch: 0, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket belongs.
    pub fn socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// Takes the next epoch for this run; on disk when this returns, so no later run takes it again.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be written.
    pub fn take_epoch(&mut self) -> Result<u64, StateError> {
        let file = self.path.join("epoch");
        let unusable = |error: io::Error| StateError::unusable(&self.path, "record an epoch in", &error);
        let last = match read_bounded(&file) {
            Ok(text) => epoch::decode(&String::from_utf8_lossy(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
            Err(error) => return Err(unusable(error)),
        };
        if last.is_none() {
            let shown = file.display().to_string();
            log::warning(
                "the recorded epoch is damaged and starts at 1 again; gates may refuse it",
                &[("file", &*shown)],
            );
        }
        let next = last.unwrap_or(0).saturating_add(1);
        replace(&file, epoch::encode(next).as_bytes(), &self.path).map_err(unusable)?;
        self.epoch = next;
        Ok(next)
    }

    /// The epoch of this run; 0 before [`StateDir::take_epoch`].
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is recorded of `device`; a record that cannot be used is set aside.
    pub fn load(&self, device: &str) -> Option<Recorded> {
        let file = self.record_file(device);
        let text = match read_bounded(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let fields =
                    [("device", device), ("file", &*file.to_string_lossy()), ("error", &error.to_string())];
                log::warning("a state record cannot be read and is ignored", &fields);
                return None;
            }
        };
        match record::decode(device, &String::from_utf8_lossy(&text)) {
            Ok(recorded) => Some(recorded),
            Err(why) => {
                Self::set_aside(device, &file, &why.to_string());
                None
            }
        }
    }

    /// Records `recorded` of `device`; on disk when this returns.
    ///
    /// # Errors
    ///
    /// The system's, if it could not be written; an older record is then still there.
    pub fn store(&self, device: &str, recorded: &Recorded) -> io::Result<()> {
        let text = record::encode(device, recorded).map_err(io::Error::other)?;
        let file = self.record_file(device);
        replace(&file, text.as_bytes(), &self.path.join("devices"))
    }

    /// Notes that a process of ours serves `device` over paths to `uris` from now on, beside those that are noted;
    /// on disk when this returns. Tells what an earlier one left that never said that nothing is in doubt (rule W10).
    ///
    /// # Errors
    ///
    /// The system's, if it could not be noted: a crash would then not be known to the next process.
    pub fn mark_running(&self, device: &str, uris: &[&str]) -> io::Result<Left> {
        let marker = self.marker_file(device);
        let before = match read_bounded(&marker) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let had: BTreeSet<&str> = before.iter().flat_map(|text| text.lines()).collect();
        let has: BTreeSet<&str> = had.iter().chain(uris).copied().collect();
        if before.is_none() || has != had {
            let lines = has.into_iter().collect::<Vec<_>>().join("\n");
            replace(&marker, lines.as_bytes(), &self.path.join("devices"))?;
        }
        Ok(match before {
            None => Left::Nothing,
            // A marker without paths is of an earlier version.
            Some(_) if !had.is_empty() && had.iter().all(|uri| uris.contains(uri)) => Left::OnThese,
            Some(_) => Left::Elsewhere,
        })
    }

    /// Markers of other devices that name one of these `uris`: the volume had another name. One that cannot be read may.
    pub fn others_over(&self, device: &str, uris: &[&str]) -> Vec<OtherMarker> {
        let own = self.marker_file(device);
        let Ok(entries) = fs::read_dir(self.path.join("devices")) else { return Vec::new() };
        let files = entries.flatten().map(|entry| entry.path());
        let markers = files.filter(|file| file.extension().is_some_and(|it| it == "running") && *file != own);
        let read = |file: PathBuf| {
            let text = read_bounded(&file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let named: BTreeSet<String> =
                text.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
            OtherMarker { file, uris: named }
        };
        let ours = |marker: &OtherMarker| {
            marker.uris.is_empty() || uris.iter().any(|uri| marker.uris.contains(*uri))
        };
        markers.map(read).filter(ours).collect()
    }

    /// Like [`StateDir::mark_running`], for a device whose paths `others` were served over under another name: what they left
    /// is this one's. The markers of those that are not among `served` are gone when this returns.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn take_over(
        &self,
        device: &str,
        uris: &[&str],
        others: &[OtherMarker],
        served: &[&str],
    ) -> io::Result<Left> {
        let theirs = || others.iter().flat_map(|other| &other.uris).map(String::as_str);
        let all: Vec<&str> = uris.iter().copied().chain(theirs()).collect();
        let own = self.mark_running(device, &all)?;
        let kept: Vec<PathBuf> = served.iter().map(|name| self.marker_file(name)).collect();
        for other in others.iter().filter(|other| !kept.contains(&other.file)) {
            remove(&other.file, &self.path.join("devices"))?;
        }
        let elsewhere =
            others.iter().any(|other| other.uris.is_empty()) || theirs().any(|uri| !uris.contains(&uri));
        Ok(match own {
            _ if elsewhere => Left::Elsewhere,
            Left::Nothing if !others.is_empty() => Left::OnThese,
            own => own,
        })
    }

    /// The device has finished and nothing it sent is in doubt; on disk when this returns.
    ///
    /// # Errors
    ///
    /// The system's; the next start then waits although it need not.
    pub fn mark_clean(&self, device: &str) -> io::Result<()> {
        remove(&self.marker_file(device), &self.path.join("devices"))
    }

    /// Notes that acknowledged writes of `device` are lost, and why; `None`: an operator has taken note (rule F9). On disk
    /// when this returns.
    ///
    /// # Errors
    ///
    /// The system's, if it could not be noted.
    pub fn note_loss(&self, device: &str, why: Option<&str>) -> io::Result<()> {
        let directory = self.path.join("devices");
        match why {
            Some(why) => replace(&self.loss_file(device), why.as_bytes(), &directory),
            None => remove(&self.loss_file(device), &directory),
        }
    }

    /// Why acknowledged writes of `device` are lost, if that was noted.
    pub fn loss(&self, device: &str) -> Option<String> {
        match read_bounded(&self.loss_file(device)) {
            Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Something is noted there.
            Err(error) => {
                Some(format!("a loss was recorded by an earlier run; the record cannot be read: {error}"))
            }
        }
    }

    fn loss_file(&self, device: &str) -> PathBuf {
        self.record_file(device).with_extension("lost")
    }

    fn marker_file(&self, device: &str) -> PathBuf {
        self.record_file(device).with_extension("running")
    }

    fn record_file(&self, device: &str) -> PathBuf {
        self.path.join("devices").join(file_name::of_device(device))
    }

    fn set_aside(device: &str, file: &Path, why: &str) {
        let numbered = |n: u32| PathBuf::from(format!("{}.set-aside-{n}", file.display()));
        // Few ever exist; the last number is used again rather than filling the disk.
        let kept = (1..10).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| numbered(10));
        let moved = fs::rename(file, &kept);
        let kept = kept.display().to_string();
        let fate = if moved.is_ok() { kept.as_str() } else { "it could not be moved" };
        log::warning(
            "a state record cannot be used; the device's geometry will be asked of its paths again",
            &[("device", device), ("reason", why), ("kept_as", fate)],
        );
    }
}

/// Writes `file`, which is in `directory`, as a whole: on disk when this returns.
fn replace(file: &Path, bytes: &[u8], directory: &Path) -> io::Result<()> {
    let temporary = file.with_added_extension("tmp");
    let mut out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    // Else the rename may be lost with the power.
    File::open(directory)?.sync_all()
}

/// Removes `file`, which is in `directory`, if it is there: gone from the disk when this returns.
fn remove(file: &Path, directory: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Ok(()) => File::open(directory)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The socket's rights guard it, but a directory others can write lets them replace it.
fn warn_of_strangers(path: &Path) {
    if fs::metadata(path).is_ok_and(|found| found.mode() & 0o022 != 0) {
        log::warning(
            "the state directory can be written by other users; chmod 700 it",
            &[("state_dir", &*path.to_string_lossy())],
        );
    }
}

/// What a crash in the middle of `store` left behind.
fn remove_temporary(devices: &Path) {
    let Ok(entries) = fs::read_dir(devices) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".json.tmp", ".running.tmp", ".lost.tmp"].iter().any(|end| name.ends_with(end)) {
            // If it stays, the next one overwrites it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(STATE_RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
