// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate's words over an unchanged NBD wire format (semantics 2.4).
//!
//! A gate is a storage end that ends ghosts: it knows which session a request came on and finishes a session
//! when it is told to. Three texts carry that through a handshake that any NBD peer can take part in:
//!
//! ```text
//! client  LIST_META_CONTEXT vol0, x-holdfast:     -> gate   x-holdfast:gate;v=1;u=..;n=..;c=..   Identity
//! client  GO vol0;e=7;m=m1;s=..[;kill=..][;mac=..]-> gate   INFO_DESCRIPTION
//!                                                            x-holdfast:admitted;e=7;s=..;k=1     Admission
//! ```
//!
//! * An unknown export name proves nothing: nbdkit serves any. A server is a gate only when it has told an
//!   [`Identity`] and then an [`Admission`] of the very session that was claimed.
//! * The MAC of a [`Claim`] covers the text of the claim and, from the identity of the same connection, the
//!   volume, the boot nonce and a challenge drawn for this connection: a claim that was overheard opens
//!   nothing. The MAC of the admission covers the same, so that nobody else can pretend to have killed a session.
//! * Grammar is strict and its order fixed, so there is one text for one meaning and the MAC can cover the
//!   text itself. This module only reads and writes; who may do what is `policies::fence`'s, and the MAC is
//!   computed by the driver over [`Claim::mac_input`] and [`Admission::mac_input`].

mod access;
mod admission;
mod claim;
mod field;
mod identity;

pub use access::{access_context, access_word};
pub use admission::Admission;
pub use claim::{Claim, ClaimError, MEMBER_MAX_BYTES, SignedClaim, is_valid_member};
pub use identity::{Authentication, IDENTITY_QUERY, Identity, IdentityError, NODE_CONTEXT, RegisterWriters};
