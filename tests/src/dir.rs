// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of one test: sockets, images, configuration and logs.
//!
//! Its name is short because a Unix socket path may have 107 bytes, and carries the
//! process id so that a later run can tell what a killed one left behind. A test that
//! passes leaves nothing; a test that fails keeps the directory and prints the logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Lines of each log that a failing test prints.
const LOG_TAIL_LINES: usize = 60;

/// Removed on drop unless the test panicked.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes an empty directory and removes those of dead test processes.
    pub fn new() -> Self {
        static SEQUENCE: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        sweep(&base);
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("hft-{}-{sequence}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        Self { path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside; nothing is made.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A path inside as text, for arguments and URIs.
    pub fn text(&self, name: &str) -> String {
        self.join(name).to_str().expect("test paths are UTF-8").to_owned()
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }

    /// Makes a sparse file of this size and returns its path as text.
    pub fn image(&self, name: &str, size_bytes: u64) -> String {
        let path = self.join(name);
        let file = fs::File::create(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        file.set_len(size_bytes).expect("a sparse file takes no room");
        self.text(name)
    }

    /// Makes a file whose every 4 KiB block differs from every other and from those of
    /// another `seed`, so that a volume on it can prove its identity.
    pub fn patterned_image(&self, name: &str, size_bytes: u64, seed: u64) -> String {
        let path = self.text(name);
        let mut content = Vec::with_capacity(size_bytes as usize);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while (content.len() as u64) < size_bytes {
            // xorshift64: any sequence without repeats in the image will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_be_bytes());
        }
        content.truncate(size_bytes as usize);
        fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {path}: {e}"));
        path
    }

    fn print_logs(&self) {
        eprintln!("\n--- the test failed; its files are kept in {}", self.path.display());
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|e| e == "log" || e == "toml"));
        logs.sort();
        for path in logs {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(LOG_TAIL_LINES);
            eprintln!("--- {} (last {} of {} lines)", path.display(), lines.len() - first, lines.len());
            for line in &lines[first..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        } else {
            // Best effort: a file that a dying process still writes may keep it alive;
            // the next run sweeps it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes directories whose test process is gone and was killed before it could.
/// Those of failed tests go too, with the next run: only the latest failure is of use.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix("hft-")) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() && is_old(&entry) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Kept for an hour, so that a person can read the logs of a failure that a parallel
/// test would otherwise sweep away.
fn is_old(entry: &fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 3600)
}
