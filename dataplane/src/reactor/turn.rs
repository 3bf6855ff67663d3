// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop.
//!
//! What is ready is sent by plain system calls at the end of the turn, and by the ring
//! only when a socket takes no more: a send on the ring would end at once and wake us for
//! nothing. Time limits are an alarm on the ring that stays set, not an argument of every
//! wait: programming the timer twice per turn cost more than everything else (measured
//! on a virtual machine, 18 against 8 us of CPU per request), which also rules out waiting
//! for several completions with a short limit.
//!
//! Timers fire only when the ring has nothing more to say (rule W17).

use program::Nanos;
use ring::Wait;
use ring::clock::boottime_ns;

use crate::limits::{GATHER_MAX, GATHER_PAUSE, GATHER_REQUESTS_MIN, REAP_ROUNDS_MAX, SWEEP, TRIM};
use crate::log;
use crate::reactor::{Conn, Reactor};
use crate::slab::Key;
use crate::spin::SPIN_MAX;
use crate::timers::Due;
use crate::tokens::{Asked, token};

impl Reactor {
    /// Runs until the shutdown is complete.
    pub(crate) fn run(mut self) {
        while !self.done {
            self.end_turn();
            self.wait();
            self.reap();
            self.gather();
            self.fire_timers();
            self.check_stopped();
        }
    }

    /// Queues what this turn has made ready.
    fn end_turn(&mut self) {
        self.serve_memory_queue();
        self.run_events();
        while let Some(conn) = self.dirty.pop() {
            match conn {
                Conn::Session(key) => self.session_send(key),
                Conn::Lane(key) => self.lane_send_now(key),
                Conn::Handshake(key) => self.handshake_flush(key),
            }
        }
        self.rearm_starved();
        self.set_deadlines();
    }

    /// Chunks are back: arms what found none.
    fn rearm_starved(&mut self) {
        for _ in 0..self.starved.len().min(self.ring.chunks_available()) {
            match self.starved.pop() {
                Some(Conn::Session(key)) => self.session_receive(key),
                Some(Conn::Lane(key)) => self.lane_receive(key),
                Some(Conn::Handshake(key)) => self.handshake_receive(key),
                None => return,
            }
        }
    }

    /// Sets a timer for every engine whose deadline is earlier than its timer.
    fn set_deadlines(&mut self) {
        while let Some(key) = self.touched.pop() {
            let Some(device) = self.devices.get_mut(key) else { continue };
            device.touched = false;
            device.count_hedges(&mut self.budget);
            let retained = device.engine.retained_bytes() as usize;
            let room = self.budget.retain(device.retained_bytes, retained);
            device.retained_bytes = retained;
            device.engine.set_retention_limit(room as u64);
            if let Some(deadline) = device.engine.next_deadline()
                && device.timer_at.is_none_or(|set| deadline < set)
            {
                device.timer_at = Some(deadline);
                self.timers.set(deadline, Due::Device(key));
            }
        }
    }

    fn wait(&mut self) {
        let real = self.look_after_running();
        let now = self.clock.now();
        let next = self.timers.next();
        let limit = next.map(|at| at.saturating_sub(now));
        if limit == Some(0) {
            self.submit(Wait::NONE);
        } else {
            self.set_alarm(next);
            let looks = self.requests.len() < GATHER_REQUESTS_MIN && self.spin.pays(real);
            if !looks || !self.look_for_news() {
                self.sleep();
            }
        }
        let pause = self.clock.waited(boottime_ns(), limit);
        tell_pause(pause);
    }

    fn sleep(&mut self) {
        let from = boottime_ns();
        self.submit(Wait::ONE);
        self.spin.slept(from, boottime_ns());
    }

    /// Submits, and looks for the next event for a moment. `true`: it was taken in.
    fn look_for_news(&mut self) -> bool {
        self.submit(Wait::NONE);
        if self.ring.ready() > 0 {
            return true;
        }
        let from = boottime_ns();
        let mut at = from;
        let mut found = false;
        while !found && at - from < SPIN_MAX {
            std::hint::spin_loop();
            found = self.ring.has_news();
            at = boottime_ns();
        }
        self.spin.looked(from, at, found);
        if found {
            self.submit(Wait::NONE);
        }
        // Task work without a completion is possible: then there is more to wait for.
        self.ring.ready() > 0
    }

