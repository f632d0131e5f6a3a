//! What a streaming method sends through.

use std::borrow::Cow;
use std::marker::PhantomData;

use baton_wire::json_frame::{EncodeError, ResultOut, code, encode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::RpcError;

/// Items that wait between a method and its connection, beyond those that wait for the socket.
const WAITING: usize = 4;

/// The answers of a subscription, one after the other. [`Feed::send`] waits while the caller is slow: a method is never
/// ahead of its caller by more than a few items and [`Limits::unsent_bytes`](crate::Limits::unsent_bytes).
#[derive(Clone, Debug)]
pub struct Feed<T> {
    items: mpsc::Sender<Vec<u8>>,
    id: Box<RawValue>,
    out: &'static str,
    max: usize,
    of: PhantomData<fn(&T)>,
}

impl<T: Serialize> Feed<T> {
    pub(crate) fn new(id: Box<RawValue>, out: &'static str, max: usize) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (items, received) = mpsc::channel(WAITING);
        (Feed { items, id, out, max, of: PhantomData }, received)
    }

    /// Sends one item, as soon as there is room for it.
    ///
    /// # Errors
    /// [`code::ANSWER_TOO_LARGE`] (nothing is sent, the next item may be), [`code::INTERNAL`] if the item has no JSON
    /// form, [`code::CANCELLED`] once nobody listens any more.
    pub async fn send(&self, item: &T) -> Result<(), RpcError> {
        let frame = answer_frame(self.out, item, Some(&self.id), true, self.max)?;
        let gone =
            |_| RpcError::new(code::CANCELLED, format!("nobody listens to this `{}` any more", self.out));
        self.items.send(frame).await.map_err(gone)
    }

    /// Waits until nobody listens any more: of use to tasks that the method has started; the method itself is dropped.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

/// The frame of an answer.
pub(crate) fn answer_frame<R: Serialize + ?Sized>(
    out: &str,
    result: &R,
    id: Option<&RawValue>,
    more: bool,
    max: usize,
) -> Result<Vec<u8>, RpcError> {
    encode(&ResultOut { out, result, id, more }, max).map_err(|error| match error {
        EncodeError::TooLarge(_) => RpcError {
            code: Cow::Borrowed(code::ANSWER_TOO_LARGE),
            message: format!("the answer `{out}` is {error}"),
        },
        EncodeError::Json(_) => RpcError::internal(format!("the answer `{out}`: {error}")),
    })
}
