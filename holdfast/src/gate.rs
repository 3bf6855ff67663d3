// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast gate`: the storage end.
//!
//! Each export is a device with one path and a fence in front of it, so the
//! gate is the same data plane with another program. Defaults come from the
//! configuration's key table; what differs is said here. A read-only export has
//! nothing to fence, and no register.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use controlplane::config::{Environment, parse_listen, parse_size};
use nbd::uri::Uri;
use program::{
    AccessState, CacheLife, DeviceProgram, Exports, FenceProgram, Listener, NoPath, Program, RegisterPlace,
    SECOND, SocketAddress, Target, Unproven, Writers,
};

use crate::cli::{GateArgs, GateCommand, GateUnproven, GateWriters, ResetEpochArgs};
use crate::failure::{Failure, Status};
use crate::output;
use crate::run::{Plan, run};
use crate::serve::gate_key;
use crate::template;

/// `NAME=FILE[,size=SIZE][,readonly][,access=STATE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportArgument {
    name: String,
    storage: Storage,
    size_bytes: Option<u64>,
    read_only: bool,
    access: Option<AccessState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Storage {
    File(PathBuf),
    Nbd(String),
    Memory,
}

/// Where registers of what is not a file are kept.
const STATE_DIR: &str = "/var/lib/holdfast/gate";

impl FromStr for ExportArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) =
            text.split_once('=').ok_or("it must be NAME=FILE[,size=SIZE][,readonly][,access=STATE]")?;
        if name.is_empty() || name.len() > controlplane::limits::EXPORT_NAME_BYTES_MAX {
            return Err("the export name must have 1 to 4096 bytes".to_owned());
        }
        if name.chars().any(char::is_control) {
            return Err("the export name contains a control character".to_owned());
        }
        // Options are taken from the end, so that a file name may contain commas.
        let (mut file, mut size_bytes, mut read_only, mut access) = (rest, None, false, None);
        while let Some((head, option)) = file.rsplit_once(',') {
            match option.split_once('=') {
                Some(("size", size)) if size_bytes.is_none() => {
                    size_bytes = Some(parse_size(size).map_err(|why| format!("size \"{size}\": {why}"))?);
                }
                Some(("access", word)) if access.is_none() => access = Some(access_state(word)?),
                None if option == "readonly" && !read_only => read_only = true,
                _ => break,
            }
            file = head;
        }
        let storage = match file {
            "" => return Err("the file is missing".to_owned()),
            "memory:" if size_bytes.is_none() => {
                return Err("memory: needs a size, e.g. memory:,size=1GiB".to_owned());
            }
            "memory:" => Storage::Memory,
            uri if uri.starts_with("nbd://") || uri.starts_with("nbd+unix://") => {
                if size_bytes.is_some() {
                    return Err("an NBD server tells its size itself".to_owned());
                }
                Storage::Nbd(uri.to_owned())
            }
            file => Storage::File(file.into()),
        };
        if size_bytes == Some(0) {
            return Err("the size must not be 0".to_owned());
        }
        Ok(Self { name: name.to_owned(), storage, size_bytes, read_only, access })
    }
}

fn access_state(word: &str) -> Result<AccessState, String> {
    AccessState::from_word(word).ok_or_else(|| {
        format!("access \"{}\" is none of optimized, non-optimized, standby", word.escape_debug())
    })
}

/// Runs a gate until it is told to stop.
pub(crate) fn gate(arguments: &GateArgs) -> Result<(), Failure> {
    if let Some(GateCommand::ResetEpoch(arguments)) = &arguments.command {
        return reset_epoch(arguments);
    }
    let mut program = program(arguments)?;
    program.node.gate_key = gate_key(arguments.key.as_deref())?;
    run(Plan { program, control: None, drain: arguments.drain, announce: None })
}

fn program(arguments: &GateArgs) -> Result<Program, Failure> {
    let usage = |text: String| Failure::new(Status::Usage, text);
    let mut program = template::empty_program(&Environment::of_this_machine());
    program.generation = 1;
    if let Some(reactors) = arguments.reactors {
        program.node.reactors = usize::from(reactors);
    }
    if !arguments.listen.is_empty() {
        program.listeners = listeners(&arguments.listen).map_err(usage)?;
    }
    for export in &arguments.export {
        if program.devices.iter().any(|device| device.name == export.name) {
            return Err(usage(format!("--export \"{}\" is given twice", export.name.escape_debug())));
        }
        if export.name.contains(";e=") {
            return Err(usage("an export name with ;e= in it would be taken for a claim".to_owned()));
        }
        program.devices.push(device(export, arguments)?);
    }
    Ok(program)
}

fn listeners(texts: &[String]) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for text in texts {
        let address =
            parse_listen(&absolute_socket(text)).map_err(|why| format!("--listen {text}: {why}"))?;
        if listeners.iter().any(|other| other.address == address) {
            return Err(format!("--listen {text} is given twice"));
        }
        listeners.push(Listener { address, exports: Exports::Public });
    }
    Ok(listeners)
}