    /// Sees to it that the wait ends at the earliest timer. An alarm that turns out to be
    /// too early only costs a turn, so none is ever taken back.
    fn set_alarm(&mut self, next: Option<Nanos>) {
        let Some(at) = next else { return };
        if self.alarm.is_none_or(|(set, _)| at < set) {
            self.alarms = self.alarms.wrapping_add(1);
            let key = Key { index: 0, generation: self.alarms };
            self.alarm = Some((at, key));
            self.ring.alarm(token(Asked::Alarm, key), at - self.clock.now());
        }
    }

    pub(crate) fn alarm_rang(&mut self, key: Key) {
        self.alarm.take_if(|(_, set)| *set == key);
    }

    fn submit(&mut self, wait: Wait) {
        if let Err(error) = self.ring.submit_and_wait(wait) {
            // Nothing can be sent, received or timed any more: an environment error.
            log::error!("io_uring", "the ring does not work any more: {error}");
            std::process::abort();
        }
    }

    fn look_after_running(&mut self) -> Nanos {
        let real = boottime_ns();
        let pause = self.clock.ran(real);
        tell_pause(pause);
        real
    }

    /// Takes in every completion that is there.
    fn reap(&mut self) {
        while let Some(completion) = self.ring.next_completion() {
            self.complete(completion);
            self.run_events();
        }
    }

    /// With several requests in hand, lets whoever else waits for this CPU go on and looks
    /// once more before anything is sent: what comes meanwhile leaves in the same sends.
    /// Where the others keep the CPU for long this is left off for a while.
    fn gather(&mut self) {
        let before = boottime_ns();
        if self.requests.len() < GATHER_REQUESTS_MIN || before < self.gather_again_at {
            return;
        }
        std::thread::yield_now();
        if boottime_ns() - before > GATHER_MAX {
            self.gather_again_at = before + GATHER_PAUSE;
        }
        self.submit(Wait::NONE);
        self.reap();
    }

    /// Fires what is due, after the ring has said everything it has to say.
    fn fire_timers(&mut self) {
        for _ in 0..REAP_ROUNDS_MAX {
            if self.timers.next().is_none_or(|at| at > self.clock.now()) {
                return;
            }
            self.end_turn();
            self.submit(Wait::NONE);
            self.look_after_running();
            if self.ring.ready() == 0 {
                break;
            }
            self.reap();
        }
        let now = self.clock.now();
        while let Some(due) = self.timers.pop(now) {
            self.due(due);
            self.run_events();
        }
    }

    fn due(&mut self, due: Due) {
        let now = self.clock.now();
        match due {
            Due::Device(key) => self.device_due(key),
            Due::Handshake(key) => self.handshake_due(key),
            Due::Linger(key) => self.session_linger_over(key),
            Due::Lane(key) => self.lane_due(key),
            Due::Gate(key) => self.gate_look(key),
            Due::Accept(key) => self.accept_more(key),
            Due::Shutdown => self.stop_now(),
            Due::Sweep => {
                self.sweep_sessions();
                self.gate_sweep();
                self.timers.set(now + SWEEP, Due::Sweep);
            }
            Due::Trim => {
                self.pool.trim_idle();
                self.timers.set(now + TRIM, Due::Trim);
            }
        }
    }

    fn device_due(&mut self, key: Key) {
        let now = self.clock.now();
        let Some(device) = self.devices.get_mut(key) else { return };
        if device.timer_at.is_some_and(|at| at <= now) {
            device.timer_at = None;
        }
        match device.engine.next_deadline() {
            Some(deadline) if deadline <= now => {
                // Second copies are sent here alone, so that what is granted is there.
                device.engine.set_hedge_room(self.budget.hedge_room(self.pool.live_bytes()) as u64);
                self.feed(key, engine::Event::Timer);
                if let Some(device) = self.devices.get_mut(key) {
                    device.count_hedges(&mut self.budget);
                }
            }
            Some(deadline) if device.timer_at.is_none_or(|set| deadline < set) => {
                device.timer_at = Some(deadline);
                self.timers.set(deadline, Due::Device(key));
            }
            _ => {}
        }
    }
}

fn tell_pause(pause: Option<Nanos>) {
    if let Some(pause) = pause {
        log::info!(
            "pause",
            "this process did not run for {} ms; deadlines are moved by that (W17)",
            pause / program::MILLISECOND
        );
    }
}
