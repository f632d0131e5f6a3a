//! The caller's end of a streaming method.
//!
//! ```text
//!   subscribe ─▶ item ─▶ item ─▶ … ─▶ the end: None, for good
//!                  └─ error answer, broken, not understood ─▶ an error, then None
//!   dropped at any time: the connection closes, and the server drops the method
//! ```

use std::io;
use std::marker::PhantomData;

use baton_address::Stream;
use baton_wire::json_frame::{Answer, DEFAULT_MAX_BODY, Decoder, Reply, RequestOut, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Shared;
use crate::{CallError, RpcError};

/// Bytes taken by one read.
const READ_BYTES: usize = 16 << 10;

/// A subscription: [`Client::subscribe`](crate::Client::subscribe) makes it, dropping it ends it.
#[derive(Debug)]
pub struct Subscription<T> {
    /// `None` after the end.
    stream: Option<Stream>,
    decoder: Decoder,
    buffer: Vec<u8>,
    uri: String,
    method: String,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    pub(crate) async fn begin<P>(shared: &Shared, method: &str, params: &P) -> Result<Self, CallError>
    where
        P: Serialize + ?Sized,
    {
        let id = RawValue::from_string("1".to_owned()).ok();
        let request = RequestOut { method, params, id: id.as_deref(), notify: false };
        let frame = encode(&request, DEFAULT_MAX_BODY)
            .map_err(|source| CallError::Encode { method: method.to_owned(), source })?;
        let uri = shared.uri.clone();
        let mut stream = match shared.connect().await {
            Ok(stream) => stream,
            Err(source) => return Err(CallError::Connect { uri, source }),
        };
        if let Err(source) = stream.write_all(&frame).await {
            return Err(CallError::Disconnected { uri, method: method.to_owned(), source });
        }
        Ok(Subscription {
            stream: Some(stream),
            decoder: Decoder::new(DEFAULT_MAX_BODY),
            buffer: vec![0; READ_BYTES],
            uri,
            method: method.to_owned(),
            of: PhantomData,
        })
    }

    /// The next item; `None` once the method has ended. Waits as long as there is no news (`tokio::time::timeout` bounds
    /// it: nothing is lost if this future is dropped). While it is not called the server waits.
    ///
    /// # Errors
    /// [`CallError`]. After one, there is nothing more.
    pub async fn next(&mut self) -> Result<Option<T>, CallError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let outcome = next_item(stream, &mut self.decoder, &mut self.buffer).await;
        if !matches!(outcome, Ok(Some(_))) {
            self.stream = None;
        }
        outcome.map_err(|broken| match broken {
            Broken::Io(source) => {
                CallError::Disconnected { uri: self.uri.clone(), method: self.method.clone(), source }
            }
            Broken::Answer(error) => CallError::Remote(error),
            Broken::Nonsense(reason) => {
                CallError::Decode { uri: self.uri.clone(), method: self.method.clone(), reason }
            }
        })
    }
}

enum Broken {
    Io(io::Error),
    Answer(RpcError),
    Nonsense(String),
}

async fn next_item<T: DeserializeOwned>(
    stream: &mut Stream,
    decoder: &mut Decoder,
    buffer: &mut [u8],
) -> Result<Option<T>, Broken> {
    loop {
        if let Some(body) = decoder.next_body().map_err(|error| Broken::Nonsense(error.to_string()))? {
            let answer = Answer::parse(body).map_err(|error| Broken::Nonsense(error.to_string()))?;
            return match answer.reply {
                Reply::Error(error) => {
                    Err(Broken::Answer(RpcError::new(error.code.into_owned(), error.message)))
                }
                Reply::Result { .. } if !answer.more => Ok(None),
                Reply::Result { result, .. } => serde_json::from_str(result)
                    .map(Some)
                    .map_err(|error| Broken::Nonsense(error.to_string())),
            };
        }
        let read = stream.read(buffer).await.map_err(Broken::Io)?;
        if read == 0 {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        decoder.push(&buffer[..read]);
    }
}
