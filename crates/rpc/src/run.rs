//! One request that is being carried out.
//!
//! ```text
//!   started ─▶ method runs ──────────────▶ End(answer | error | nothing for a notification)
//!                │    └─ panicked, past its deadline ─▶ End(error)
//!                └─ a stream's item ─▶ Item, goes on
//!   dropped before its end: the method is dropped at its await, and its guards run
//! ```
//! It is polled by its connection and has no task of its own: when the connection goes, so does the method.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use baton_wire::json_frame::code;
use futures_util::Stream;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::RpcError;
use crate::stats::Meter;

/// The frame of an answer, or the error to be answered.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, RpcError>> + Send>>;

/// What a request gives to the connection.
#[derive(Debug)]
pub(crate) enum Step {
    /// An answer of which more follow.
    Item(Vec<u8>),
    /// The last one; a notification has none.
    End(Option<Vec<u8>>),
}

pub(crate) struct Run {
    pub id: Option<Box<RawValue>>,
    pub notify: bool,
    /// `None` once it has ended.
    answer: Option<Answer>,
    /// What a streaming method has sent and the connection has not taken.
    items: Option<mpsc::Receiver<Vec<u8>>>,
    outcome: Option<Result<Vec<u8>, RpcError>>,
    deadline: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    meter: Meter,
}

impl Run {
    pub fn new(
        answer: Answer,
        items: Option<mpsc::Receiver<Vec<u8>>>,
        deadline: Option<Duration>,
        meter: Meter,
    ) -> Run {
        Run {
            id: None,
            notify: false,
            answer: Some(answer),
            items,
            outcome: None,
            deadline,
            sleep: None,
            meter,
        }
    }

    pub fn is_streaming(&self) -> bool {
        self.items.is_some()
    }

    /// The next step. Not to be polled after [`Step::End`].
    pub fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(answer) = &mut self.answer {
            let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
            let outcome = match polled {
                Ok(Poll::Ready(outcome)) => Some(outcome),
                Ok(Poll::Pending) => self.is_late(cx).then(|| Err(self.too_late())),
                Err(_panic) => Some(Err(panicked())),
            };
            if let Some(outcome) = outcome {
                (self.answer, self.outcome) = (None, Some(outcome));
            }
        }
        if let Some(items) = &mut self.items {
            if self.outcome.is_some() {
                // What a clone of the feed sends from now on would come after the end.
                items.close();
            }
            match items.poll_recv(cx) {
                Poll::Ready(Some(item)) => return Poll::Ready(Step::Item(item)),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.outcome.take() {
            None => Poll::Pending,
            Some(outcome) => {
                self.meter.finish(outcome.as_ref().err().map(|error| &*error.code));
                let frame = outcome.unwrap_or_else(|error| error.to_frame(self.id.as_deref()));
                Poll::Ready(Step::End((!self.notify).then_some(frame)))
            }
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        // Only a method that waits pays for a timer.
        let begun = Instant::from_std(self.meter.begun);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(begun + deadline)));
        sleep.as_mut().poll(cx).is_ready()
    }

    fn too_late(&self) -> RpcError {
        let after = self.deadline.unwrap_or_default().as_secs_f32();
        RpcError::new(code::TIMEOUT, format!("no answer within {after} s; ask for less, or raise the limit"))
    }
}

/// The steps as a stream that ends by itself after the last one.
impl Stream for Run {
    type Item = (Option<Box<RawValue>>, Step);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let run = self.get_mut();
        if run.answer.is_none() && run.outcome.is_none() {
            return Poll::Ready(None);
        }
        run.poll_step(cx).map(|step| {
            let id = if matches!(step, Step::End(_)) { run.id.take() } else { None };
            Some((id, step))
        })
    }
}

pub(crate) fn panicked() -> RpcError {
    RpcError::internal("the method failed unexpectedly; the server's log says where")
}