/// On a command line, unlike in a file, a relative socket path means something.
fn absolute_socket(text: &str) -> String {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => format!("unix:{}", absolute(Path::new(path)).display()),
        _ => text.to_owned(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn device(export: &ExportArgument, arguments: &GateArgs) -> Result<DeviceProgram, Failure> {
    let mut device = match &export.storage {
        Storage::Nbd(uri) => template::device_at(&export.name, "storage", uri)
            .map_err(|why| Failure::new(Status::Usage, format!("--export {}: {why}", export.name)))?,
        Storage::File(_) | Storage::Memory => local_device(export)?,
    };
    // Of concern where another process executes the requests: local ones end with this one.
    device.quiesce = arguments.quiesce * SECOND;
    device.unproven = match arguments.unproven {
        GateUnproven::Assume => Unproven::Assume,
        GateUnproven::Hold => Unproven::Hold,
    };
    // One path proves nothing by sampling.
    device.identity = Some(export.name.clone());
    device.paths[0].read_only = export.read_only;
    device.told_access = export.access;
    if !export.read_only {
        device.fence = Some(fence(export, arguments)?);
    }
    Ok(device)
}

fn local_device(export: &ExportArgument) -> Result<DeviceProgram, Failure> {
    let mut device = template::device(&export.name, "storage");
    // There is no other path to wait for: an upstream proxy has one, and should be told at once.
    device.no_path = NoPath::Fail;
    let path = &mut device.paths[0];
    // The kernel's own storage: what was written is written when the call returns.
    path.drains = true;
    match (&export.storage, export.size_bytes) {
        (Storage::File(file), create_bytes) => {
            let file = existing(file, create_bytes)?;
            path.uri = Uri::File { path: file.clone().into_bytes() }.to_string();
            path.target = Target::File { path: file, create_bytes };
        }
        (_, size_bytes) => {
            "memory:".clone_into(&mut path.uri);
            // Invariant: parsing an export insists on a size for memory.
            path.target = Target::Memory { size_bytes: size_bytes.unwrap_or_default() };
        }
    }
    Ok(device)
}

/// The fence of an export that can be written.
fn fence(export: &ExportArgument, arguments: &GateArgs) -> Result<FenceProgram, Failure> {
    let place = match &export.storage {
        Storage::Memory => RegisterPlace::Memory,
        Storage::File(_) => RegisterPlace::Shared(register(export, arguments.state_dir.as_deref())?),
        Storage::Nbd(_) => RegisterPlace::Exclusive(register(export, arguments.state_dir.as_deref())?),
    };
    Ok(FenceProgram {
        cache: if matches!(place, RegisterPlace::Shared(_)) { CacheLife::Boot } else { CacheLife::Process },
        register: place,
        writers: match arguments.writers {
            GateWriters::One => Writers::One,
            GateWriters::Many => Writers::Many,
        },
        allow_unfenced: arguments.allow_unfenced,
        drain_max: arguments.drain_max * SECOND,
        idle_limit: arguments.idle_limit * SECOND,
    })
}

/// The register's file: the same for every gate of the volume, however its file is spelled.
fn register(export: &ExportArgument, state_dir: Option<&Path>) -> Result<String, Failure> {
    let unusable = |why: String| Failure::new(Status::System, format!("cannot gate {}: {why}", export.name));
    let (volume, is_plain_file) = match &export.storage {
        Storage::Nbd(uri) => (uri.clone(), false),
        Storage::File(file) => {
            let path = canonical(file);
            let plain = std::fs::metadata(&path).map_or(true, |found| found.is_file());
            (
                path.to_str().ok_or_else(|| unusable("its file name is not UTF-8".to_owned()))?.to_owned(),
                plain,
            )
        }
        Storage::Memory => return Err(unusable("memory has no register to reset".to_owned())),
    };
    if is_plain_file && state_dir.is_none() {
        return Ok(format!("{volume}.holdfast-gate"));
    }
    let dir = absolute(state_dir.unwrap_or(Path::new(STATE_DIR)));
    std::fs::create_dir_all(&dir).map_err(|error| {
        unusable(format!(
            "the directory {} cannot be made: {error}; choose one with --state-dir",
            dir.display()
        ))
    })?;
    let dir = dir.to_str().ok_or_else(|| unusable("its state directory is not UTF-8".to_owned()))?;
    Ok(format!("{dir}/{}.holdfast-gate", volume.replace('%', "%25").replace('/', "%2f")))
}

/// Without symbolic links; a file that is yet to be made has at least its directory resolved.
fn canonical(file: &Path) -> PathBuf {
    let file = absolute(file);
    let parent = || Some(file.parent()?.canonicalize().ok()?.join(file.file_name()?));
    file.canonicalize().ok().or_else(parent).unwrap_or_else(|| file.clone())
}

fn reset_epoch(arguments: &ResetEpochArgs) -> Result<(), Failure> {
    let register = register(&arguments.export, arguments.state_dir.as_deref())?;
    let before = dataplane::reset_epoch(Path::new(&register), arguments.epoch, arguments.force)
        .map_err(|error| Failure::new(Status::Refused, format!("cannot reset {register}: {error}")))?;
    output::print(&format!("{register}: epoch {before} is now {}, held by nobody\n", arguments.epoch));
    Ok(())
}

/// The absolute path of a file that is there or will be created.
fn existing(file: &Path, create_bytes: Option<u64>) -> Result<String, Failure> {
    let path = absolute(file);
    let shown = path.display();
    let unavailable =
        |why: String| Failure::new(Status::Unavailable, format!("cannot export {shown}: {why}"));
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Err(unavailable("it is a directory".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create_bytes.is_some() => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(unavailable("it does not exist; add ,size=SIZE to create it".to_owned()));
        }
        Err(error) => return Err(unavailable(error.to_string())),
    }
    path.to_str().map(str::to_owned).ok_or_else(|| unavailable("its name is not UTF-8".to_owned()))
}

/// For the line that says where a gate listens.
pub(crate) fn shown_address(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Tcp(address) => address.to_string(),
        SocketAddress::Unix(path) => format!("unix:{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ExportArgument, String> {
        text.parse()
    }

    #[test]
    fn exports_are_parsed_from_the_end() {
        let file = |name: &str, file: &str, size_bytes, read_only| {
            Ok(ExportArgument {
                name: name.to_owned(),
                storage: Storage::File(file.into()),
                size_bytes,
                read_only,
                access: None,
            })
        };
        assert_eq!(parse("vol0=/dev/sdb"), file("vol0", "/dev/sdb", None, false));
        assert_eq!(parse("vol0=/a=b,c.img"), file("vol0", "/a=b,c.img", None, false));
        assert_eq!(parse("vol0=x.img,size=10GiB,readonly"), file("vol0", "x.img", Some(10 << 30), true));
        assert_eq!(parse("vol0=x,readonly,size=1"), file("vol0", "x", Some(1), true));
        let standby = parse("vol0=x,access=standby,readonly").expect("any order");
        assert_eq!((standby.access, standby.read_only), (Some(AccessState::Standby), true));
        assert!(
            parse("vol0=x,access=best").is_err_and(|why| why.contains("none of optimized, non-optimized"))
        );
        assert_eq!(parse("m=memory:,size=1GiB").map(|export| export.storage), Ok(Storage::Memory));
        for wrong in
            ["vol0", "=x", "vol0=", "m=memory:", "m=memory:,size=1MB", "v=x,size=0", "v=,readonly", "a\nb=x"]
        {
            assert!(parse(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_gate_is_a_program_with_local_paths() {
        let arguments = |export: &[&str], listen: &[&str]| GateArgs {
            command: None,
            export: export.iter().map(|text| text.parse().expect("an export")).collect(),
            key: None,
            allow_unfenced: false,
            writers: GateWriters::One,
            state_dir: None,
            drain_max: 5,
            quiesce: 60,
            unproven: GateUnproven::Hold,
            idle_limit: 60,
            listen: listen.iter().map(|text| (*text).to_owned()).collect(),
            reactors: Some(2),
            drain: crate::cli::DrainArgs { drain: 10 },
        };
        let program =
            program(&arguments(&["a=memory:,size=1MiB", "b=/nowhere/x,size=1MiB,access=non-optimized"], &[]))
                .expect("a program");
        let told: Vec<_> = program.devices.iter().map(|device| device.told_access).collect();
        assert_eq!(told, [None, Some(AccessState::NonOptimized)]);
        assert_eq!(program.node.reactors, 2);
        assert_eq!(shown_address(&program.listeners[0].address), "127.0.0.1:10809");
        assert_eq!(program.devices[0].paths[0].target, Target::Memory { size_bytes: 1 << 20 });
        let file = Target::File { path: "/nowhere/x".to_owned(), create_bytes: Some(1 << 20) };
        assert_eq!(program.devices[1].paths[0].target, file);
        assert_eq!(program.devices[1].paths[0].uri, "file:///nowhere/x");
        assert_eq!((program.devices[1].quiesce, program.devices[1].unproven), (60 * SECOND, Unproven::Hold));

        let failure = super::program(&arguments(&["a=/nowhere/x"], &[])).expect_err("does not exist");
        assert_eq!(failure.status(), Status::Unavailable);
        assert!(failure.to_string().contains("add ,size=SIZE to create it"), "{failure}");
        let twice =
            super::program(&arguments(&["a=memory:,size=1", "a=memory:,size=1"], &[])).expect_err("twice");
        assert_eq!(twice.status(), Status::Usage);
        let listen =
            super::program(&arguments(&["a=memory:,size=1"], &["localhost:1"])).expect_err("no address");
        assert!(listen.to_string().contains("not a numeric address"), "{listen}");
        let socket = super::program(&arguments(&["a=memory:,size=1"], &["unix:s"])).expect("a program");
        assert!(matches!(&socket.listeners[0].address, SocketAddress::Unix(path) if path.starts_with('/')));
    }
}
