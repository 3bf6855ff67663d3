// SPDX-License-Identifier: MIT OR Apache-2.0
//! URIs as text: the shortest form that [`Uri::parse`] reads back as the same value.

use core::fmt;

use crate::uri::percent::Encoded;
use crate::uri::{DEFAULT_PORT, NbdUri, Transport, Uri};

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nbd(uri) => write!(f, "{uri}"),
            Self::File { path } => write!(f, "file://{}", Encoded(path)),
        }
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls.is_some() { "s" } else { "" };
        let export = Encoded(self.export.as_bytes());
        let mut separator = '?';
        match &self.transport {
            Transport::Tcp { host, port: DEFAULT_PORT } => write!(f, "nbd{secure}://{host}/{export}")?,
            Transport::Tcp { host, port } => write!(f, "nbd{secure}://{host}:{port}/{export}")?,
            Transport::Unix { path } => {
                write!(f, "nbd{secure}+unix:///{export}?socket={}", Encoded(path))?;
                separator = '&';
            }
        }
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        if let Some(hostname) = &tls.hostname {
            write!(f, "{separator}tls-hostname={hostname}")?;
            separator = '&';
        }
        if !tls.verify_peer {
            write!(f, "{separator}tls-verify-peer=0")?;
        }
        Ok(())
    }
}
