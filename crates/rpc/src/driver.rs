//! What one connection does each time it is woken.
//!
//! ```text
//!   poll: stop? ─▶ steps of what runs ─▶ frames that may begin ─▶ one write for all answers ─▶ read ─▶ time
//!           ▲                                                                                   │
//!           └────────────── something moved, and this turn is shorter than 500 µs ──────────────┘
//! ```
//! Everything that runs for the connection is polled here, in one task: nothing is shared, and dropping the task drops the
//! methods that run.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use baton_wire::json_frame::{Decoder, TooLarge, code};
use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::connection::{READ_AHEAD, poll_read_into};
use crate::feed::answer_frame;
use crate::introspect::CANCEL;
use crate::router::Start;
use crate::run::{Run, Step};
use crate::unsent::Unsent;
use crate::{Limits, Router, RpcError};

/// An answer waits no longer than this for others that could go out in the same write.
const BATCH_TIME: Duration = Duration::from_micros(200);
const BATCH_BYTES: usize = 32 << 10;
/// After this, other connections of the thread have their turn.
const TURN: Duration = Duration::from_micros(500);

/// How it ended.
pub(crate) enum Outcome {
    Closed,
    Truncated,
    Failed(io::Error),
    TimedOut,
    HalfFrame,
    TooLarge(TooLarge),
    Stopped,
}

/// Why nothing more is begun.
enum Closing {
    /// The peer has ended its sending; whole frames that it sent before are still served.
    EndOfStream,
    Stop,
    TooLarge(TooLarge),
}

/// A request with an `id` that runs.
struct Ticket {
    abort: AbortHandle,
    streaming: bool,
}

