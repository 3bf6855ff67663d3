// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast serve` without a configuration: a device over two paths, in one process.
//!
//! A hidden device holds memory and listens on two Unix sockets; `vol0` has a
//! path to each. Everything a path can suffer can then be tried: the data goes
//! through two real NBD connections.
//!
//! Nothing is recorded: the memory ends with the process, and a record would
//! describe another volume. The identity is declared, because blank volumes
//! cannot prove theirs.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use controlplane::config::{Config, Environment};
use controlplane::services::give_epoch;
use nbd::uri::{NbdUri, Transport, Uri};
use program::{
    CacheLife, Exports, FenceProgram, Listener, NoPath, Program, RegisterPlace, SECOND, SocketAddress,
    Target, Writers,
};

use crate::failure::{Failure, Status};
use crate::template;

const STORAGE: &str = "vol0-storage";
const STORAGE_BYTES: u64 = 1 << 30;

/// Everything the demo runs.
pub(crate) struct Demo {
    pub(crate) config: Config,
    pub(crate) program: Program,
    /// What is printed once it runs.
    pub(crate) text: String,
}

/// Where a demo of this user keeps its sockets, best first.
pub(crate) fn directories() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let own = format!("holdfast-demo-{}", nix::unistd::geteuid());
    runtime.map(|dir| dir.join("holdfast-demo")).into_iter().chain([Path::new("/tmp").join(own)]).collect()
}

/// Prepares the demo in `given` or a private directory.
pub(crate) fn prepare(given: Option<&Path>) -> Result<Demo, Failure> {
    let dir = match given {
        Some(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
        None => private_directory()?,
    };
    let Some(dir) = dir.to_str() else {
        return Err(Failure::new(Status::Usage, "the name of the state directory is not UTF-8"));
    };
    // The longest name of a socket in it.
    let socket_bytes = dir.len() + "/storage-a.sock".len();
    if socket_bytes > controlplane::limits::UNIX_PATH_BYTES_MAX {
        return Err(Failure::new(
            Status::Usage,
            format!("the name {dir} is too long for sockets in it: use --state-dir"),
        ));
    }
    Ok(build(dir, given.is_some()))
}

fn build(dir: &str, named: bool) -> Demo {
    let environment = Environment { state_dir: Some(dir.to_owned()), ..Environment::of_this_machine() };
    let socket = |path: &str| format!("{dir}/storage-{path}.sock");
    let config = template::config("(demo)", &text(dir, &socket("a"), &socket("b")), &environment);
    let mut program = config.program().clone();
    program.generation = 1;
    // The register ends with the memory, so every run may begin with the same epoch.
    give_epoch(&mut program, 1, None);
    let mut storage = template::device(STORAGE, "memory");
    storage.no_path = NoPath::Fail;
    storage.identity = Some(STORAGE.to_owned());
    storage.fence = Some(fence());
    storage.paths[0].target = Target::Memory { size_bytes: STORAGE_BYTES };
    "memory:".clone_into(&mut storage.paths[0].uri);
    program.devices.push(storage);
    for path in ["a", "b"] {
        let exports = Exports::Only(vec![STORAGE.to_owned()]);
        program.listeners.push(Listener { address: SocketAddress::Unix(socket(path)), exports });
    }
    let text = announcement(dir, named);
    Demo { config, program, text }
}

/// The storage is a gate for its two paths, whose sockets only this user can reach.
fn fence() -> FenceProgram {
    FenceProgram {
        register: RegisterPlace::Memory,
        writers: Writers::One,
        allow_unfenced: false,
        cache: CacheLife::Process,
        drain_max: 5 * SECOND,
        idle_limit: 60 * SECOND,
    }
}

fn text(dir: &str, socket_a: &str, socket_b: &str) -> String {
    let quote = controlplane::config::quote;
    let uri = |socket: &str| {
        let transport = Transport::Unix { path: socket.as_bytes().to_vec() };
        quote(&Uri::Nbd(NbdUri { transport, export: STORAGE.to_owned(), tls: None }).to_string())
    };
    format!(
        "[listen]\nnbd = [\"127.0.0.1:10809\", {}]\n\n\
         [[device]]\nname = \"vol0\"\nid = \"demo\"\ncoherent = true\n\n\
         [[device.path]]\nname = \"a\"\nuri = {}\ndrains = true\n\n\
         [[device.path]]\nname = \"b\"\nuri = {}\ndrains = true\n",
        quote(&format!("unix:{dir}/nbd.sock")),
        uri(socket_a),
        uri(socket_b),
    )
}

fn announcement(dir: &str, named: bool) -> String {
    let own = std::env::args().next().unwrap_or_else(|| "holdfast".to_owned());
    let api = if named { format!(" --api unix:{dir}/api.sock") } else { String::new() };
    format!(
        "holdfast {} demo: device vol0 over paths a and b, both to 1 GiB of memory of this process\n\n\
         \x20 NBD  nbd://127.0.0.1:10809/vol0\n\
         \x20      nbd+unix:///vol0?socket={dir}/nbd.sock\n\
         \x20 API  http://127.0.0.1:10880  (changes: {dir}/api.sock)\n\n\
         Try in another terminal:\n\n\
         \x20 nbdinfo nbd://127.0.0.1:10809/vol0\n\
         \x20 {own} path fail vol0 a{api}\n\
         \x20 {own} status{api}\n\n\
         Ctrl-C ends it, and the memory with it.\n",
        env!("CARGO_PKG_VERSION"),
    )
}

/// A directory that nobody else can enter, made if need be.
fn private_directory() -> Result<PathBuf, Failure> {
    let candidates = directories();
    let mut problems = Vec::new();
    for dir in &candidates {
        match make_private(dir) {
            Ok(()) => return Ok(dir.clone()),
            Err(why) => problems.push(format!("{}: {why}", dir.display())),
        }
    }
    let problems = problems.join("; ");
    Err(Failure::new(
        Status::System,
        format!("no place for the demo's sockets ({problems}); name one with --state-dir"),
    ))
}

/// Anyone may make a directory of that name in `/tmp` first, so what is there is looked at.
fn make_private(dir: &Path) -> Result<(), String> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    let found = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err("it is not a directory that only this user can enter".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_demo_hides_its_storage_and_reaches_it_twice() {
        let demo = build("/run/user/0/a b", false);
        let [vol0, storage] = demo.program.devices.as_slice() else { panic!("two devices") };
        assert_eq!((vol0.name.as_str(), storage.name.as_str()), ("vol0", STORAGE));
        assert_eq!(storage.paths[0].target, Target::Memory { size_bytes: STORAGE_BYTES });
        for (path, listener) in vol0.paths.iter().zip(&demo.program.listeners[2..]) {
            assert_eq!(listener.exports, Exports::Only(vec![STORAGE.to_owned()]));
            let Target::Nbd { portals, export, .. } = &path.target else { panic!("{:?}", path.target) };
            let SocketAddress::Unix(socket) = &listener.address else { panic!("{listener:?}") };
            assert_eq!(
                (portals.as_slice(), export.as_str()),
                (&[program::Portal::Unix(socket.clone())][..], STORAGE)
            );
        }
        assert!(demo.config.warnings().is_empty(), "{}", demo.config.warnings());
        assert_eq!(
            demo.text.lines().filter(|line| line.starts_with("  ") && !line.contains("://127")).count(),
            3
        );
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_used() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let private = dir.path().join("new");
        assert_eq!(make_private(&private), Ok(()));
        assert_eq!(make_private(&private), Ok(()), "it may be there from an earlier run");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert!(make_private(&private).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("symlink");
        assert!(make_private(&link).is_err());
    }
}
