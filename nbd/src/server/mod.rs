// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server role: what a host sees of us.
//!
//! [`Handshake`] negotiates one connection. After it [`RequestHeader::decode`](crate::RequestHeader::decode)
//! finds requests, [`check_request`] judges them, and [`ReplyEncoder`] writes the reply headers.
//!
//! ```
//! use nbd::server::{ExportInfo, Handshake, LookupError, ServerConfig, Step};
//!
//! let mut handshake = Handshake::new(ServerConfig::default());
//! let greeting = std::mem::take(handshake.output()); // send this at once
//! assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
//!
//! // What a driver does with received bytes; a connection with nothing more to read waits for its socket.
//! let received: &[u8] = &[0, 0, 0, 3];
//! let mut at = 0;
//! loop {
//!     match handshake.receive(&received[at..]) {
//!         Ok(consumed) => at += consumed,
//!         Err(why) => break println!("close: {why}"),
//!     }
//!     match handshake.next_step() {
//!         Step::NeedInput if at == received.len() => break, // send output(), then wait for bytes
//!         Step::NeedInput => {}
//!         Step::SendOutput => handshake.output().clear(), // send it all before going on
//!         Step::Lookup { name, purpose: _ } => handshake.answer_lookup(match name.as_str() {
//!             "" | "vol0" => Ok(ExportInfo::new("vol0", 1 << 30)),
//!             _ => Err(LookupError::Unknown),
//!         }),
//!         Step::List => handshake.answer_list(["vol0"].into_iter()),
//!         Step::StartTls => break, // TLS handshake, then tls_started()
//!         Step::Finished(session) => break println!("transmission of {}", session.export.name), // received[at..] is its
//!         Step::Close(reason) => break println!("{reason}"), // send output(), then close
//!     }
//! }
//! ```

mod check;
mod encode;
mod error;
mod export_info;
mod handshake;
mod option_data;
mod option_reply;
mod session;
mod status;
mod step;

pub use check::{AcceptedRequest, ExportLimits, Refusal, SessionMode, Verdict, check_request};
pub use encode::{REPLY_HEADER_MAX, ReplyEncoder};
pub use error::HandshakeError;
pub use export_info::ExportInfo;
pub use handshake::{Handshake, ServerConfig};
pub use session::{BASE_ALLOCATION_ID, SelectedContexts, Session};
pub use status::{StatusReply, encode_status};
pub use step::{CloseReason, LookupError, Purpose, Step};
