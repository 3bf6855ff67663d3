// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done with decision points on the command line: shown to a shadow, written down, read.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use sim::record::{self, Origin, Points};
use sim::shadow::{Judge, Proposed, Told};

/// See the module header. Does nothing if neither was asked for.
pub(crate) struct Watch {
    judge: Option<(Proposed, Judge)>,
    file: Option<(PathBuf, BufWriter<File>)>,
    /// The first thing that went wrong with the file.
    failed: Option<String>,
}

impl Watch {
    pub(crate) fn new(shadow: Option<Proposed>, record: Option<&Path>) -> Result<Self, String> {
        let create = |path: &Path| {
            let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>((path.to_owned(), BufWriter::new(file)))
        };
        let judge = shadow.map(|proposed| (proposed, Judge::new(proposed)));
        Ok(Self { judge, file: record.map(create).transpose()?, failed: None })
    }

    /// What the devices of a run recorded.
    pub(crate) fn take(&mut self, seed: u64, records: Vec<Points>) {
        for (device, points) in (0..).zip(records) {
            let origin = Origin { seed, device };
            if let Some((_, judge)) = &mut self.judge {
                judge.feed_all(origin, &points);
            }
            if let Some((path, file)) = &mut self.file
                && let Err(error) = record::write(file, origin, points)
            {
                self.failed.get_or_insert_with(|| format!("{}: {error}", path.display()));
            }
        }
    }

    /// The same from a file.
    pub(crate) fn replay(&mut self, path: &Path) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| told(&error))?;
        let Some((_, judge)) = &mut self.judge else { return Ok(()) };
        let read = record::read(BufReader::new(file), |origin, at, point| judge.feed(origin, at, point));
        read.map_err(|error| told(&error))
    }

    /// Tells what the shadow would have done.
    pub(crate) fn end(self) -> Result<(), String> {
        if let Some((path, mut file)) = self.file {
            file.flush().map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if let Some((proposed, judge)) = self.judge {
            println!("{}", Told(proposed, judge.end()));
        }
        self.failed.map_or(Ok(()), Err)
    }
}
