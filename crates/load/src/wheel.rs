//! All connections and the one place where the client sleeps.

mod lives;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use self::lives::End;
use crate::LoadError;
use crate::answers::{Found, Judge, UnderWay};
use crate::link::{Link, State, Target};
use crate::plan::{Extent, Pace, Plan};
use crate::request::Writer;
use crate::run::{Progress, nanos};
use crate::share::Shares;
use crate::tally::Tally;

/// Bytes of one read, for all connections.
const READ_BYTES: usize = 64 << 10;
/// Connections that are made at the same time: servers queue a hundred, some no more.
const CONNECTING_MAX: usize = 64;
/// How often time-outs are looked for, at most.
const TICK: u64 = 100_000_000;

/// The client's connections, and what is counted about them.
pub(crate) struct Wheel<'a> {
    plan: &'a Plan,
    target: Target,
    epoll: OwnedFd,
    zero: Instant,
    links: Vec<Link>,
    shares: Shares,
    writer: Writer,
    judge: Judge,
    pub(crate) tally: Tally,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
    /// Links that are to connect.
    queue: VecDeque<usize>,
    connecting: usize,
    up: usize,
    /// Links that rest until then.
    resting: BinaryHeap<Reverse<(u64, usize)>>,
    issuing: bool,
    /// Whether the last request has been issued.
    ended: bool,
    issued: u64,
    /// Requests that are due and not sent.
    due: u64,
    next_number: u64,
    next_tick: u64,
    next_tell: u64,
    /// When something last went well.
    sign_of_life: u64,
    refusal: Option<Errno>,
}

impl<'a> Wheel<'a> {
    pub(crate) fn new(plan: &'a Plan, target: Target) -> Result<Self, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(LoadError::system("open an epoll"))?;
        let shares = Shares::new(plan.connections, plan.hot);
        let link = |is_hot| Link::new(is_hot, plan.answer_bytes_max);
        Ok(Wheel {
            plan,
            target,
            epoll,
            zero: Instant::now(),
            links: shares.is_hot(plan.connections).into_iter().map(link).collect(),
            shares,
            writer: Writer::new(plan),
            judge: Judge::new(plan),
            tally: Tally::new(),
            buffer: vec![0; READ_BYTES],
            events: Vec::with_capacity(256),
            queue: VecDeque::new(),
            connecting: 0,
            up: 0,
            resting: BinaryHeap::new(),
            issuing: false,
            ended: false,
            issued: 0,
            due: 0,
            next_number: 0,
            next_tick: 0,
            next_tell: 1_000_000_000,
            sign_of_life: 0,
            refusal: None,
        })
    }

