// SPDX-License-Identifier: MIT OR Apache-2.0
//! Claims in the handshake: who is heard, and what becomes of the answer.
//!
//! A claim is taken with GO alone. Other options that name it (SET_META_CONTEXT comes before GO under the same
//! name) are answered for the volume, and decide nothing. Without a claim a gated export is read-only, unless it
//! is open to unfenced writers.

use std::net::IpAddr;

use nbd::TransmissionFlags;
use nbd::gate::{Admission, Claim, ClaimError, SignedClaim};
use nbd::server::{ExportInfo, LookupError, Purpose};
use policies::fence::Standing;
use program::{Nanos, SECOND};
use ring::socket;

use crate::gate::register::{Granted, Wish};
use crate::gate::{ClaimMail, ClaimRefused, Claimed, Gate, auth};
use crate::host::handshake::{Shaking, Stage};
use crate::host::lookup::{NOT_REACHED, export_info};
use crate::log;
use crate::mailbox::Mail;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

/// Beyond `drain_max`, for the register itself: it has bounds of its own, this is for when they fail.
const CLAIM_GRACE: Nanos = 8 * SECOND;

/// A claim that is being judged.
pub(crate) struct Admitting {
    claim: Claim,
    info: ExportInfo,
}

impl Reactor {
    /// An export without a claim.
    pub(crate) fn handshake_answer_plain(
        &mut self,
        key: Key,
        mut info: ExportInfo,
        gate: Option<&Gate>,
        purpose: Purpose,
    ) {
        if let Some(gate) = gate {
            if !gate.fence.allow_unfenced {
                info.flags = info.flags.with(TransmissionFlags::READ_ONLY);
            }
            if purpose == Purpose::ListContexts && self.handshake_identify(key, gate) {
                let identity = self.handshakes.get(key).and_then(|shaking| shaking.identity.as_ref());
                info.contexts.extend(identity.map(ToString::to_string));
            }
        }
        if let Some(shaking) = self.handshakes.get_mut(key) {
            shaking.machine.answer_lookup(Ok(info));
        }
    }

    /// Draws the challenge of this connection; one is enough for it. `false`: there is no randomness to be had.
    fn handshake_identify(&mut self, key: Key, gate: &Gate) -> bool {
        let with_key = self.program.node.gate_key.is_some();
        let Some(shaking) = self.handshakes.get_mut(key) else { return false };
        let same = shaking.identity.as_ref().filter(|identity| identity.volume == gate.register.volume);
        let challenge = match same.map(|identity| identity.challenge) {
            Some(challenge) => challenge,
            None => match ring::random::id() {
                Ok(challenge) => challenge,
                Err(error) => {
                    log::error!("gate", "no randomness, so no claims: {error}");
                    return false;
                }
            },
        };
        shaking.identity = Some(gate.identity(challenge, with_key));
        true
    }