pub(crate) struct Driver<'a, S> {
    stream: S,
    router: &'a Router,
    limits: &'a Limits,
    decoder: Decoder,
    unsent: Unsent,
    /// The request without an `id` that runs.
    turn: Option<Run>,
    /// Those with an `id`.
    runs: SelectAll<Abortable<Run>>,
    tickets: HashMap<Box<str>, Ticket>,
    subscriptions: usize,
    closing: Option<Closing>,
    /// When the last request ended or the last byte came.
    moved: Instant,
    /// When the frame that is on its way was first seen.
    begun: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Driver<'a, S> {
    pub fn new(stream: S, unread: Vec<u8>, router: &'a Router, limits: &'a Limits) -> Self {
        let now = Instant::now();
        let mut decoder = Decoder::new(limits.frame_bytes);
        decoder.push(&unread);
        Driver {
            stream,
            router,
            limits,
            decoder,
            unsent: Unsent::new(now),
            turn: None,
            runs: SelectAll::new(),
            tickets: HashMap::new(),
            subscriptions: 0,
            closing: None,
            moved: now,
            begun: None,
            timer: None,
        }
    }

    /// The stream, and the bytes of it that were read and not served.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.decoder.into_unread())
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Outcome> {
        let woken = Instant::now();
        loop {
            if matches!(self.closing, None | Some(Closing::EndOfStream)) && stop.as_mut().poll(cx).is_ready()
            {
                self.closing = Some(Closing::Stop);
                self.end_subscriptions(Some(&stopping()));
            }
            let mut progress = self.poll_runs(cx);
            progress |= self.begin_frames(cx);
            let was_full = !self.has_room();
            if let Poll::Ready(Err(error)) = self.unsent.poll_write(&mut self.stream, cx) {
                return Poll::Ready(Outcome::Failed(error));
            }
            // What rested for want of room was not asked in this pass, and will not wake anybody again.
            progress |= was_full && self.has_room();
            if !progress {
                if let Some(outcome) = self.ended() {
                    return Poll::Ready(outcome);
                }
                match self.poll_read(cx) {
                    Ok(read) => progress = read,
                    Err(error) => return Poll::Ready(Outcome::Failed(error)),
                }
            }
            if !progress {
                return self.poll_time(cx);
            }
            if woken.elapsed() > TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// While answers pile up, methods rest.
    fn has_room(&self) -> bool {
        self.unsent.len() < self.limits.unsent_bytes
    }

    fn is_running(&self) -> bool {
        self.turn.is_some() || !self.tickets.is_empty()
    }

    fn poll_runs(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.has_room() && !self.runs.is_empty() {
            let Poll::Ready(Some((id, step))) = self.runs.poll_next_unpin(cx) else { break };
            progress = true;
            if let Some(id) = id {
                self.forget(id.get());
            }
            self.take(step);
        }
        if let Some(turn) = &mut self.turn
            && self.unsent.len() < self.limits.unsent_bytes
            && let Poll::Ready(step) = turn.poll_step(cx)
        {
            self.turn = None;
            self.take(step);
            progress = true;
        }
        progress
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Item(frame) | Step::End(Some(frame)) => self.unsent.push(frame),
            Step::End(None) => {}
        }
        self.moved = Instant::now();
    }

    /// Begins whole frames as long as the next one may begin, and answers should not go out first.
    fn begin_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.may_begin() {
            let start = match self.decoder.next_body() {
                Ok(Some(body)) => self.router.start(body, self.limits),
                Ok(None) => break,
                Err(error) => {
                    self.closing = Some(Closing::TooLarge(error));
                    self.end_subscriptions(Some(&stopping()));
                    return true;
                }
            };
            (progress, self.begun) = (true, None);
            self.moved = Instant::now();
            match start {
                Start::Run(run) => self.begin(run, cx),
                Start::Reply(frame) => self.unsent.push(frame),
                Start::Nothing => {}
                Start::Cancel { target, id, notify } => self.cancel(&target, id.as_deref(), notify),
            }
            if self.unsent.len() >= BATCH_BYTES
                || (!self.unsent.is_empty() && self.unsent.clock().elapsed() >= BATCH_TIME)
            {
                break;
            }
        }
        progress
    }

    fn may_begin(&self) -> bool {
        matches!(self.closing, None | Some(Closing::EndOfStream))
            && self.turn.is_none()
            && self.tickets.len() - self.subscriptions < self.limits.in_flight
            && self.has_room()
    }

    fn begin(&mut self, mut run: Run, cx: &mut Context<'_>) {
        let streaming = run.is_streaming();
        if let Some(refused) = self.refuse(&run, streaming) {
            if let Start::Reply(frame) = self.router.refuse(&refused, run.id.as_deref(), run.notify) {
                self.unsent.push(frame);
            }
            return;
        }
        // Most methods are done at once and never wait anywhere.
        if !streaming && let Poll::Ready(step) = run.poll_step(cx) {
            return self.take(step);
        }
        let Some(id) = run.id.as_deref().filter(|_| !run.notify) else {
            self.turn = Some(run);
            return;
        };
        let id: Box<str> = id.get().into();
        let (abort, registration) = AbortHandle::new_pair();
        self.subscriptions += usize::from(streaming);
        self.tickets.insert(id, Ticket { abort, streaming });
        self.runs.push(Abortable::new(run, registration));
    }

    fn refuse(&self, run: &Run, streaming: bool) -> Option<RpcError> {
        let id = run.id.as_deref()?;
        if self.tickets.contains_key(id.get()) {
            let message = format!("a request with the id {} is still under way", id.get());
            return Some(RpcError::new(code::BAD_REQUEST, message));
        }
        if streaming && matches!(self.closing, Some(Closing::EndOfStream)) {
            return Some(stopping());
        }
        (streaming && self.subscriptions >= self.limits.subscriptions).then(|| {
            let message =
                format!("{} subscriptions are open, which is the limit; cancel one", self.subscriptions);
            RpcError::new(code::OVERLOADED, message)
        })
    }

    fn cancel(&mut self, target: &RawValue, id: Option<&RawValue>, notify: bool) {
        let found = self.end(target.get(), Some(&RpcError::new(code::CANCELLED, "cancelled by its caller")));
        if !notify && let Ok(frame) = answer_frame(CANCEL, &found, id, false, usize::MAX) {
            self.unsent.push(frame);
        }
    }

    fn forget(&mut self, id: &str) -> Option<Ticket> {
        let ticket = self.tickets.remove(id)?;
        self.subscriptions -= usize::from(ticket.streaming);
        Some(ticket)
    }

    /// Drops what runs under this id; its caller is told why, if it is still there.
    fn end(&mut self, id: &str, why: Option<&RpcError>) -> bool {
        let Some(ticket) = self.forget(id) else { return false };
        ticket.abort.abort();
        if let Some(why) = why {
            self.router.stats.error(&why.code);
            let id = RawValue::from_string(id.to_owned()).ok();
            self.unsent.push(why.to_frame(id.as_deref()));
        }
        true
    }

    fn end_subscriptions(&mut self, why: Option<&RpcError>) {
        let streaming = self.tickets.iter().filter(|(_, ticket)| ticket.streaming);
        for id in streaming.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.end(&id, why);
        }
    }

    /// The end, once nothing is left to do before it.
    fn ended(&self) -> Option<Outcome> {
        if self.is_running() || !self.unsent.is_empty() {
            return None;
        }
        match self.closing.as_ref()? {
            Closing::EndOfStream if self.decoder.is_at_boundary() => Some(Outcome::Closed),
            Closing::EndOfStream => Some(Outcome::Truncated),
            Closing::Stop => Some(Outcome::Stopped),
            Closing::TooLarge(error) => Some(Outcome::TooLarge(*error)),
        }
    }

    /// True if something came, be it the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        // `may_begin` here means that the decoder has no whole frame: more bytes are needed, however many there are.
        let wanted = self.may_begin() || (self.is_running() && self.decoder.unread() < READ_AHEAD);
        if self.closing.is_some() || !wanted || !self.has_room() {
            return Ok(false);
        }
        match poll_read_into(&mut self.stream, &mut self.decoder, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.closing = Some(Closing::EndOfStream);
                self.moved = Instant::now();
                // Who still wants news keeps its side open: this is the only sign that it is gone.
                self.end_subscriptions(None);
                Ok(true)
            }
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Ends what has waited too long, or arranges to be woken when it will have.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let now = Instant::now();
            let Some((deadline, outcome)) = self.deadline(now) else { return Poll::Pending };
            if deadline <= now {
                return Poll::Ready(outcome);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // One that is set too early is set anew when it fires: most never do.
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What ends the connection next if nothing moves.
    fn deadline(&mut self, now: Instant) -> Option<(Instant, Outcome)> {
        let limits = self.limits;
        if !self.may_begin() {
            self.begun = None; // the rest of the frame may be there: it is this side that does not go on
        } else if self.closing.is_none() && !self.decoder.is_at_boundary() {
            let end = *self.begun.get_or_insert(now) + limits.half_frame;
            if self.unsent.is_empty() {
                return Some((end, Outcome::HalfFrame));
            }
            return Some((end.min(self.unsent.clock() + limits.write), Outcome::TimedOut));
        }
        if !self.unsent.is_empty() {
            return Some((self.unsent.clock() + limits.write, Outcome::TimedOut));
        }
        match self.closing {
            Some(Closing::EndOfStream) if self.is_running() => {
                Some((self.moved + limits.half_close, Outcome::Closed))
            }
            None if !self.is_running() => Some((self.moved + limits.idle, Outcome::TimedOut)),
            _ => None,
        }
    }
}

fn stopping() -> RpcError {
    RpcError::new(code::STOPPING, "this connection is about to be closed; ask again on a new one")
}
