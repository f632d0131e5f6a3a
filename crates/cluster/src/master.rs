//! The master's loop.
//!
//! ```text
//!   Starting ──each worker ready or failed, one ready──▶ Running ──drain──▶ Draining ──all ended, or grace──▶ over
//!      └──none ready──▶ over (NoWorkers)                    └────────kill────────────────────────────────▶ over
//! ```
//! One epoll set over the listeners, the channels, the workers' pidfds and the handle's eventfd, and one heap of timers; a
//! wake-up looks at what is ready or due, not at every worker. Then, in this order: hear the workers, reap the dead, start
//! what is due, accept, hand out. Nothing here waits for a worker: channels are non-blocking and every queue has a bound.
//!
//! A worker's death is its pidfd. All that it said before is heard first, so "not taken" is then certain, and those
//! connections go back to the queue, which is in the order of their arrival.
//!
//! Handing out chooses a worker for each pending connection and sends each worker its share in one message: with one
//! connection pending that is one message with one descriptor, in a burst up to 16 in one, and the spread is the same.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use baton_address::Listener;
use tokio::sync::oneshot;

use crate::Event;
use crate::addresses::Addresses;
use crate::builder::{Builder, Order, Shared, StartError};
use crate::descriptors::Reserve;
use crate::door::{Door, Sparingly};
use crate::info::SlotInfo;
use crate::message::Hello;
use crate::policy::Burden;
use crate::process::{Process, Waiting};
use crate::watch::{Ready, Watch};

mod accept;
mod hand_out;

/// A worker that dies is replaced after this time, doubled at each further death …
const RESTART_MIN: Duration = Duration::from_millis(50);
/// … up to this …
const RESTART_MAX: Duration = Duration::from_secs(5);
/// … and the count starts anew with a worker that lived this long.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// The place of a worker.
#[derive(Debug, Default)]
struct Slot {
    process: Option<Process>,
    /// Processes started here so far.
    started: u32,
    /// Deaths in a row.
    failures: u32,
    restart_at: Option<Instant>,
    /// Round robin: connections given beyond its turn.
    ahead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting { until: Instant },
    Running,
    Draining { until: Instant },
}

pub(crate) struct Master {
    settings: Builder,
    shared: Arc<Shared>,
    watch: Watch,
    doors: Vec<Door>,
    slots: Vec<Slot>,
    /// In the order of their numbers.
    pending: VecDeque<Waiting>,
    addresses: Addresses,
    refused_said: Sparingly,
    full_said: Sparingly,
    reserve: Reserve,
    next_slot: usize,
    /// Who was given the last connection, and when.
    last_given: Option<(usize, Instant)>,
    /// In a turn of handing out by burden: what each worker has.
    burdens: Vec<Option<Burden>>,
    next_id: u64,
    phase: Phase,
    last_failure: String,
}

impl Master {
    pub fn new(settings: Builder, doors: Vec<Vec<Listener>>, shared: Arc<Shared>) -> io::Result<Master> {
        for listener in doors.iter().flatten() {
            rustix::io::ioctl_fionbio(listener, true)?;
        }
        let mut watch = Watch::new()?;
        watch.add(&shared.wake, Ready::Wake)?;
        let now = Instant::now();
        for index in 0..settings.workers {
            watch.look_at(index, now);
        }
        let slots =
            (0..settings.workers).map(|_| Slot { restart_at: Some(now), ..Slot::default() }).collect();
        Ok(Master {
            watch,
            doors: doors.into_iter().map(Door::new).collect(),
            slots,
            pending: VecDeque::new(),
            addresses: Addresses::new(settings.per_address_max, settings.count_loopback),
            refused_said: Sparingly::default(),
            full_said: Sparingly::default(),
            reserve: Reserve::new()?,
            next_slot: 0,
            last_given: None,
            burdens: Vec::new(),
            next_id: 0,
            phase: Phase::Starting { until: now + settings.ready_within },
            last_failure: "no worker was asked for".to_owned(),
            settings,
            shared,
        })
    }

