// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers: JSON documents, and errors that say what to do.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Body of every answer that is no success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// What is wrong.
    pub error: String,
    /// What to do, may be empty.
    pub hint: String,
    /// Mistakes of a configuration, rendered with their source lines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mistakes: Option<String>,
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    document: ErrorDocument,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, document: ErrorDocument { error: error.into(), hint: hint.into(), mistakes: None } }
    }

    pub(crate) fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, hint)
    }

    pub(crate) fn with_mistakes(mut self, rendered: String) -> Self {
        self.document.mistakes = Some(rendered);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &self.document)
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // Documents are plain data with text keys, which always serialise.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
