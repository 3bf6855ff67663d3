// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/cli.md` against the help texts of the program, and parsing of the command line.
//!
//! With `UPDATE_GOLDEN=1` the help texts in the page are written anew.

use std::path::Path;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, PathVerb};

/// The help of every command, in the order of `--help`, each under its own heading.
fn helps() -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut out = String::new();
    collect(&mut cli, &mut out);
    out
}

fn collect(command: &mut clap::Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    out.push_str(&format_section(&name, &lines.join("\n")));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        if let Some(sub) = command.find_subcommand_mut(&name) {
            collect(sub, out);
        }
    }
}

fn format_section(name: &str, help: &str) -> String {
    format!("### `{name}`\n\n```text\n{}\n```\n\n", help.trim_end())
}

#[test]
fn the_page_has_every_help_text() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = std::fs::read_to_string(&file).expect("the page");
    let (begin, end) = ("<!-- help begin -->\n", "<!-- help end -->");
    let (head, rest) = page.split_once(begin).expect("a begin mark");
    let (found, tail) = rest.split_once(end).expect("an end mark");
    let wanted = helps();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, format!("{head}{begin}{wanted}{end}{tail}")).expect("written");
        return;
    }
    assert_eq!(found, wanted, "docs/cli.md is out of step with --help; see the head of this file");
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
    let words = std::iter::once("holdfast").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.kind())
}

#[test]
fn commands_are_parsed() {
    assert!(matches!(parse("serve"), Ok(Command::Serve(a)) if a.config.is_none() && a.drain.drain == 10));
    assert!(
        matches!(parse("serve --demo --state-dir /tmp/x --drain 0"), Ok(Command::Serve(a)) if a.demo && a.drain.drain == 0)
    );
    assert!(
        matches!(parse("path drain vol0 a"), Ok(Command::Path(a)) if a.action == PathVerb::Drain && a.path == "a")
    );
    assert!(
        matches!(parse("gate --export a=x --export b=y --listen 127.0.0.1:1"), Ok(Command::Gate(a)) if a.export.len() == 2)
    );
    assert!(
        matches!(parse("status --json vol0 --api unix:/x"), Ok(Command::Status(a)) if a.json && a.api.api.is_some())
    );
    assert!(matches!(parse("events --follow --after 7"), Ok(Command::Events(a)) if a.follow && a.after == 7));
    assert!(matches!(parse("config show"), Ok(Command::Config(_))));
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    use clap::error::ErrorKind::{
        ArgumentConflict, InvalidSubcommand, InvalidValue, MissingRequiredArgument, UnknownArgument,
        ValueValidation,
    };
    for (line, kind) in [
        ("serv", InvalidSubcommand),
        ("serve --config a --demo", ArgumentConflict),
        ("serve --verbose", UnknownArgument),
        ("serve --drain 99999", ValueValidation),
        ("check", MissingRequiredArgument),
        ("gate", MissingRequiredArgument),
        ("gate --export vol0", ValueValidation),
        ("gate --export a=x --reactors 0", ValueValidation),
        ("path kill vol0 a", InvalidValue),
        ("path fail vol0", MissingRequiredArgument),
        ("status --api 127.0.0.1", ValueValidation),
        ("config show --config a --api unix:/x", ArgumentConflict),
    ] {
        assert_eq!(parse(line).map(|_| ()), Err(kind), "{line}");
    }
}
