// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a configuration file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Config, Environment, Findings, Source};
use crate::limits::CONFIG_BYTES_MAX;

/// Why a configuration file gave no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read; the text says which and why.
    Unreadable(String),
    /// The file has mistakes.
    Mistakes(Findings),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) => f.write_str(text),
            Self::Mistakes(findings) => findings.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads and checks the file at `path`; touches nothing else.
///
/// # Errors
///
/// See [`LoadError`].
pub fn load(path: &Path, environment: &Environment) -> Result<Config, LoadError> {
    let shown = path.display();
    let unreadable =
        |why: &str| LoadError::Unreadable(format!("cannot read the configuration {shown}: {why}"));
    let bytes = read(path).map_err(|error| unreadable(&error.to_string()))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(unreadable(&format!("it is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(&format!("it is not UTF-8, from byte {} on", at + 1))
    })?;
    Config::parse(Source::new(shown.to_string(), text), environment).map_err(LoadError::Mistakes)
}

/// At most one byte more than is allowed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
