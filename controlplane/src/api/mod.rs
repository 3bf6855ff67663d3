// SPDX-License-Identifier: MIT OR Apache-2.0
//! The HTTP API: read-only on TCP, changes on the Unix socket.
//!
//! Until there are TLS and roles, a TCP port tells nobody apart, so it only
//! answers questions, and only ones that were addressed to it by an address and
//! not by a name (a web page can make a browser send requests to any name it
//! controls). The Unix socket knows its callers from the kernel. Routes and
//! documents are described in `docs/api.md`.

mod access;
mod answer;
mod documents;
mod listener;
mod metrics;
mod metrics_table;
mod routes;
mod server;
mod stream;

pub use answer::ErrorDocument;
pub use documents::{
    BudgetDocument, CostDocument, DeviceDocument, MemberDocument, NodeDocument, PathDocument,
    SessionDocument, StatusDocument,
};
pub use metrics_table::{METRICS, Metric};
pub use routes::ROUTES;
pub use server::{ApiListeners, BindError};

pub(crate) use server::serve;
