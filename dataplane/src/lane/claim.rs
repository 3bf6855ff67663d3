// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lane at a gate: what it claims, and what it makes of the answer (semantics 2.4).
//!
//! Every server is asked, in one more round trip of the handshake, who it is; only one that tells a gate's
//! identity gets a claim, any other is opened by its plain name. A gate is believed when it has admitted the very
//! session that was claimed, under its key where we have one: whoever could pretend to have killed a session
//! could make us write over a ghost.

use engine::{GateOffer, LaneId};
use nbd::gate::{Admission, Authentication, Claim, Identity, IdentityError};
use nbd::is_valid_name;
use program::GateKey;

use crate::gate::auth;
use crate::lane::Stage;
use crate::reactor::Reactor;
use crate::slab::Key;

/// What a lane has claimed, until GO is answered.
pub(crate) struct LaneClaim {
    identity: Identity,
    claim: Claim,
}

impl Reactor {
    /// Whether a lane of this device asks its server who it is.
    pub(crate) fn lane_asks_for_gate(&self, key: Key) -> bool {
        let Some(lane) = self.lanes.get(key) else { return false };
        let Some(device) = self.devices.get(lane.device) else { return false };
        // Who only reads has nothing to fence, and a claim would end the sessions of a writer.
        device.program.epoch > 0 && device.path_of(lane.id).is_some_and(|path| !path.read_only)
    }

    /// The server has told which contexts it has: the name to open, and whether it is a claim.
    ///
    /// # Errors
    ///
    /// Why this server must not be used, for an operator.
    pub(crate) fn lane_choose(&mut self, key: Key, listed: &[String], plain: &str) -> Result<String, String> {
        let Some(identity) = gate_among(listed)? else { return Ok(plain.to_owned()) };
        let lane = self.lanes.get(key).expect("only called for lanes in the table");
        let (device_key, id, kill) = (lane.device, lane.id, lane.kill);
        let device = self.devices.get_mut(device_key).expect("a lane's device outlives it");
        let gate_key = self.program.node.gate_key.as_ref();
        check_key(&identity, gate_key)?;
        let session = ring::random::id().map_err(|error| format!("no randomness for a session: {error}"))?;
        let claim = Claim {
            volume: plain.to_owned(),
            epoch: device.program.epoch,
            member: self.program.node.member.clone(),
            session,
            kill: kill.and_then(|lane: LaneId| device.gate_session(lane)),
            fence: None,
        };
        let mac = gate_key.map(|key| auth::sign_claim(key, &claim, &identity));
        let name = claim.to_name(mac.as_ref());
        if !is_valid_name(&name) {
            return Err("the export's name is too long for a claim at its gate".to_owned());
        }
        device.note_gate_session(id, session);
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.claim = Some(Box::new(LaneClaim { identity, claim }));
        Ok(name)
    }

    /// GO was answered: what the engine hears of the gate.
    ///
    /// # Errors
    ///
    /// The server did not admit what was claimed.
    pub(crate) fn lane_admitted(&mut self, key: Key, description: &str) -> Result<Option<GateOffer>, String> {
        let gate_key = self.program.node.gate_key.as_ref();
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        assert!(matches!(lane.stage, Stage::Handshake(_)));
        let Some(claimed) = lane.claim.take() else { return Ok(None) };
        let LaneClaim { identity, claim } = *claimed;
        let Some((admission, mac)) = Admission::parse(description) else {
            return Err("the server told a gate's identity but did not admit our claim".to_owned());
        };
        let right = (admission.session, admission.epoch) == (claim.session, claim.epoch);
        let proven = gate_key.is_none_or(|key| {
            mac.is_some_and(|mac| auth::admission_is_ours(key, &admission, &identity, &mac))
        });
        if !right || !proven {
            return Err("the gate's admission is not an answer to our claim: it has another key".to_owned());
        }
        Ok(Some(GateOffer {
            volume: identity.volume,
            nonce: identity.nonce,
            cache_generation: identity.cache_generation,
            epoch: admission.epoch,
            killed: claim.kill.is_some() && admission.killed,
        }))
    }
}

fn gate_among(listed: &[String]) -> Result<Option<Identity>, String> {
    for context in listed {
        match Identity::parse(context) {
            Ok(identity) => return Ok(Some(identity)),
            Err(IdentityError::NotAGate) => {}
            Err(error) => return Err(format!("the server is {error}")),
        }
    }
    Ok(None)
}

/// Either end without a key where the other has one is a mistake to be told, not a reason to trust less.
fn check_key(identity: &Identity, key: Option<&GateKey>) -> Result<(), String> {
    match (identity.authentication, key) {
        (Authentication::Key, None) => {
            Err("the gate takes claims with its key only: set `gate_key` in [node]".to_owned())
        }
        (Authentication::Local, Some(_)) => {
            Err("the gate has no key, and this node has one: start the gate with --key".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_have_the_key_or_none() {
        let text = |authentication| {
            let id = "0".repeat(32);
            format!("x-holdfast:gate;v=1;u={id};n={id};c={id};g=0;e=0;w=one;a={authentication}")
        };
        let gate = |authentication| {
            gate_among(&["base:allocation".to_owned(), text(authentication)]).unwrap().expect("a gate")
        };
        let key = GateKey([1; 32]);
        assert!(check_key(&gate("key"), Some(&key)).is_ok() && check_key(&gate("local"), None).is_ok());
        assert!(check_key(&gate("key"), None).unwrap_err().contains("gate_key"));
        assert!(check_key(&gate("local"), Some(&key)).unwrap_err().contains("--key"));
        assert!(gate_among(&["base:allocation".to_owned()]).unwrap().is_none());
        assert!(gate_among(&[text("key").replace("v=1", "v=2")]).unwrap_err().contains("version"));
    }
}
