// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames on their way out of one connection.
//!
//! Frames are gathered into messages while at most one message is in the kernel. So all
//! that became ready while the last send was on its way goes out in the next one, and
//! under load one system call carries many replies. An idle connection holds no message.

use std::collections::VecDeque;

use ring::Message;

use crate::limits::MESSAGES_KEPT_MAX;

/// Empty messages for all connections of a reactor, with the memory they grew to.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "the ring needs a message at a stable place; the boxes are what is kept")]
pub(crate) struct Messages(Vec<Box<Message>>);

impl Messages {
    pub(crate) fn take(&mut self) -> Box<Message> {
        self.0.pop().unwrap_or_else(Message::new)
    }

    pub(crate) fn give_back(&mut self, mut message: Box<Message>) {
        if self.0.len() < MESSAGES_KEPT_MAX {
            message.clear();
            self.0.push(message);
        }
    }
}

/// What a message stands for in the accounts of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Frames that end in it.
    pub(crate) frames: u32,
    /// Bytes of the budget they count for.
    pub(crate) charge: usize,
}

/// See the module header.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Box<Message>, Load)>,
    /// Of the message in the kernel.
    in_flight: Option<Load>,
}

impl Outbox {
    /// A message with room for a header and `parts` payload parts, and its account.
    pub(crate) fn room(&mut self, parts: usize, messages: &mut Messages) -> (&mut Message, &mut Load) {
        if !self.waiting.back().is_some_and(|(message, _)| message.has_room(parts)) {
            self.waiting.push_back((messages.take(), Load::default()));
        }
        let (message, load) = self.waiting.back_mut().expect("one was just pushed if there was none");
        (message, load)
    }

    /// Nothing waits and nothing is in the kernel.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none()
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The next message to send, if none is on its way.
    pub(crate) fn next(&mut self) -> Option<Box<Message>> {
        if self.in_flight.is_some() {
            return None;
        }
        let (message, load) = self.waiting.pop_front()?;
        self.in_flight = Some(load);
        Some(message)
    }

    /// The kernel took `sent` bytes of the message. What is left goes first next time.
    /// The account of a message that is through.
    pub(crate) fn sent(
        &mut self,
        mut message: Box<Message>,
        sent: usize,
        messages: &mut Messages,
    ) -> Option<Load> {
        let load = self.in_flight.take().expect("a completion without a send");
        message.advance(sent);
        if message.remaining() > 0 {
            self.waiting.push_front((message, load));
            return None;
        }
        messages.give_back(message);
        Some(load)
    }

    /// The send failed or was cancelled after `sent` bytes: drops the rest of it.
    pub(crate) fn failed(&mut self, message: Box<Message>, messages: &mut Messages) {
        self.in_flight = None;
        messages.give_back(message);
    }

    /// Drops everything that is not in the kernel.
    pub(crate) fn drop_waiting(&mut self, messages: &mut Messages) {
        for (message, _) in self.waiting.drain(..) {
            messages.give_back(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &mut Outbox, messages: &mut Messages, bytes: &[u8]) {
        let (message, load) = outbox.room(0, messages);
        message.push_header(bytes);
        load.frames += 1;
    }

    #[test]
    fn what_comes_while_one_is_sent_goes_out_together() {
        let mut messages = Messages::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut messages, b"a");
        let first = outbox.next().unwrap();
        push(&mut outbox, &mut messages, b"b");
        push(&mut outbox, &mut messages, b"c");
        assert!(outbox.next().is_none(), "one at a time");
        assert_eq!(outbox.sent(first, 1, &mut messages).unwrap().frames, 1);
        let second = outbox.next().unwrap();
        assert_eq!(second.to_vec(), b"bc");
        assert_eq!(outbox.sent(second, 2, &mut messages).unwrap().frames, 2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_short_send_goes_on_before_anything_else() {
        let mut messages = Messages::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut messages, b"abc");
        let first = outbox.next().unwrap();
        push(&mut outbox, &mut messages, b"d");
        assert_eq!(outbox.sent(first, 2, &mut messages), None);
        let rest = outbox.next().unwrap();
        assert_eq!(rest.to_vec(), b"c");
    }

    #[test]
    fn a_full_message_is_followed_by_another() {
        let mut messages = Messages::default();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for index in 0..2000_u32 {
            push(&mut outbox, &mut messages, &index.to_be_bytes());
            push(&mut outbox, &mut messages, &[7; 40]);
            expected.extend(index.to_be_bytes());
            expected.extend([7; 40]);
        }
        let mut got = Vec::new();
        while let Some(message) = outbox.next() {
            got.extend(message.to_vec());
            let len = message.remaining();
            outbox.sent(message, len, &mut messages);
        }
        assert!(got == expected);
    }
}
