// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of a gate, written from `docs/gate.md` and the texts in `nbd/src/gate` once more: it can claim what a
//! Holdfast never would.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::frame::go_payload;
use super::{Client, ClientError, option, reply};
use crate::Endpoint;

/// The fields of a gate's identity, by their letters.
#[derive(Clone, Debug)]
pub struct GateIdentity(BTreeMap<String, String>);

impl GateIdentity {
    /// One field.
    pub fn field(&self, key: &str) -> &str {
        &self.0[key]
    }
}

/// What to claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Export name.
    pub volume: String,
    /// Epoch.
    pub epoch: u64,
    /// Member.
    pub member: String,
    /// Session.
    pub session: u128,
    /// Session to be finished.
    pub kill: Option<u128>,
    /// Member and floor.
    pub fence: Option<(String, u64)>,
    /// Key to sign with.
    pub key: Option<[u8; 32]>,
}

impl Claim {
    /// A claim of `vol0` by member `m1`.
    pub fn new(epoch: u64, session: u128) -> Self {
        let (volume, member) = ("vol0".to_owned(), "m1".to_owned());
        Self { volume, epoch, member, session, kill: None, fence: None, key: None }
    }

    /// By another member.
    #[must_use]
    pub fn by(mut self, member: &str) -> Self {
        member.clone_into(&mut self.member);
        self
    }

    /// That ends a session.
    #[must_use]
    pub fn killing(mut self, session: u128) -> Self {
        self.kill = Some(session);
        self
    }

    /// That fences a member.
    #[must_use]
    pub fn fencing(mut self, member: &str, floor: u64) -> Self {
        self.fence = Some((member.to_owned(), floor));
        self
    }

    /// Signed.
    #[must_use]
    pub fn signed(mut self, key: [u8; 32]) -> Self {
        self.key = Some(key);
        self
    }

    fn text(&self) -> String {
        let Self { volume, epoch, member, session, .. } = self;
        let kill = self.kill.map(|kill| format!(";kill={kill:032x}")).unwrap_or_default();
        let fence =
            self.fence.as_ref().map(|(member, floor)| format!(";fence={member}:{floor}")).unwrap_or_default();
        format!("{volume};e={epoch};m={member};s={session:032x}{kill}{fence}")
    }

    /// The export name, for a gate that told this identity.
    pub fn name(&self, identity: &GateIdentity) -> String {
        let text = self.text();
        let Some(key) = self.key else { return text };
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
        mac.update(b"holdfast gate claim 1\0");
        for field in ["u", "n", "c"] {
            let id = u128::from_str_radix(identity.field(field), 16).expect("hexadecimal");
            mac.update(&id.to_be_bytes());
        }
        mac.update(text.as_bytes());
        let digits: Vec<String> =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text};mac={}", digits.concat())
    }

    /// Connects, reads the identity and opens the claim on the same connection.
    ///
    /// # Errors
    ///
    /// Among them the gate's refusal.
    pub fn open(&self, endpoint: &Endpoint) -> Result<Client, ClientError> {
        let (mut client, identity) = Client::greet_gate(endpoint, &self.volume)?;
        client.go_described(&self.name(&identity))?;
        Ok(client)
    }

    /// The text of the refusal.
    ///
    /// # Panics
    ///
    /// When it is not refused by policy.
    pub fn refusal(&self, endpoint: &Endpoint) -> String {
        match self.open(endpoint) {
            Err(ClientError::Refused(reply::ERR_POLICY, text)) => text,
            other => panic!("{self:?} was not refused by policy: {other:?}"),
        }
    }
}

impl Client {
    /// Connects to a gate and reads its identity.
    ///
    /// # Errors
    ///
    /// When it tells none, among others.
    pub fn greet_gate(endpoint: &Endpoint, volume: &str) -> Result<(Self, GateIdentity), ClientError> {
        let mut client = Self::greet(endpoint)?;
        client.send(&3u32.to_be_bytes())?;
        client.option(option::STRUCTURED_REPLY, &[])?;
        let mut query = go_payload(volume);
        query.truncate(query.len() - 2);
        query.extend_from_slice(&1u32.to_be_bytes());
        query.extend_from_slice(&11u32.to_be_bytes());
        query.extend_from_slice(b"x-holdfast:");
        let mut answer = client.option(option::LIST_META_CONTEXT, &query)?;
        let mut found = None;
        while answer.kind == reply::META_CONTEXT {
            let name = String::from_utf8_lossy(&answer.data[4..]).into_owned();
            if let Some(fields) = name.strip_prefix("x-holdfast:gate;") {
                let pairs = fields.split(';').filter_map(|field| field.split_once('='));
                found = Some(GateIdentity(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()));
            }
            answer = client.option_reply()?;
        }
        let identity = found.ok_or_else(|| ClientError::Protocol("no gate".to_owned()))?;
        Ok((client, identity))
    }
}
