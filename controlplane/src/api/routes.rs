// SPDX-License-Identifier: MIT OR Apache-2.0
//! The routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use program::{DeviceCommand, PathCommand};
use serde::Serialize;

use super::answer::{Refusal, json};
use super::documents::{DeviceDocument, StatusDocument, hidden, milliseconds};
use super::{metrics, stream};
use crate::config::LoadError;
use crate::explain::ExplainDocument;
use crate::limits::{EVENT_WAIT_MAX, EVENTS_PER_ANSWER_MAX, HEALTHY_ANSWER_AGE_MAX};
use crate::services::{Node, PathCommandError, ReloadError};

/// Every route, for the index page and the reference page.
pub const ROUTES: [(&str, &str, &str); 13] = [
    ("GET", "/v1/status", "node, devices, paths, sets, members"),
    ("GET", "/v1/devices/{name}", "one device"),
    ("GET", "/v1/devices/{name}/explain", "why it and its paths are as they are: decisions, rules, figures"),
    ("GET", "/v1/devices/{device}/paths/{path}/explain", "the same of one path"),
    ("GET", "/v1/events", "events after a number; ?after=N&limit=N&wait=SECONDS"),
    ("GET", "/v1/events/stream", "the same as server-sent events; ?after=N, or Last-Event-ID"),
    ("GET", "/v1/config", "effective configuration with the origin of each value"),
    ("GET", "/metrics", "Prometheus metrics"),
    ("GET", "/healthz", "whether the node answers"),
    (
        "POST",
        "/v1/devices/{device}/paths/{path}/{command}",
        "fail, reinstate or drain a path; Unix socket only",
    ),
    (
        "POST",
        "/v1/devices/{device}/{command}",
        "fail-now ends the hold, clear-loss lets FLUSH work again after a loss; Unix socket only",
    ),
    ("POST", "/v1/reload", "read the configuration file again; Unix socket only"),
    ("GET", "/", "this list"),
];

type Shared = State<Arc<Node>>;

pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/v1/status", get(status))
        .route("/v1/devices/{name}", get(device))
        .route("/v1/devices/{name}/explain", get(explain_device))
        .route("/v1/devices/{device}/paths/{path}/explain", get(explain_path))
        .route("/v1/events", get(events))
        .route("/v1/events/stream", get(stream::events))
        .route("/v1/config", get(config))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .route("/v1/devices/{device}/paths/{path}/{command}", post(path_command))
        .route("/v1/devices/{device}/{command}", post(device_command))
        .route("/v1/reload", post(reload))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(node)
}

async fn index() -> String {
    let line = |(method, route, about): &(&str, &str, &str)| format!("{method:<5}{route:<52}{about}\n");
    ROUTES.iter().map(line).collect()
}

async fn status(State(node): Shared) -> Response {
    let snapshot = node.snapshot().await;
    json(StatusCode::OK, &StatusDocument::new(&node, &node.program(), &snapshot))
}

async fn device(State(node): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    let program = node.program();
    if !program.devices.iter().any(|device| device.name == name) {
        return Err(no_device(&name));
    }
    let snapshot = node.snapshot().await;
    let sample = snapshot.devices.iter().find(|sample| sample.status.name == name);
    // A reload may have removed it meanwhile.
    let sample = sample.ok_or_else(|| no_device(&name))?;
    Ok(json(StatusCode::OK, &DeviceDocument::new(sample, &hidden(&program))))
}

async fn explain_device(State(node): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &explanation(&node, &name).await?))
}

async fn explain_path(
    State(node): Shared,
    Path((device, path)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let document = explanation(&node, &device).await?;
    if let Some(found) = document.paths.iter().find(|found| found.name == path) {
        return Ok(json(StatusCode::OK, found));
    }
    let there = document.paths.iter().map(|path| path.name.clone()).collect();
    Err(path_refusal(&device, &path, PathCommandError::NoPath(there)))
}

async fn explanation(node: &Node, name: &str) -> Result<ExplainDocument, Refusal> {
    if !node.program().devices.iter().any(|device| device.name == name) {
        return Err(no_device(name));
    }
    let told = node.explain(name).await.ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the data plane did not answer in time",
            "`holdfast status` shows what it last told; `holdfast events` what happened",
        )
    })?;
    Ok(ExplainDocument::new(&told))
}

async fn events(State(node): Shared, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = EventQuery::parse(query.as_deref().unwrap_or_default())?;
    let page = node.events(query.after, query.limit, query.wait).await;
    Ok(json(StatusCode::OK, &page))
}

async fn config(State(node): Shared) -> Response {
    #[derive(Serialize)]
    struct Document {
        file: Option<String>,
        values: Vec<crate::config::ShownValue>,
    }
    json(StatusCode::OK, &Document { file: node.config_path(), values: node.shown_config() })
}

