// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `holdfast` binary: command line, wiring of the planes, talking to a node.
//!
//! Commands that run something (`serve`, `gate`) become a [`run::Plan`];
//! commands that ask something go to the API of a running node, so there is one
//! way in for people and for programs.
#![forbid(unsafe_code)]

mod ask;
mod cli;
#[cfg(test)]
mod cli_docs;
mod client;
mod demo;
mod explain;
mod failure;
mod follow;
mod gate;
mod output;
mod plane;
mod run;
mod serve;
mod signals;
mod table;
mod template;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand};

fn main() -> ExitCode {
    // clap prints usage errors itself and ends with status 2.
    let outcome = match &Cli::parse().command {
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Check(arguments) => serve::check(arguments),
        Command::Gate(arguments) => gate::gate(arguments),
        Command::Status(arguments) => ask::status(arguments),
        Command::Path(arguments) => ask::path(arguments),
        Command::Device(arguments) => ask::device(arguments),
        Command::Events(arguments) => ask::events(arguments),
        Command::Explain(arguments) => explain::explain(arguments),
        Command::Config(ConfigCommand::Show(arguments)) => ask::config_show(arguments),
        Command::Reload(arguments) => ask::reload(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
