// SPDX-License-Identifier: MIT OR Apache-2.0
//! Acknowledged writes that are gone for good: told to every session until an operator takes note (rule F9).
//!
//! Errors at FLUSH and FUA are the only ones an application reliably acts on. Each loss is an event (`writes_lost`), and all
//! together are one text that outlives this process (`ReportKind::Loss`).

use alloc::format;
use alloc::string::String;

use nbd::{Command, CommandFlags};
use program::ReportKind;

use crate::Action;
use crate::engine::Engine;

/// Longest text that is kept of losses, in bytes; what comes beyond is told as an event alone.
const LOSS_TEXT_BYTES_MAX: usize = 2048;
/// Ends a text that leaves losses out.
const AND_MORE: &str = "; and more";

impl Engine {
    /// After a loss every FLUSH, and every write that must be durable, fails: errors there
    /// are the only ones an application reliably acts on (F9).
    pub(crate) fn must_tell_loss(&self, host: &crate::HostRequest) -> bool {
        let durable = host.command.is_write_like() && host.flags.contains(CommandFlags::FUA);
        self.lost_writes.is_some() && (host.command == Command::Flush || durable)
    }

    /// Acknowledged writes are gone for good (F9).
    pub(crate) fn lose_writes(&mut self, text: String) {
        self.event("writes_lost", None, "F9", text.clone());
        self.decide_loss();
        if !self.rules.f9_sticky {
            return;
        }
        let told = match &self.lost_writes {
            None => text,
            Some(before) => one_more_loss(before.clone(), &text),
        };
        if self.lost_writes.as_ref() != Some(&told) {
            self.act(Action::Report(ReportKind::Loss(Some(told.clone()))));
            self.lost_writes = Some(told);
        }
    }

    pub(crate) fn lose_to_others(&mut self, bytes: u64) {
        if bytes > 0 {
            self.lose_writes(format!(
                "{bytes} bytes were acknowledged and were to be written again (their server lost its cache, or a late copy may have overwritten them), and were not before others were to write this device, too"
            ));
        }
    }
}

/// An operator takes note of all losses at once: each is named, as far as there is room.
fn one_more_loss(mut told: String, text: &str) -> String {
    if told.ends_with(AND_MORE) || told.split("; ").any(|loss| loss == text) {
        return told;
    }
    if told.len() + text.len() > LOSS_TEXT_BYTES_MAX {
        told.push_str(AND_MORE);
    } else {
        told.push_str("; ");
        told.push_str(text);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_named_as_far_as_there_is_room() {
        let named = one_more_loss(String::from("a is lost"), "b is lost");
        assert_eq!(named, "a is lost; b is lost");
        assert_eq!(one_more_loss(named.clone(), "b is lost"), named, "told once");
        let mut told = named;
        for n in 0..1_000 {
            told = one_more_loss(told, &format!("block {n} is lost"));
            assert!(told.len() <= LOSS_TEXT_BYTES_MAX + AND_MORE.len());
        }
        assert!(told.ends_with(AND_MORE) && told.matches(AND_MORE).count() == 1, "{told}");
    }
}