    /// A name that is no export's: perhaps a claim.
    pub(crate) fn handshake_lookup_claim(&mut self, key: Key, name: &str, purpose: Purpose) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let volume = name.rfind(";e=").map(|at| &name[..at]);
        let found = volume.and_then(|volume| self.node.directory.find(&shaking.shown, volume));
        let Some((volume, export)) = found else {
            return shaking.machine.answer_lookup(Err(LookupError::Unknown));
        };
        let Some(gate) = export.gate else {
            return shaking.machine.answer_lookup(Err(LookupError::Unknown));
        };
        let signed = match SignedClaim::parse(name) {
            Ok(signed) => signed,
            Err(ClaimError::Plain) => return shaking.machine.answer_lookup(Err(LookupError::Unknown)),
            Err(error) => {
                log::warning!("gate", "{}: {error}", shaking.peer);
                return shaking.machine.answer_lookup(Err(LookupError::Policy(error.to_string())));
            }
        };
        let Some(geometry) = export.geometry else {
            if shaking.waited {
                return shaking.machine.answer_lookup(Err(LookupError::Shutdown(NOT_REACHED.into())));
            }
            return self.handshake_wait(key);
        };
        let info = export_info(&volume, &geometry, false);
        match purpose {
            Purpose::Go => self.handshake_claim(key, &gate, signed, info, export.reactor),
            Purpose::ExportName => {
                let text = "a claim is taken with GO only".to_owned();
                shaking.machine.answer_lookup(Err(LookupError::Policy(text)));
            }
            Purpose::Info | Purpose::ListContexts | Purpose::SetContexts => {
                shaking.machine.answer_lookup(Ok(info));
            }
        }
    }

    fn handshake_claim(
        &mut self,
        key: Key,
        gate: &Gate,
        signed: SignedClaim,
        info: ExportInfo,
        owner: usize,
    ) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let standing = standing(shaking, self.program.node.gate_key.as_ref(), &signed);
        let SignedClaim { claim, .. } = signed;
        let wish = Wish {
            member: claim.member.clone(),
            epoch: claim.epoch,
            session: claim.session,
            kill: claim.kill,
            fence: claim.fence.clone(),
            standing,
        };
        let mail = ClaimMail { device: info.name.clone(), from: (self.index, key), wish };
        shaking.stage = Stage::Claiming(Box::new(Admitting { claim, info }));
        shaking.deadline = self.clock.now() + gate.fence.drain_max + CLAIM_GRACE;
        self.timers.set(shaking.deadline, Due::Handshake(key));
        if owner == self.index {
            self.gate_claim(mail);
        } else {
            self.node.mailboxes[owner].send(Mail::Claim(Box::new(mail)));
        }
    }

    /// The owner's answer.
    pub(crate) fn handshake_claimed(&mut self, key: Key, answer: Result<Granted, ClaimRefused>) {
        let deadline = self.clock.now() + self.program.node.handshake_timeout;
        let gate_key = self.program.node.gate_key.as_ref();
        // The client may have gone meanwhile.
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let Stage::Claiming(admitting) = std::mem::replace(&mut shaking.stage, Stage::Haggling) else {
            panic!("an answer to a handshake that claims nothing");
        };
        let Admitting { claim, mut info } = *admitting;
        let answer = match answer {
            Ok(granted) => {
                let admission =
                    Admission { epoch: claim.epoch, session: claim.session, killed: claim.kill.is_some() };
                let identity = shaking.identity.as_ref();
                let mac =
                    gate_key.zip(identity).map(|(key, told)| auth::sign_admission(key, &admission, told));
                info.description = admission.to_text(mac.as_ref());
                shaking.claim = Some(Claimed {
                    session: claim.session,
                    member: claim.member,
                    index: granted.member,
                    epoch: claim.epoch,
                    kills: granted.kills,
                    ended: None,
                });
                Ok(info)
            }
            Err(ClaimRefused::Policy(text)) => {
                log::warning!("gate", "claim of {} ({}) refused: {text}", claim.member, shaking.peer);
                Err(LookupError::Policy(text))
            }
            Err(ClaimRefused::Shutdown) => {
                Err(LookupError::Shutdown("the export is being taken down".into()))
            }
        };
        shaking.machine.answer_lookup(answer);
        shaking.deadline = deadline;
        self.timers.set(deadline, Due::Handshake(key));
        self.handshake_advance(key);
    }

    /// The owner has not answered within its own bounds; what it still says finds nobody.
    pub(crate) fn handshake_claim_overdue(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get(key) else { return };
        log::warning!("gate", "{} closed: its claim was not judged in time", shaking.peer);
        self.handshake_end(key);
    }
}

/// How far a claim may be believed. The MAC is checked against the identity told on this very connection, so
/// without one it cannot be right.
fn standing(shaking: &Shaking, key: Option<&program::GateKey>, signed: &SignedClaim) -> Standing {
    match (key, &signed.mac, &shaking.identity) {
        (None, _, _) if shaking.fd.as_ref().is_some_and(is_local) => Standing::Local,
        (None, _, _) => Standing::Remote,
        (Some(_), None, _) => Standing::NoMac,
        (Some(key), Some(mac), Some(identity)) if auth::claim_is_ours(key, &signed.claim, identity, mac) => {
            Standing::Authenticated
        }
        (Some(_), Some(_), _) => Standing::WrongMac,
    }
}

/// Unix sockets, and TCP from this host over the loopback interface.
fn is_local(fd: &ring::Fd) -> bool {
    socket::ends(fd).is_none_or(|(_, theirs)| match theirs.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    })
}
