// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast events --follow`: the event stream of a node, line by line.
//!
//! A stream that breaks is opened again behind the last event that came, for as long as a
//! restart of the node may take; what could not be kept meanwhile is told by the node and
//! passed on.

use std::io::BufRead;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ask::{parse, print_event};
use crate::cli::EventsArgs;
use crate::client::Client;
use crate::failure::{Failure, Status};

/// A node that does not come back within this time is gone.
const AWAY_MAX: Duration = Duration::from_mins(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the next stream begins.
struct Place {
    run: String,
    after: u64,
}

/// See the module header. Ends only by a failure.
pub(crate) fn follow(arguments: &EventsArgs) -> Result<(), Failure> {
    let client = Client::new(arguments.api.api.as_ref())?;
    let mut place = Place { run: String::new(), after: arguments.after };
    let mut lost: Option<Instant> = None;
    loop {
        let target = format!("/v1/events/stream?after={}&run={}", place.after, place.run);
        match client.stream(&target) {
            Ok(lines) => {
                lost = None;
                take(lines, &mut place, arguments)?;
            }
            // It never answered: that is no stream that broke.
            Err(failure) if place.run.is_empty() || failure.status() == Status::Refused => {
                return Err(failure);
            }
            Err(failure) if lost.is_some_and(|since| since.elapsed() >= AWAY_MAX) => return Err(failure),
            Err(_) => {}
        }
        if lost.is_none() {
            lost = Some(Instant::now());
            eprintln!("holdfast: the node ended the stream; waiting for it to come back");
        }
        // There is nothing to wait for but time: a node that starts tells nobody.
        std::thread::park_timeout(PAUSE);
    }
}

/// Until the stream ends.
fn take(mut lines: impl BufRead, place: &mut Place, arguments: &EventsArgs) -> Result<(), Failure> {
    let (mut kind, mut data, mut line) = (String::new(), String::new(), String::new());
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            // A line that was cut is no line.
            Ok(_) if !line.ends_with('\n') => return Ok(()),
            Err(_) => return Ok(()),
            Ok(_) => {}
        }
        match line.trim_end().split_once(':').map(|(field, value)| (field, value.trim_start())) {
            Some(("event", value)) => value.clone_into(&mut kind),
            Some(("data", value)) => value.clone_into(&mut data),
            None if line.trim_end().is_empty() && !data.is_empty() => {
                message(&kind, &data, place, arguments)?;
                data.clear();
            }
            _ => {}
        }
    }
}

fn message(kind: &str, data: &str, place: &mut Place, arguments: &EventsArgs) -> Result<(), Failure> {
    let value: Value = parse(data)?;
    match kind {
        "run" => {
            let run = value["run"].as_str().unwrap_or_default();
            if !place.run.is_empty() && place.run != run {
                eprintln!("holdfast: the node was restarted");
            }
            run.clone_into(&mut place.run);
            place.after = value["after"].as_u64().unwrap_or_default();
        }
        "missed" => {
            eprintln!("holdfast: {} events are no longer kept", value["missed"]);
        }
        "event" => {
            let event = parse(data)?;
            print_event(&event, arguments)?;
            place.after = event.seq;
        }
        // What a later version may add.
        _ => {}
    }
    Ok(())
}
