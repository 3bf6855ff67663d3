// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line. `docs/cli.md` holds the help texts; a test compares them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Endpoint;
use crate::gate::ExportArgument;

/// Keeps hosts attached to their storage: a multipath failover proxy for NBD
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Report every mistake in a configuration file; touches nothing
    Check(CheckArgs),
    /// Export files, block devices, memory or an NBD server behind a fence: the storage end
    Gate(GateArgs),
    /// Show devices and paths
    Status(StatusArgs),
    /// Take a path out of service, or back
    Path(PathArgs),
    /// End a device's hold, or take note of a loss
    Device(DeviceArgs),
    /// Show what happened
    Events(EventsArgs),
    /// Show why a device and its paths are as they are
    ///
    /// For each path: what holds it in its state now and what would change that; then the last decisions about it,
    /// newest first, with the rule, what it looked at and the limits, and what was considered and not done.
    Explain(ExplainArgs),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a running node read its configuration file again
    Reload(ReloadArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    pub(crate) config: Option<PathBuf>,
    /// Run the demo, as without --config: device vol0 over two paths to memory
    #[arg(long)]
    pub(crate) demo: bool,
    /// Directory for recorded state and the control socket, instead of `state_dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) drain: DrainArgs,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DrainArgs {
    /// How long requests in flight may take to finish on SIGTERM or SIGINT
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) drain: u64,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct GateArgs {
    #[command(subcommand)]
    pub(crate) command: Option<GateCommand>,
    /// What to export
    ///
    /// FILE is a file, a block device, `memory:`, or the URI of an NBD server on this host
    /// (nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH).
    /// With a size, a file that does not exist is created. STATE is what nodes are told of the way to it: optimized,
    /// non-optimized or standby; they prefer optimized paths. May be repeated.
    #[arg(long, value_name = "NAME=FILE[,size=SIZE][,readonly][,access=STATE]", required = true)]
    pub(crate) export: Vec<ExportArgument>,
    /// Where to listen: IP:PORT or unix:PATH; may be repeated [default: 127.0.0.1:10809]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// File with the key that claims must be made with: 64 hexadecimal digits, mode 600
    ///
    /// Without a key claims are taken over Unix sockets and loopback connections only.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Let clients without a claim write
    ///
    /// Without this they can only read. With it, whoever reaches the address can write, and nothing ends what
    /// such a client left behind: its late writes may land over newer data.
    #[arg(long)]
    pub(crate) allow_unfenced: bool,
    /// Who may write an export at once
    #[arg(long, value_name = "WRITERS", default_value = "one")]
    pub(crate) writers: GateWriters,
    /// Directory for the registers of epochs
    ///
    /// Default: beside a file, as FILE.holdfast-gate; /var/lib/holdfast/gate for block devices and NBD servers.
    /// All gates of a volume on this host must use the same one.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// How long a claim waits for the requests of sessions it ends; then it is refused
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) drain_max: u64,
    /// In front of an NBD server: how long it may take to finish or drop the requests of a connection it lost
    ///
    /// The gate is a client of that server like any other: what it had under way on a lost connection, or left behind when it
    /// was killed, is taken to be over after this time. Longer than the worst case of that server and its disks.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) quiesce: u64,
    /// In front of an NBD server: what ends the wait for a write that its connection was lost with
    #[arg(long, value_name = "HOW", default_value = "assume")]
    pub(crate) unproven: GateUnproven,
    /// A claimed session that sends nothing for so long is ended; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub(crate) idle_limit: u64,
    /// I/O threads [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) reactors: Option<u16>,
    #[command(flatten)]
    pub(crate) drain: DrainArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GateUnproven {
    /// The server's reply, or `--quiesce`
    Assume,
    /// The server's reply alone; newer writes over it fail
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GateWriters {
    /// The member with the highest epoch
    One,
    /// Several members, each until it is fenced
    Many,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GateCommand {
    /// Set the epoch of an export back and forget its members
    ///
    /// The way out when a member lost its state and counts from 1 again. Be sure that nobody who held the
    /// volume can still write: what the register forgets, it no longer keeps out.
    ResetEpoch(ResetEpochArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ResetEpochArgs {
    /// The export, as given to the gate
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) export: ExportArgument,
    /// The directory given to the gate, if one was
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The epoch to set
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    pub(crate) epoch: u64,
    /// Also while a gate of the volume runs, and also if the register is damaged
    ///
    /// A running gate goes on with what it knows until its next claim.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    /// The node's API: http://HOST:PORT or unix:PATH
    ///
    /// Default: $HOLDFAST_API, else the socket in /var/lib/holdfast, else that of the demo,
    /// else http://127.0.0.1:10880.
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<Endpoint>,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Only this device
    pub(crate) device: Option<String>,
    /// As a JSON document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PathArgs {
    /// What to do
    pub(crate) action: PathVerb,
    /// Device name
    pub(crate) device: String,
    /// Path name
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathVerb {
    /// Out at once, as if it had failed, until reinstated
    Fail,
    /// Back into service
    Reinstate,
    /// Nothing new on it, what is in flight finishes, until reinstated
    Drain,
}

impl PathVerb {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Reinstate => "reinstate",
            Self::Drain => "drain",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DeviceArgs {
    /// What to do
    pub(crate) action: DeviceVerb,
    /// Device name
    pub(crate) device: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceVerb {
    /// With no path left: requests fail with EIO now instead of at the end of the hold
    FailNow,
    /// Acknowledged writes were lost: you know, and FLUSH may work again
    ClearLoss,
}

impl DeviceVerb {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FailNow => "fail-now",
            Self::ClearLoss => "clear-loss",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Go on with new events as they come
    #[arg(long)]
    pub(crate) follow: bool,
    /// One JSON document for each line
    #[arg(long)]
    pub(crate) json: bool,
    /// Every decision of the data plane too, with its figures
    #[arg(long)]
    pub(crate) decisions: bool,
    /// Only events after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Device name, or DEVICE/PATH
    pub(crate) device: String,
    /// Only this path
    pub(crate) path: Option<String>,
    /// As a JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// So many of the last decisions of each
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) last: usize,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every effective value with its origin, of a running node or a file
    Show(ConfigShowArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ConfigShowArgs {
    /// Show what this file means, instead of asking a node
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
