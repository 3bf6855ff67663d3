// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which safety rules are in force. For tests only.
//!
//! A suite that cannot fail proves nothing. So each rule that can be left out
//! sensibly has one switch, read at one place of the engine, and the simulator
//! turns each off in turn and must then find the damage (rule T5). Production
//! code makes engines by [`crate::Engine::new`], where every rule is in force;
//! no configuration reaches this type.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One switch for each rule; `true` is in force. See the module header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Rules {
            $($(#[doc = $doc])+ pub $name: bool,)+
        }

        impl Rules {
            /// Every rule in force: what production runs.
            pub const ALL: Self = Self { $($name: true,)+ };

            /// Names of the switches, in order of declaration.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)+];

            /// Every rule but the one of this name in force; `None` if there is none.
            pub fn without(name: &str) -> Option<Self> {
                let mut rules = Self::ALL;
                match name {
                    $(stringify!($name) => rules.$name = false,)+
                    _ => return None,
                }
                Some(rules)
            }
        }
    };
}

rules! {
    /// W3: a write is sent again with the bytes of the first time. Off: with zeroes.
    w3_same_bytes,
    /// W4: a whole frame on a lost connection is in doubt. Off: it counts as never executed.
    w4_doubt,
    /// W4: a write answered while a copy is open keeps its range quarantined.
    w4_quarantine,
    /// W4: the quarantine lasts `quiesce`. Off: a tenth of it.
    w4_quiesce,
    /// W5: with several writers no answer before every copy is proven finished.
    w5_answer_waits,
    /// W6: TRIM and WRITE_ZEROES are cut into pieces, two in flight per device.
    w6_pieces,
    /// W7: EPERM, EINVAL, ENOSPC, EOVERFLOW and ENOTSUP go to the host. Off: they are tried elsewhere.
    w7_definite_errors,
    /// W7, W14: EIO is tried on another path before it is believed.
    w7_second_opinion,
    /// W8: overlapping writes are carried out in the order of their arrival.
    w8_order,
    /// W9: TRIM and WRITE_ZEROES are ordered and quarantined as writes are.
    w9_discards,
    /// W13: with `unproven = "hold"` no timer ends a doubt.
    w13_hold,
    /// W13: what was written over a ghost is written again when the ghost lands.
    w13_repair,
    /// W10: after a crash of our own writes wait for what the old process had in flight.
    w10_recovering,
    /// W10: an end is clean only if nothing may land any more and no cache is unflushed. Off: every end says it is.
    w10_clean_end,
    /// 2.4: a gate finishes a lost session. Off: its writes stay in doubt.
    gate_kill,
    /// W14: a write answered with an error stays quarantined while a copy is open.
    w14_failed_writes,
    /// W15: the last path never gets a second copy of what is in flight on it.
    w15_last_path,
    /// W18: incoherent paths are used one at a time.
    w18_one_path,
    /// W18: on incoherent paths every write carries FUA.
    w18_write_through,
    /// W20: an active-passive switch waits for the old path's requests.
    w20_exclusive,
    /// W20: the path that takes over waits for a gate's word on the one before it.
    w20_gate_word,
    /// F1: every path has a cache domain of its own unless declared otherwise. Off: all share one.
    f1_domains,
    /// F2: a FLUSH goes to every dirty domain. Off: to the first.
    f2_every_domain,
    /// F2: a FLUSH waits until a replay has ended.
    f2_replay_first,
    /// F3: a write that is sent again keeps its FUA.
    f3_fua_kept,
    /// F3, 3.3: where a server has no FUA, the write is followed by a FLUSH.
    f3_fua_emulated,
    /// F4: a FLUSH whose lane is lost is sent again. Off: it counts as done.
    f4_flush_again,
    /// F5: one history for the device. Off: one for each cache, so that what was written over through another comes back.
    f5_one_history,
    /// F6: what a lost cache held is written again. Off: it counts as stable.
    f6_replay,
    /// F6: a read of what is still to be written again waits.
    f6_reads_wait,
    /// F7: several writers without a gate write through.
    f7_write_through,
    /// F9: after a loss that cannot be mended FLUSH and FUA fail.
    f9_sticky,
    /// F9: an orderly end makes stable what is acknowledged, or tells that it is lost. Off: neither.
    f9_end_settles,
    /// F9: a failed FLUSH fails the next one of every session. Off: only its own.
    f9_every_session,
    /// F10: a FLUSH with nothing dirty asks the storage all the same.
    f10_never_noop,
    /// F11, 3.3: a server that does not fit what hosts were told is turned away.
    f11_geometry,
    /// 3.8: a server must prove to be the same device before it carries host I/O.
    identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_turns_one_rule_off() {
        for name in Rules::NAMES {
            assert_ne!(Rules::without(name), Some(Rules::ALL), "{name} switches nothing");
            assert!(Rules::without(name).is_some());
        }
        assert_eq!(Rules::without("w99"), None);
    }
}
