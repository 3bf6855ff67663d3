// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs that break things need: where their files go, the program that is measured, the storage's content.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::compare::rig::fill;
use crate::machine::Machine;
use crate::peers::{self, PeerError};
use crate::units::parse_bytes;

/// What every such measurement lets one choose.
#[derive(Args, Clone, Debug)]
pub struct PlaceOptions {
    /// Size of an image
    #[arg(long = "size", value_parser = parse_bytes, default_value = "1g", value_name = "BYTES")]
    pub size_bytes: u64,
    /// The holdfast binary [default: HOLDFAST_BIN, or beside this program]
    #[arg(long, value_name = "FILE")]
    pub holdfast: Option<PathBuf>,
    /// Keep the logs of every run in this directory, which must be empty or new
    #[arg(long, value_name = "DIRECTORY")]
    pub keep: Option<PathBuf>,
}

/// Where files are memory.
const MEMORY: &str = "/dev/shm";

/// See the module header. Its directory ends with it, unless it is to be kept.
pub(crate) struct Place {
    dir: PathBuf,
    /// The program that is measured.
    pub(crate) binary: PathBuf,
    /// Where.
    pub(crate) machine: Machine,
    /// Every sector of it stamped.
    pub(crate) image: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Place {
    /// With the image in the temporary directory.
    ///
    /// # Errors
    ///
    /// No directory, no program, or the image cannot be filled.
    pub(crate) fn new(options: &PlaceOptions) -> Result<Self, PeerError> {
        Self::with_image_in(&std::env::temp_dir(), options)
    }

    /// As [`new`](Self::new), with the image in memory: no disk makes good and bad moments.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or there is no such place.
    pub(crate) fn in_memory(options: &PlaceOptions) -> Result<Self, PeerError> {
        Self::with_image_in(Path::new(MEMORY), options)
    }

    fn with_image_in(parent: &Path, options: &PlaceOptions) -> Result<Self, PeerError> {
        let temporary = tempfile::tempdir_in(parent)
            .map_err(|e| PeerError::new(format!("no temporary directory in {}: {e}", parent.display())))?;
        let dir = options.keep.as_deref().unwrap_or(temporary.path()).to_owned();
        std::fs::create_dir_all(&dir).map_err(|e| PeerError::new(format!("{}: {e}", dir.display())))?;
        let binary = peers::binary(options.holdfast.as_deref())?;
        let machine = Machine::here(Some(&binary));
        let image = make_image(temporary.path(), options.size_bytes)?;
        Ok(Self { dir, binary, machine, image, _temporary: temporary })
    }

    /// A second image with the same content, which ends with the place.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub(crate) fn copy_image(&self) -> Result<PathBuf, PeerError> {
        let copy = self.image.with_file_name("copy");
        std::fs::copy(&self.image, &copy).map_err(|e| PeerError::new(format!("{}: {e}", copy.display())))?;
        Ok(copy)
    }

    /// A directory of its own for one run.
    ///
    /// # Errors
    ///
    /// It is there already, from a run before, or cannot be made.
    pub(crate) fn home(&self, name: &str) -> Result<PathBuf, PeerError> {
        let home = self.dir.join(name);
        std::fs::create_dir(&home).map_err(|e| PeerError::new(format!("{}: {e}", home.display())))?;
        Ok(home)
    }
}

/// A file full of stamped sectors: on blank storage Holdfast cannot tell that two paths lead to the same data.
fn make_image(dir: &Path, size_bytes: u64) -> Result<PathBuf, PeerError> {
    let image = dir.join("image");
    let wrong = |e: std::io::Error| PeerError::new(format!("{}: {e}", image.display()));
    let file = std::fs::File::create(&image).map_err(wrong)?;
    file.set_len(size_bytes).map_err(wrong)?;
    let server = peers::nbdkit("fill", dir, &["file".to_owned(), image.display().to_string()])?;
    fill(&server.uri(), size_bytes)?;
    // Else the first FLUSH of the first run writes all of it out, and everybody behind it waits.
    file.sync_all().map_err(wrong)?;
    Ok(image)
}