    /// Nanoseconds since this was made.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.zero.elapsed())
    }

    /// From now on requests are sent.
    pub(crate) fn begin(&mut self) -> u64 {
        self.issuing = true;
        let now = self.now();
        self.sign_of_life = now;
        self.next_tell = now + 1_000_000_000;
        now
    }

    pub(crate) fn is_issuing(&self) -> bool {
        self.issuing
    }

    /// Whether the plan has requests left.
    pub(crate) fn may_issue(&self) -> bool {
        self.issuing && !matches!(self.plan.extent, Extent::Count(count) if self.issued >= count)
    }

    pub(crate) fn is_nothing_due(&self) -> bool {
        self.due == 0
    }

    /// Whether nothing has gone well for so long that nothing will.
    pub(crate) fn is_forsaken(&self) -> bool {
        self.now().saturating_sub(self.sign_of_life) > nanos(self.plan.timeout)
            && self.tally.under_way() == 0
            && (self.due > 0 || self.plan.pace == Pace::Closed)
    }

    /// No more requests; what is due and not sent stays so.
    pub(crate) fn end_issuing(&mut self, counts: bool) {
        self.issuing = false;
        self.ended = true;
        if counts && matches!(self.plan.pace, Pace::Rate(_)) || matches!(self.plan.extent, Extent::Count(_)) {
            self.tally.fates.unsent += self.due;
        }
        self.due = 0;
        self.links.iter_mut().for_each(|link| link.backlog.clear());
    }

    /// Closed loop: everybody begins.
    pub(crate) fn fill_all(&mut self) {
        (0..self.links.len()).for_each(|index| self.fill(index));
    }

    /// Open loop: the next request, which is due then.
    pub(crate) fn issue(&mut self, due: u64) {
        let index = self.shares.next();
        self.issued += 1;
        self.due += 1;
        self.links[index].backlog.push_back(due);
        self.fill(index);
    }

    /// Sends what this connection may send now; without one, asks for one.
    fn fill(&mut self, index: usize) {
        self.fill_one(index);
        // What hot connections have sent has earned others a turn. These earn nobody anything.
        while self.plan.pace == Pace::Closed && self.plan.hot.is_some() && self.may_issue() {
            let Some(index) = self.shares.take_earned() else { break };
            self.issued += 1;
            self.due += 1;
            let now = self.now();
            self.links[index].backlog.push_back(now);
            self.fill_one(index);
        }
    }

    fn fill_one(&mut self, index: usize) {
        let now = self.now();
        loop {
            let may_issue = self.may_issue() && self.plan.pace == Pace::Closed;
            let link = &mut self.links[index];
            let has_work = !link.backlog.is_empty() || (link.is_hot && may_issue);
            if !has_work || link.pending.len() >= self.plan.depth {
                break;
            }
            if !matches!(link.state, State::Up { .. }) {
                if self.plan.per_connection.is_some() && link.backlog.is_empty() {
                    // A connection made for a request is part of it: it is due from now on.
                    link.backlog.push_back(now);
                    self.issued += 1;
                    self.due += 1;
                }
                return self.want(index);
            }
            if self.plan.per_connection.is_some_and(|most| link.sent >= most) {
                break;
            }
            let due = match link.backlog.pop_front() {
                Some(due) => {
                    self.due -= 1;
                    due
                }
                None => {
                    self.issued += 1;
                    if self.plan.hot.is_some() {
                        self.shares.earn();
                    }
                    now
                }
            };
            let number = self.next_number;
            self.next_number += 1;
            self.writer.write(&mut link.out, index, number);
            link.pending.push_back(UnderWay { number, due, sent: now });
            link.sent += 1;
            self.tally.sent(now);
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let link = &mut self.links[index];
        let wants_room = !link.flush();
        if wants_room != link.is_watched_for_room
            && let State::Up { socket } = &link.state
        {
            let room = if wants_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(index as u64);
            // The socket is registered; should this fail, the time-out ends the connection.
            let _ = epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN | room);
            link.is_watched_for_room = wants_room;
        }
    }

    /// Sleeps until something happens, or until `wake`, and deals with it.
    pub(crate) fn turn(
        &mut self,
        wake: Option<u64>,
        tell: &mut dyn FnMut(&Progress),
    ) -> Result<(), LoadError> {
        let now = self.now();
        if now >= self.next_tick {
            self.next_tick = now + TICK.min(nanos(self.plan.timeout) / 4);
            self.look_for_time_outs(now);
        }
        if now >= self.next_tell {
            self.next_tell = now + 1_000_000_000;
            self.report(tell);
        }
        while self.resting.peek().is_some_and(|Reverse((until, _))| *until <= now) {
            if let Some(Reverse((_, index))) = self.resting.pop() {
                self.queue.push_back(index);
            }
        }
        while self.connecting < CONNECTING_MAX {
            let Some(index) = self.queue.pop_front() else { break };
            self.links[index].is_queued = false;
            self.connect(index)?;
        }
        let first_rest = self.resting.peek().map(|Reverse((until, _))| *until);
        let until =
            [Some(self.next_tick), Some(self.next_tell), first_rest, wake].into_iter().flatten().min();
        let rest = Duration::from_nanos(until.unwrap_or(now).saturating_sub(self.now()));
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&rest)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(LoadError::system("wait for answers")(errno)),
        }
        for event in &events {
            self.happened(event.data.u64() as usize, event.flags);
        }
        self.events = events;
        Ok(())
    }

    fn happened(&mut self, index: usize, flags: epoll::EventFlags) {
        match &self.links[index].state {
            State::Resting => {}
            State::Connecting { socket, .. } => {
                self.connecting -= 1;
                match sockopt::socket_error(socket) {
                    Ok(Ok(())) => self.connected(index),
                    Ok(Err(errno)) | Err(errno) => self.failed(index, errno),
                }
            }
            State::Up { .. } => {
                if flags.contains(epoll::EventFlags::OUT) {
                    self.flush(index);
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    self.read(index);
                }
            }
        }
    }

    fn read(&mut self, index: usize) {
        let State::Up { socket } = &self.links[index].state else { return };
        let taken = match recv(socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => return self.end(index, End::Early),
            Ok((taken, _)) => taken,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_reset) => return self.end(index, End::Reset),
        };
        let now = self.now();
        let link = &mut self.links[index];
        link.decoder.push(&self.buffer[..taken]);
        loop {
            let body = match link.decoder.next_body() {
                Ok(Some(body)) => body,
                Ok(None) => break,
                Err(_too_large) => return self.end(index, End::GivenUp),
            };
            let result = self.plan.count_results.then_some(&mut link.result);
            let found = self.judge.judge(index, &mut link.pending, body, result);
            let fates = &mut self.tally.fates;
            let request = match found {
                Found::Right(request) => {
                    fates.right += 1;
                    if self.plan.count_results {
                        self.tally.result(&link.result);
                    }
                    Some(request)
                }
                Found::Wrong(request) => {
                    fates.wrong += 1;
                    Some(request)
                }
                Found::OutOfOrder(request) => {
                    fates.out_of_order += 1;
                    Some(request)
                }
                Found::Refused { request, code } => {
                    let count = if request.is_some() { &mut fates.refused } else { &mut fates.unasked };
                    *count += 1;
                    self.tally.refused(code);
                    request
                }
                Found::Unasked => {
                    fates.unasked += 1;
                    None
                }
            };
            if let Some(request) = request {
                self.tally.answered(request.due, now);
                self.sign_of_life = now;
                link.is_proven = true;
                link.failures = 0;
            }
        }
        let link = &self.links[index];
        if link.pending.is_empty() && self.plan.per_connection.is_some_and(|most| link.sent >= most) {
            self.end(index, End::Done);
        }
        self.fill(index);
    }

    fn report(&mut self, tell: &mut dyn FnMut(&Progress)) {
        tell(&Progress { elapsed: self.zero.elapsed(), requests: self.tally.fates, connections: self.up });
    }

    /// How many connections had which result last.
    pub(crate) fn connections_by_result(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for link in self.links.iter().filter(|link| !link.result.is_empty()) {
            *all.entry(link.result.clone()).or_default() += 1;
        }
        all
    }
}
