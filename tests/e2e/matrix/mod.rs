// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ghost matrix (rule T4): where a write can hide x how its path fails x what it is x
//! access policy x protection (plain in both modes, and a gate on every path).
//!
//! Every case is the same story. A host that never times out (T2) writes X and flushes it,
//! then sends A over path `a`, where it is stalled; the path fails; Holdfast sends A again
//! over path `b` and answers it; the host writes B over it; then the stalled copy is let
//! loose. In the end the storage must hold B, or, with `unproven = "hold"`, B was answered
//! EIO and the storage holds A or B.
//!
//! A case in which nothing was stalled, or whose copy was not executed late where it can
//! be, fails (T6): the storage servers are real nbd-servers that are watched from inside
//! ([`tests_support::servers::Trace`]). What becomes of the stalled copy ([`cell::fate`]) on plain
//! servers:
//!
//! | stalled in | reset | end of file | silent link | silent server |
//! |---|---|---|---|---|
//! | the server's receive queue | executed late | executed late | executed late | executed late, answered |
//! | execution | executed late | executed late | executed late | executed late, answered |
//! | a relay in the network | executed late | executed late | executed late | executed late, answered |
//! | our own send queue | discarded (W1) | discarded (W1) | discarded (W1) | executed late, answered |
//!
//! Behind gates everything is discarded but what is in execution, and B is answered while A is
//! still stalled: the gate finishes A's session first (2.4), an event tells so, and no timer is
//! short enough to have helped. What is in execution is waited for, however long it takes.
//!
//! What cannot exist, and why it is not in the table: single packets that are late in the
//! network after a reset or an end of file of the *server* find no connection any more and
//! are answered with a reset; so the network that delivers late is a relay, which ends the
//! two TCP connections apart. Packets lost in the network stay in our own send queue: that
//! is the silent link of the last row.
//!
//! All cases of one place to hide run at once, each on a device of its own, so the whole
//! matrix costs little more than one case of each row.

mod case;
mod cell;
mod run;
mod side;
mod site;

use cell::Stall;

#[test]
fn a_ghost_in_the_servers_receive_queue_never_wins() {
    run::run(Stall::ReceiveQueue);
}

#[test]
fn a_ghost_in_execution_never_wins() {
    run::run(Stall::Execution);
}

#[test]
fn a_ghost_in_our_send_queue_never_wins() {
    run::run(Stall::SendQueue);
}

#[test]
fn a_ghost_in_the_network_never_wins() {
    run::run(Stall::Network);
}
