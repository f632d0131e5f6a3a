//! The master's loop.
//!
//! ```text
//!   Starting ──each worker ready or failed, one ready──▶ Running ──drain──▶ Draining ──all ended, or grace──▶ over
//!      └──none ready──▶ over (NoWorkers)                    └────────kill────────────────────────────────▶ over
//! ```
//! One `poll` over the listeners, the channels, the workers' pidfds and the handle's eventfd; then, in this order: hear
//! the workers, reap the dead, start what is due, accept, hand out. Nothing here waits for a worker: channels are
//! non-blocking and every queue has a bound.
//!
//! A worker's death is its pidfd. All that it said before is heard first, so "not taken" is then certain, and those
//! connections go to the front of the queue in their order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use baton_address::Listener;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::sync::oneshot;

use crate::builder::{Builder, Order, Shared, StartError, WorkerInfo};
use crate::message::Give;
use crate::process::{Process, Sent, Waiting};
use crate::{ConnectionId, Event, Peer};

/// Rest after an accept that failed for lack of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections accepted in one turn from one listener, so that a flood does not keep the loop from the workers.
const ACCEPT_BATCH: usize = 64;
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
}

struct Door {
    listener: Listener,
    paused_until: Option<Instant>,
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
    doors: Vec<Door>,
    slots: Vec<Slot>,
    pending: VecDeque<Waiting>,
    next_slot: usize,
    next_id: u64,
    phase: Phase,
    last_failure: String,
}

impl Master {
    pub fn new(settings: Builder, listeners: Vec<Listener>, shared: Arc<Shared>) -> io::Result<Master> {
        let mut doors = Vec::new();
        for listener in listeners {
            rustix::io::ioctl_fionbio(&listener, true)?;
            doors.push(Door { listener, paused_until: None });
        }
        let now = Instant::now();
        let slots =
            (0..settings.workers).map(|_| Slot { restart_at: Some(now), ..Slot::default() }).collect();
        let phase = Phase::Starting { until: now + settings.ready_within };
        Ok(Master {
            settings,
            shared,
            doors,
            slots,
            pending: VecDeque::new(),
            next_slot: 0,
            next_id: 0,
            phase,
            last_failure: "no worker was asked for".to_owned(),
        })
    }