async fn metrics_text(State(node): Shared) -> Response {
    let snapshot = node.snapshot().await;
    match metrics::text(&node, snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        // Writing to a String cannot fail.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(node): Shared) -> Response {
    #[derive(Serialize)]
    struct Document {
        status: &'static str,
        uptime_s: u64,
        last_answer_age_ms: Option<u64>,
    }
    node.snapshot().await;
    let age = node.last_answer_age();
    let healthy = age.is_some_and(|age| age < HEALTHY_ANSWER_AGE_MAX);
    let (code, status) = if healthy {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the data plane does not answer")
    };
    json(
        code,
        &Document { status, uptime_s: node.uptime().as_secs(), last_answer_age_ms: age.map(milliseconds) },
    )
}

async fn path_command(
    State(node): Shared,
    Path((device, path, command)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    let order = match command.as_str() {
        "fail" => PathCommand::Fail,
        "reinstate" => PathCommand::Reinstate,
        "drain" => PathCommand::Drain,
        _ => {
            let hint = "commands are fail, reinstate and drain";
            return Err(Refusal::not_found("there is no such path command", hint));
        }
    };
    let warning = if order == PathCommand::Reinstate { None } else { last_path(&node, &device, &path).await };
    node.command_path(&device, &path, order).map_err(|error| path_refusal(&device, &path, error))?;
    Ok(json(StatusCode::ACCEPTED, &Accepted { device, path, command, warning }))
}

async fn device_command(
    State(node): Shared,
    Path((device, command)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let order = match command.as_str() {
        "fail-now" => DeviceCommand::FailNow,
        "clear-loss" => DeviceCommand::ClearLoss,
        _ => {
            let hint = "commands are fail-now and clear-loss";
            return Err(Refusal::not_found("there is no such device command", hint));
        }
    };
    node.command_device(&device, order, &command).map_err(|error| path_refusal(&device, "", error))?;
    Ok(json(StatusCode::ACCEPTED, &AcceptedDevice { device, command }))
}

#[derive(Serialize)]
struct AcceptedDevice {
    device: String,
    command: String,
}

#[derive(Serialize)]
struct Accepted {
    device: String,
    path: String,
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// What taking this path away leaves, if that is nothing.
async fn last_path(node: &Node, device: &str, path: &str) -> Option<String> {
    use program::PathState::{Probation, Slow, Standby, Up};
    let snapshot = node.snapshot().await;
    let status =
        snapshot.devices.into_iter().map(|sample| sample.status).find(|status| status.name == device)?;
    let usable = |other: &program::PathStatus| {
        other.name != path && matches!(other.state, Up | Standby | Probation | Slow)
    };
    let none = !status.paths.iter().any(usable);
    none.then(|| {
        "no other path of the device is usable: its requests wait, or fail, as `no_path` says".to_owned()
    })
}

async fn reload(State(node): Shared) -> Result<Response, Refusal> {
    match node.reload().await {
        Ok(reloaded) => Ok(json(StatusCode::OK, &reloaded)),
        Err(error) => {
            let text = error.to_string();
            Err(match error {
                ReloadError::NoFile => Refusal::new(
                    StatusCode::CONFLICT,
                    text,
                    "start the node with `holdfast serve --config FILE`",
                ),
                ReloadError::Load(LoadError::Mistakes(findings)) => {
                    let hint = "repair the file; `holdfast check --config FILE` shows the same mistakes";
                    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text, hint)
                        .with_mistakes(findings.render(false))
                }
                ReloadError::Load(LoadError::Unreadable(_)) => Refusal::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    text,
                    "the node reads the file as its own user",
                ),
                ReloadError::Refused(_) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text, "try again"),
            })
        }
    }
}

async fn no_route() -> Refusal {
    Refusal::not_found("there is nothing at this address", "GET / lists what there is")
}

async fn no_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this address does not take that method",
        "GET reads; changes are POST requests on the node's Unix socket; GET / lists both",
    )
}

fn no_device(name: &str) -> Refusal {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    Refusal::not_found(format!("there is no device \"{shown}\""), "GET /v1/status lists the devices")
}

fn path_refusal(device: &str, path: &str, error: PathCommandError) -> Refusal {
    match error {
        PathCommandError::NoDevice => no_device(device),
        PathCommandError::NoPath(there) => {
            let shown: String = path.chars().take(80).flat_map(char::escape_debug).collect();
            let device = device.escape_debug();
            let hint = format!("its paths are: {}", there.join(", "));
            Refusal::not_found(format!("device \"{device}\" has no path \"{shown}\""), hint)
        }
        PathCommandError::Refused(error) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "the data plane did not take the command",
        ),
    }
}

/// Parameters of `GET /v1/events`.
#[derive(Debug, PartialEq, Eq)]
struct EventQuery {
    after: u64,
    limit: usize,
    wait: Duration,
}

impl EventQuery {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parsed = Self { after: 0, limit: 100, wait: Duration::ZERO };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse::<u64>().ok();
            match (name, number) {
                ("after", Some(number)) => parsed.after = number,
                ("limit", Some(number)) => {
                    parsed.limit =
                        usize::try_from(number).unwrap_or(usize::MAX).clamp(1, EVENTS_PER_ANSWER_MAX);
                }
                ("wait", Some(number)) => parsed.wait = Duration::from_secs(number).min(EVENT_WAIT_MAX),
                _ => {
                    let hint = "parameters are after, limit and wait (in seconds), each a whole number";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, "a parameter is not understood", hint));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_queries_are_bounded() {
        let query = |after, limit, wait| EventQuery { after, limit, wait: Duration::from_secs(wait) };
        assert_eq!(EventQuery::parse("").expect("good"), query(0, 100, 0));
        assert_eq!(EventQuery::parse("after=7&limit=3&wait=5").expect("good"), query(7, 3, 5));
        assert_eq!(EventQuery::parse("limit=99999&wait=99999").expect("good"), query(0, 1000, 30));
        assert_eq!(EventQuery::parse("limit=0").expect("good"), query(0, 1, 0));
        for bad in ["after=x", "after=-1", "after", "device=vol0"] {
            assert!(EventQuery::parse(bad).is_err(), "{bad}");
        }
    }
}