    /// Runs to the end of the cluster; all workers have ended when it returns.
    pub fn run(mut self, started: oneshot::Sender<Result<(), StartError>>) {
        let mut started = Some(started);
        let mut ready = Vec::new();
        loop {
            let order = *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match (order, self.phase) {
                (Order::Kill, _) => break,
                (Order::Drain, Phase::Starting { .. } | Phase::Running) => self.begin_draining(now),
                _ => {}
            }
            // What a process said before it ended is heard after its end was seen, so deaths come last.
            for what in &ready {
                if let Ready::Channel(index) = what {
                    self.hear(*index, now);
                }
            }
            for what in &ready {
                if let Ready::Death(index) = what {
                    self.reap(*index, now);
                }
            }
            while let Some(index) = self.watch.due(now) {
                self.look_at(index, now);
            }
            match self.phase {
                Phase::Draining { until } => {
                    if until <= now || self.slots.iter().all(|slot| slot.process.is_none()) {
                        break;
                    }
                }
                Phase::Starting { until } => {
                    if let Some(outcome) = self.start_outcome(until <= now) {
                        let failed = outcome.is_err();
                        if let Some(started) = started.take() {
                            let _ = started.send(outcome);
                        }
                        if failed {
                            break;
                        }
                        self.begin_running();
                        ready.clear();
                        continue;
                    }
                }
                Phase::Running if self.settings.policy.is_passing() => {
                    self.accept(now);
                    self.hand_out(now);
                }
                Phase::Running => {}
            }
            self.watch_doors(now);
            self.shared.counts.pending.store(self.pending.len() as u64, Relaxed);
            self.watch.wait(self.next_deadline(now), &mut ready);
            if ready.contains(&Ready::Wake) {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.shared.wake, &mut count);
            }
        }
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            process.kill();
        }
        // Dropping a process waits for its end.
        self.slots.clear();
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).fill(None);
    }

    /// Places that failed meanwhile have waited for this.
    fn begin_running(&mut self) {
        self.phase = Phase::Running;
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(at) = slot.restart_at {
                self.watch.look_at(index, at);
            }
        }
    }

    fn say(&self, event: Event) {
        event.log();
        (self.settings.on_event)(&event);
    }

    fn hear(&mut self, index: usize, now: Instant) {
        let Some(process) = self.slots.get_mut(index).and_then(|slot| slot.process.as_mut()) else { return };
        let heard = process.hear(now);
        if heard.ended
            && let Some(channel) = process.channel.take()
        {
            self.watch.remove(&channel);
        }
        if let Some(until) = process.hold_until.filter(|_| !heard.refused.is_empty()) {
            self.watch.look_at(index, until);
        }
        let pid = process.pid();
        for address in heard.released {
            self.addresses.release(address);
        }
        for refused in heard.refused {
            self.put_back(refused);
        }
        if heard.became_ready {
            self.say(Event::WorkerReady { slot: index, pid });
        }
        self.publish(index);
    }

    fn reap(&mut self, index: usize, now: Instant) {
        let Some(process) = self.slots.get_mut(index).and_then(|slot| slot.process.as_mut()) else { return };
        let Some(status) = process.try_reap() else { return };
        self.hear(index, now);
        self.bury(index, status.to_string(), now);
    }

    fn bury(&mut self, index: usize, status: String, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(mut process) = slot.process.take() else { return };
        self.watch.remove(&process.pidfd);
        if let Some(channel) = &process.channel {
            self.watch.remove(channel);
        }
        if now.duration_since(process.started) >= HEALTHY_AFTER {
            slot.failures = 0;
        }
        if !matches!(self.phase, Phase::Draining { .. }) {
            let at = now + rest(slot.failures);
            slot.restart_at = Some(at);
            self.watch.look_at(index, at);
        }
        slot.failures = slot.failures.saturating_add(1);
        for (_, address) in process.counted.drain() {
            self.addresses.release(address);
        }
        let passed_on = process.unread.len();
        for waiting in std::mem::take(&mut process.unread) {
            self.put_back(waiting);
        }
        self.last_failure = format!("the last one ended with {status}");
        let pid = process.pid();
        self.publish(index);
        self.say(Event::WorkerDied { slot: index, pid, status, passed_on });
    }

    /// A timer of this place has run out: what is to be done there?
    fn look_at(&mut self, index: usize, now: Instant) {
        let starting = matches!(self.phase, Phase::Starting { .. });
        let slot = &mut self.slots[index];
        // While starting, a place that failed once waits until it is known whether the cluster stands at all.
        if slot.restart_at.is_some_and(|at| at <= now) && !(starting && slot.failures > 0) {
            return self.start(index, now);
        }
        let Some(process) = slot.process.as_mut() else { return };
        if process.stuck || !process.watched {
            return;
        }
        let Some(sent) = process.unread.front().and_then(|waiting| waiting.sent) else {
            process.watched = false;
            return;
        };
        let at = sent + self.settings.stuck_after;
        if at > now {
            // A look that came for another reason does not need a second timer for this one.
            if process.stuck_timer <= now {
                process.stuck_timer = at;
                self.watch.look_at(index, at);
            }
            return;
        }
        process.stuck = true;
        process.kill();
        let pid = process.pid();
        self.say(Event::WorkerStuck { slot: index, pid });
    }

    fn start(&mut self, index: usize, now: Instant) {
        self.shared.page.clear(index);
        let settings = &self.settings;
        let passing = settings.policy.is_passing();
        let doors = if passing { &[][..] } else { &self.doors[..] };
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let hello = Hello {
            slot: number(index),
            workers: number(settings.workers),
            connections_max: settings.connections_max,
            per_address_max: settings.per_address_max,
            count_loopback: settings.count_loopback,
            listeners: u16::try_from(doors.len()).unwrap_or(u16::MAX),
        };
        let mut fds = vec![self.shared.page.fd()];
        fds.extend(doors.iter().map(|door| door.listeners[index % door.listeners.len()].as_fd()));
        self.reserve.release();
        let attempt = settings.recipe.start(&hello, &fds).and_then(|process| {
            self.watch.add(&process.pidfd, Ready::Death(index))?;
            if let Some(channel) = &process.channel {
                self.watch.add(channel, Ready::Channel(index))?;
            }
            Ok(process)
        });
        self.reserve.fill();
        let slot = &mut self.slots[index];
        slot.ahead = 0;
        match attempt {
            Ok(process) => {
                let pid = process.pid();
                let generation = slot.started;
                slot.started = slot.started.saturating_add(1);
                slot.restart_at = None;
                slot.process = Some(process);
                self.publish(index);
                self.say(Event::WorkerStarted { slot: index, pid, generation });
            }
            Err(error) => {
                let at = now + rest(slot.failures);
                slot.restart_at = Some(at);
                slot.failures = slot.failures.saturating_add(1);
                self.watch.look_at(index, at);
                self.last_failure = error.to_string();
                self.say(Event::SpawnFailed { slot: index, error: error.to_string() });
            }
        }
    }

    /// Whether the cluster stands: `None` while that is open.
    fn start_outcome(&self, time_is_up: bool) -> Option<Result<(), StartError>> {
        let mut processes = self.slots.iter().filter_map(|slot| slot.process.as_ref());
        let undecided = self.slots.iter().any(|slot| slot.process.is_none() && slot.failures == 0)
            || self.slots.iter().filter_map(|slot| slot.process.as_ref()).any(|process| !process.ready);
        if undecided && !time_is_up {
            return None;
        }
        if processes.any(|process| process.ready) {
            return Some(Ok(()));
        }
        let reason = if undecided {
            format!("none was ready within {} s", self.settings.ready_within.as_secs_f32())
        } else {
            self.last_failure.clone()
        };
        Some(Err(StartError::NoWorkers { wanted: self.settings.workers, reason }))
    }

    fn begin_draining(&mut self, now: Instant) {
        self.doors.clear();
        self.hand_out(now);
        if !self.pending.is_empty() {
            tracing::warn!(
                connections = self.pending.len(),
                "connections that no worker could take are closed"
            );
            self.pending.clear();
        }
        for slot in &mut self.slots {
            slot.restart_at = None;
            if let Some(process) = &slot.process {
                process.close_channel();
            }
        }
        self.phase = Phase::Draining { until: now + self.settings.grace };
    }

    /// What can be asked about this place.
    fn publish(&self, index: usize) {
        let slot = &self.slots[index];
        let info = slot.process.as_ref().map(|process| SlotInfo {
            pid: process.pid(),
            ready: process.ready,
            taken: process.taken,
            unread: process.unread.len() as u64,
            refused: process.refused,
            restarts: slot.started.saturating_sub(1),
            started: process.started,
        });
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)[index] = info;
    }

    /// What has no place, and therefore no timer of its own.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Starting { until } | Phase::Draining { until } => Some(until),
            Phase::Running => None,
        };
        let doors = self.doors.iter().map(|door| door.paused_until);
        doors.chain([phase]).flatten().filter(|at| *at > now).min()
    }
}

fn rest(failures: u32) -> Duration {
    RESTART_MIN.saturating_mul(1 << failures.min(16)).min(RESTART_MAX)
}