    /// Runs to the end of the cluster; all workers have ended when it returns.
    pub fn run(mut self, started: oneshot::Sender<Result<(), StartError>>) {
        let mut started = Some(started);
        loop {
            let order = *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match (order, self.phase) {
                (Order::Kill, _) => break,
                (Order::Drain, Phase::Starting { .. } | Phase::Running) => self.begin_draining(now),
                _ => {}
            }
            self.hear_and_reap(now);
            match self.phase {
                Phase::Draining { until } => {
                    if until <= now || self.slots.iter().all(|slot| slot.process.is_none()) {
                        break;
                    }
                }
                Phase::Starting { until } => {
                    self.start_due(now);
                    if let Some(outcome) = self.start_outcome(until <= now) {
                        let failed = outcome.is_err();
                        if let Some(started) = started.take() {
                            let _ = started.send(outcome);
                        }
                        if failed {
                            break;
                        }
                        self.phase = Phase::Running;
                        continue;
                    }
                }
                Phase::Running => {
                    self.start_due(now);
                    self.end_stuck(now);
                    self.accept(now);
                    self.hand_out(now);
                }
            }
            self.publish();
            self.wait(now);
        }
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            process.kill();
        }
        // Dropping a process waits for its end.
        self.slots.clear();
        self.publish();
    }

    fn say(&self, event: Event) {
        event.log();
        (self.settings.on_event)(&event);
    }

    /// Hears every worker, and takes leave of those that have ended.
    fn hear_and_reap(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let Some(process) = self.slots[index].process.as_mut() else { continue };
            // In this order: what a process said before it ended is heard after its end was seen.
            let status = process.try_reap();
            let heard = process.hear(now);
            let pid = process.pid();
            for refused in heard.refused.into_iter().rev() {
                self.pending.push_front(refused);
            }
            if heard.became_ready {
                self.say(Event::WorkerReady { slot: index, pid });
            }
            if let Some(status) = status {
                self.bury(index, status.to_string(), now);
            }
        }
    }

    fn bury(&mut self, index: usize, status: String, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(mut process) = slot.process.take() else { return };
        let passed_on = process.unread.len();
        while let Some(waiting) = process.unread.pop_back() {
            self.pending.push_front(waiting);
        }
        if now.duration_since(process.started) >= HEALTHY_AFTER {
            slot.failures = 0;
        }
        slot.restart_at = Some(now + rest(slot.failures));
        slot.failures = slot.failures.saturating_add(1);
        self.last_failure = format!("the last one ended with {status}");
        let pid = process.pid();
        self.say(Event::WorkerDied { slot: index, pid, status, passed_on });
    }

    /// Starts the workers whose time has come.
    fn start_due(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if self.slots[index].restart_at.is_none_or(|at| at > now) {
                continue;
            }
            // While starting, a place that failed once waits until it is known whether the cluster stands at all.
            if matches!(self.phase, Phase::Starting { .. }) && self.slots[index].failures > 0 {
                continue;
            }
            let attempt = self.settings.recipe.start();
            let slot = &mut self.slots[index];
            match attempt {
                Ok(process) => {
                    let pid = process.pid();
                    let generation = slot.started;
                    slot.started = slot.started.saturating_add(1);
                    slot.restart_at = None;
                    slot.process = Some(process);
                    self.say(Event::WorkerStarted { slot: index, pid, generation });
                }
                Err(error) => {
                    slot.restart_at = Some(now + rest(slot.failures));
                    slot.failures = slot.failures.saturating_add(1);
                    self.last_failure = error.to_string();
                    self.say(Event::SpawnFailed { slot: index, error: error.to_string() });
                }
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

    fn end_stuck(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let stuck_after = self.settings.stuck_after;
            let Some(process) = self.slots[index].process.as_mut() else { continue };
            let oldest = process.unread.front().and_then(|waiting| waiting.sent);
            if !process.stuck && oldest.is_some_and(|sent| now.duration_since(sent) >= stuck_after) {
                process.stuck = true;
                process.kill();
                let pid = process.pid();
                self.say(Event::WorkerStuck { slot: index, pid });
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for index in 0..self.doors.len() {
            let door = &mut self.doors[index];
            if door.paused_until.is_some_and(|until| until > now) {
                continue;
            }
            door.paused_until = None;
            for _ in 0..ACCEPT_BATCH {
                if self.pending.len() >= self.settings.pending_max {
                    return;
                }
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match rustix::net::acceptfrom_with(&door.listener, flags) {
                    Ok((socket, peer)) => {
                        let peer = peer.and_then(|peer| peer.try_into().ok()).map_or(Peer::Unix, Peer::Tcp);
                        let id = ConnectionId(self.next_id);
                        self.next_id += 1;
                        let listener = u16::try_from(index).unwrap_or(u16::MAX);
                        self.pending.push_back(Waiting {
                            give: Give { id, listener, peer },
                            socket,
                            sent: None,
                        });
                    }
                    Err(Errno::AGAIN) => break,
                    // The client has gone again: the next one is not affected.
                    Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                    Err(error) => {
                        door.paused_until = Some(now + ACCEPT_REST);
                        let event = Event::AcceptPaused { listener: index, error: error.to_string() };
                        event.log();
                        (self.settings.on_event)(&event);
                        break;
                    }
                }
            }
        }
    }

    /// Sends what is pending, each to the next worker in turn that can take it.
    fn hand_out(&mut self, now: Instant) {
        while let Some(waiting) = self.pending.pop_front() {
            let count = self.slots.len();
            let open = (0..count).map(|step| (self.next_slot + step) % count).find(|&index| {
                let process = self.slots[index].process.as_ref();
                process.is_some_and(|process| process.is_open(now, self.settings.unread_max))
            });
            let Some(index) = open else { return self.pending.push_front(waiting) };
            let Some(process) = self.slots[index].process.as_mut() else { continue };
            match process.send(waiting, now) {
                Sent::Yes => self.next_slot = (index + 1) % count,
                // It is held now, so the search goes on without it.
                Sent::NotNow(waiting) => self.pending.push_front(waiting),
            }
        }
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

    fn publish(&self) {
        let workers = self.slots.iter().enumerate().filter_map(|(slot, state)| {
            let process = state.process.as_ref()?;
            Some(WorkerInfo { slot, pid: process.pid(), ready: process.ready, taken: process.taken })
        });
        let mut shared = self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner);
        shared.clear();
        shared.extend(workers);
    }

    /// When to look again although nothing was heard. What was due at `now` has been dealt with, or has to wait for an
    /// event (a rest that is over does not make room in a full queue).
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Starting { until } | Phase::Draining { until } => Some(until),
            Phase::Running => None,
        };
        let starting = matches!(self.phase, Phase::Starting { .. });
        let slots = self.slots.iter().flat_map(|slot| {
            let process = slot.process.as_ref();
            let oldest = process.filter(|process| !process.stuck).and_then(|process| process.unread.front());
            let stuck = oldest.and_then(|waiting| waiting.sent).map(|sent| sent + self.settings.stuck_after);
            let hold = process.and_then(|process| process.hold_until).filter(|_| !self.pending.is_empty());
            [slot.restart_at.filter(|_| !starting), stuck, hold]
        });
        let doors = self.doors.iter().map(|door| door.paused_until);
        slots.chain(doors).chain([phase]).flatten().filter(|at| *at > now).min()
    }

    /// Waits until something happens.
    fn wait(&self, now: Instant) {
        let accepting = self.phase == Phase::Running && self.pending.len() < self.settings.pending_max;
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        for process in self.slots.iter().filter_map(|slot| slot.process.as_ref()) {
            fds.push(PollFd::new(&process.pidfd, PollFlags::IN));
            let channel: Option<&OwnedFd> = process.channel.as_ref();
            fds.extend(channel.map(|channel| PollFd::new(channel, PollFlags::IN)));
        }
        if accepting {
            let open = self.doors.iter().filter(|door| door.paused_until.is_none_or(|until| until <= now));
            fds.extend(open.map(|door| PollFd::new(&door.listener, PollFlags::IN)));
        }
        let timeout = self.next_deadline(now).map(|at| {
            // Never zero for a deadline ahead: the system's clock has no finer step than this.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        // An interrupted or failed wait only means looking again.
        let woken = rustix::event::poll(&mut fds, timeout.as_ref());
        if woken.is_err_and(|error| error != Errno::INTR) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }
}

fn rest(failures: u32) -> Duration {
    RESTART_MIN.saturating_mul(1 << failures.min(16)).min(RESTART_MAX)
}
