// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that ask a running node.

use controlplane::api::{DeviceDocument, StatusDocument};
use controlplane::config::{Environment, ShownValue, load, to_toml};
use controlplane::services::{DECISION, Event, EventPage, Reloaded};
use serde_json::Value;

use crate::cli::{ConfigShowArgs, DeviceArgs, EventsArgs, PathArgs, ReloadArgs, StatusArgs};
use crate::client::{Client, segment};
use crate::failure::{Failure, Status};
use crate::follow;
use crate::output;
use crate::serve::load_failure;
use crate::table;

/// `holdfast status`.
pub(crate) fn status(arguments: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(arguments.api.api.as_ref())?;
    let target = match &arguments.device {
        Some(device) => format!("/v1/devices/{}", segment(device)),
        None => "/v1/status".to_owned(),
    };
    let body = client.get(&target)?;
    if arguments.json {
        let document: Value = parse(&body)?;
        output::print(&format!("{document:#}\n"));
    } else if arguments.device.is_some() {
        output::print(&table::devices(&[parse::<DeviceDocument>(&body)?]));
    } else {
        output::print(&table::status(&parse::<StatusDocument>(&body)?));
    }
    Ok(())
}

/// `holdfast path`.
pub(crate) fn path(arguments: &PathArgs) -> Result<(), Failure> {
    let (device, path, verb) = (&arguments.device, &arguments.path, arguments.action.as_str());
    let target = format!("/v1/devices/{}/paths/{}/{verb}", segment(device), segment(path));
    let body = Client::new(arguments.api.api.as_ref())?.post(&target)?;
    let answer: Value = parse(&body)?;
    if let Some(warning) = answer["warning"].as_str() {
        eprintln!("holdfast: {warning}");
    }
    output::print(&format!(
        "{verb} of path {path} of {device} is ordered; `holdfast status` shows what came of it\n"
    ));
    Ok(())
}

/// `holdfast device`.
pub(crate) fn device(arguments: &DeviceArgs) -> Result<(), Failure> {
    let (device, verb) = (&arguments.device, arguments.action.as_str());
    Client::new(arguments.api.api.as_ref())?.post(&format!("/v1/devices/{}/{verb}", segment(device)))?;
    output::print(&format!("{verb} of {device} is ordered; `holdfast status` shows what came of it\n"));
    Ok(())
}

/// `holdfast events`.
pub(crate) fn events(arguments: &EventsArgs) -> Result<(), Failure> {
    if arguments.follow {
        return follow::follow(arguments);
    }
    let client = Client::new(arguments.api.api.as_ref())?;
    let mut after = arguments.after;
    loop {
        let page: EventPage = parse(&client.get(&format!("/v1/events?after={after}&limit=1000"))?)?;
        if page.missed > 0 {
            eprintln!("holdfast: {} earlier events are no longer kept", page.missed);
        }
        for event in &page.events {
            print_event(event, arguments)?;
        }
        if page.events.len() < 1000 {
            return Ok(());
        }
        after = page.next;
    }
}

/// One line, unless it is a decision and nobody asked for those.
pub(crate) fn print_event(event: &Event, arguments: &EventsArgs) -> Result<(), Failure> {
    if event.name == DECISION && !arguments.decisions {
        return Ok(());
    }
    let line = if arguments.json {
        serde_json::to_string(event).map_err(|error| Failure::new(Status::Internal, error.to_string()))?
    } else {
        format!("{} {}", event.time, event.summary())
    };
    output::print(&format!("{line}\n"));
    Ok(())
}

/// `holdfast config show`.
pub(crate) fn config_show(arguments: &ConfigShowArgs) -> Result<(), Failure> {
    let values: Vec<ShownValue> = if let Some(file) = &arguments.config {
        load(file, &Environment::of_this_machine()).map_err(|error| load_failure(&error))?.shown()
    } else {
        let body = Client::new(arguments.api.api.as_ref())?.get("/v1/config")?;
        let mut document: Value = parse(&body)?;
        parse(&document["values"].take().to_string())?
    };
    output::print(&to_toml(&values));
    Ok(())
}

/// `holdfast reload`.
pub(crate) fn reload(arguments: &ReloadArgs) -> Result<(), Failure> {
    let body = Client::new(arguments.api.api.as_ref())?.post("/v1/reload")?;
    let reloaded: Reloaded = parse(&body)?;
    for warning in &reloaded.warnings {
        eprintln!("holdfast: {warning}");
    }
    let what = if reloaded.changed { "the new configuration is in force" } else { "nothing changed" };
    output::print(&format!("{what} (generation {})\n", reloaded.generation));
    Ok(())
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, Failure> {
    let strange =
        |error| Failure::new(Status::Unavailable, format!("the node's answer is not understood: {error}"));
    serde_json::from_str(body).map_err(strange)
}
