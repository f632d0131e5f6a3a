//! Giving what is pending to the workers.

use std::time::{Duration, Instant};

use super::Master;
use crate::message::BATCH;
use crate::policy::{self, Burden};
use crate::process::Waiting;
use crate::{Event, Policy};

/// A worker that was given a connection so recently is taken to be awake still.
const AWAKE: Duration = Duration::from_millis(1);

impl Master {
    /// Back to the queue, in its place.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        let at = self.pending.partition_point(|other| other.give.id < waiting.give.id);
        self.pending.insert(at, waiting);
    }

    pub(super) fn hand_out(&mut self, now: Instant) {
        self.burdens.clear();
        let mut chosen = Vec::new();
        loop {
            while let Some(waiting) = self.pending.pop_front() {
                let Some(index) = self.choose(now) else {
                    self.pending.push_front(waiting);
                    break;
                };
                let Some(process) = self.slots[index].process.as_mut() else { continue };
                if process.outbox.is_empty() {
                    chosen.push(index);
                }
                process.outbox.push(waiting);
                if process.outbox.len() >= BATCH {
                    self.flush(index, now);
                    chosen.retain(|other| *other != index);
                }
            }
            let mut failed = false;
            for index in chosen.drain(..) {
                failed |= self.flush(index, now);
            }
            self.burdens.clear();
            // A worker that could not be sent to is held now, so the next round is without it.
            if self.pending.is_empty() || !(failed || self.ask_for_room(now)) {
                return;
            }
        }
    }

    /// Sends what was chosen for this worker; true if something came back.
    fn flush(&mut self, index: usize, now: Instant) -> bool {
        let Some(process) = self.slots[index].process.as_mut() else { return false };
        let back = process.flush(now);
        if !process.watched
            && let Some(sent) = process.unread.front().and_then(|waiting| waiting.sent)
        {
            let at = sent + self.settings.stuck_after;
            process.watched = true;
            process.stuck_timer = at;
            self.watch.look_at(index, at);
        }
        let failed = !back.is_empty();
        if let Some(until) = process.hold_until.filter(|_| failed) {
            self.watch.look_at(index, until);
        }
        for waiting in back {
            self.put_back(waiting);
        }
        if let Some(burden) = self.burdens.get_mut(index).filter(|_| failed) {
            *burden = None;
        }
        self.publish(index);
        failed
    }

    /// How many connections this worker has, if it can be given another one.
    fn has_room(&self, index: usize, now: Instant) -> Option<u64> {
        let process = self.slots[index].process.as_ref()?;
        if !process.is_open(now, self.settings.unread_max) {
            return None;
        }
        let open = process.open(self.shared.page.closed(index));
        (open < u64::from(self.settings.connections_max)).then_some(open)
    }

    fn choose(&mut self, now: Instant) -> Option<usize> {
        let chosen = match self.settings.policy {
            Policy::LeastConnections => self.choose_least(false, now),
            Policy::LeastLoad => self.choose_least(true, now),
            Policy::RoundRobin | Policy::ReusePort | Policy::Shared => self.choose_in_turn(now),
        }?;
        self.next_slot = (chosen + 1) % self.slots.len();
        Some(chosen)
    }

    fn choose_in_turn(&mut self, now: Instant) -> Option<usize> {
        if let Some((index, at)) = self.last_given
            && now.duration_since(at) < AWAKE
            && self.slots[index].ahead + 1 < self.settings.spread_max
            && self.has_room(index, now).is_some()
        {
            self.slots[index].ahead += 1;
            self.last_given = Some((index, now));
            return Some(index);
        }
        let count = self.slots.len();
        let mut found_any = true;
        let mut step = 0;
        while found_any {
            found_any = false;
            for _ in 0..count {
                let index = (self.next_slot + step) % count;
                step += 1;
                if self.has_room(index, now).is_none() {
                    continue;
                }
                if self.slots[index].ahead == 0 {
                    self.last_given = Some((index, now));
                    return Some(index);
                }
                // It has had this turn already.
                self.slots[index].ahead -= 1;
                found_any = true;
            }
        }
        None
    }

    fn choose_least(&mut self, by_load: bool, now: Instant) -> Option<usize> {
        if self.burdens.is_empty() {
            self.burdens = (0..self.slots.len())
                .map(|index| Some(Burden::new(self.has_room(index, now)?, &self.shared.page.read(index))))
                .collect();
        }
        let expected = by_load.then(|| policy::expected(&self.burdens));
        let index = policy::least(&self.burdens, expected, self.next_slot)?;
        let max = u64::from(self.settings.connections_max);
        let burden = self.burdens[index].as_mut()?;
        burden.open += 1;
        let process = self.slots[index].process.as_ref()?;
        // The one that is about to be put into the outbox is not there yet.
        let waiting = process.unread.len() + process.outbox.len() + 1;
        if burden.open >= max || waiting >= self.settings.unread_max {
            self.burdens[index] = None;
        }
        Some(index)
    }

    /// All that could take a connection have as many as they may: asks them to say when they close one. True if one was
    /// closed just now.
    fn ask_for_room(&mut self, now: Instant) -> bool {
        let mut full = false;
        for index in 0..self.slots.len() {
            let process = self.slots[index].process.as_ref();
            if process.is_none_or(|process| !process.is_open(now, self.settings.unread_max)) {
                continue;
            }
            if self.has_room(index, now).is_none() {
                self.shared.page.want(index);
                full = true;
            }
            if self.has_room(index, now).is_some() {
                return true;
            }
        }
        if full && self.full_said.count(now).is_some() {
            self.say(Event::AllFull { pending: self.pending.len() });
        }
        false
    }
}
