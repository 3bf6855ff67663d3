// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a connection must be encrypted.
//!
//! There is no opportunistic mode on purpose: it protects from nobody who can change bytes (protocol
//! document, "Protocol downgrade attacks"), and a client that silently goes on without TLS is the bug of
//! CVE-2019-14842.

/// TLS on one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never: STARTTLS is refused by a server (`ERR_POLICY`) and never sent by a client ("NOTLS").
    #[default]
    Off,
    /// Always: nothing but STARTTLS and ABORT is answered before it ("FORCEDTLS"); a client ends without it.
    Required,
}
