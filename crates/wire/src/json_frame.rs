//! Frames of JSON: `u32` little-endian length, then that many bytes of JSON.
//!
//! ```text
//!   request   05 00 00 00 …   {"in": "ping", "params": X}
//!   answer                    {"out": "pong", "result": X}
//!   error (our extension)     {"error": {"code": "unknown_method", "message": "…"}}
//! ```
//!
//! [`Decoder`] takes bytes in whatever pieces they arrive and gives bodies; [`encode`] makes prefix and body in one
//! buffer, so that an answer is one write. The length is a peer's claim:
//!
//! ```text
//!   AtBoundary ──1…3 bytes──▶ InPrefix ──length ≤ limit──▶ InBody ──all there──▶ body, AtBoundary
//!                                └──length > limit──▶ TooLarge (for good: the stream has no next boundary to find)
//! ```
//!
//! It is checked before anything is reserved, and memory grows with the bytes that came, never with the bytes that were
//! announced. A decoder at a boundary holds no buffer, so an idle connection costs nothing here. What a body says is
//! checked apart ([`Request::parse`], [`Reply::parse`]): a bad body leaves the framing intact, and the connection goes on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Bytes of the length before each body.
pub const PREFIX_LEN: usize = 4;

/// The largest body, in bytes, unless configured otherwise: 16 MiB.
pub const DEFAULT_MAX_BODY: usize = 16 << 20;

/// Nesting that the JSON parser goes into before it refuses.
pub const MAX_DEPTH: usize = 127;

/// A frame longer than the limit, announced by a peer or about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes, the limit is {max}; send less at once or raise the limit at both ends")]
pub struct TooLarge {
    /// Length of the body in bytes.
    pub len: usize,
    /// The limit in bytes.
    pub max: usize,
}

/// Finds the frames in a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    /// Unread bytes are `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    max_body: usize,
}

impl Decoder {
    /// A decoder at a frame boundary that accepts bodies of up to `max_body` bytes.
    pub fn new(max_body: usize) -> Self {
        Decoder { buffer: Vec::new(), start: 0, max_body }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start >= self.buffer.len() / 2 {
            // At least as many bytes leave as move, so the cost per byte stays constant.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole body, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`TooLarge`] as soon as the prefix says so, and again at each later call: the boundary is lost for good.
    pub fn next_body(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        let unread = &self.buffer[self.start..];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_LEN>() else {
            if unread.is_empty() {
                // Give the memory back: idle connections are many.
                self.buffer = Vec::new();
                self.start = 0;
            }
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > self.max_body {
            return Err(TooLarge { len, max: self.max_body });
        }
        if rest.len() < len {
            return Ok(None);
        }
        let from = self.start + PREFIX_LEN;
        self.start = from + len;
        Ok(Some(&self.buffer[from..from + len]))
    }

    /// True when no byte of a further frame has arrived: the only place where a stream may end.
    pub fn is_at_boundary(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// The bytes that were pushed and not given out, for whoever goes on with this stream.
    pub fn into_unread(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }
}

/// Why a value could not be made a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its JSON is longer than the limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It has no JSON form (a map with keys that are no text, or its `Serialize` failed).
    #[error("the value has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// One frame in one buffer: the prefix and the JSON of `value`.
///
/// # Errors
/// [`EncodeError`]; nothing is half done.
pub fn encode<T: Serialize + ?Sized>(value: &T, max_body: usize) -> Result<Vec<u8>, EncodeError> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&[0; PREFIX_LEN]);
    serde_json::to_writer(&mut frame, value)?;
    let len = frame.len() - PREFIX_LEN;
    let max = max_body.min(u32::MAX as usize);
    let prefix = u32::try_from(len).ok().filter(|_| len <= max).ok_or(TooLarge { len, max })?;
    frame[..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// What is wrong with a body whose framing is right. The codes are part of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8.
    #[error("the body is not UTF-8 (first bad byte at {at})")]
    BadUtf8 {
        /// Offset of the first bad byte in the body.
        at: usize,
    },
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    BadJson(serde_json::Error),
    /// JSON nested deeper than [`MAX_DEPTH`].
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// JSON of another shape.
    #[error("the body is not of the form {wanted}: {source}")]
    BadShape {
        /// The form that was expected.
        wanted: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
}

impl BodyError {
    /// The stable code for the wire.
    pub fn code(&self) -> &'static str {
        match self {
            BodyError::BadUtf8 { .. } => code::BAD_UTF8,
            BodyError::BadJson(_) => code::BAD_JSON,
            BodyError::TooDeep => code::TOO_DEEP,
            BodyError::BadShape { .. } => code::BAD_REQUEST,
        }
    }
}

/// The codes of error answers. They are part of the protocol: added to, never changed.
pub mod code {
    /// The body is not UTF-8. The connection goes on.
    pub const BAD_UTF8: &str = "bad_utf8";
    /// The body is not JSON. The connection goes on.
    pub const BAD_JSON: &str = "bad_json";
    /// The JSON has no text member `in`, or has it twice. The connection goes on.
    pub const BAD_REQUEST: &str = "bad_request";
    /// No such method. The connection goes on.
    pub const UNKNOWN_METHOD: &str = "unknown_method";
    /// `params` does not fit the method. The connection goes on.
    pub const INVALID_PARAMS: &str = "invalid_params";
    /// The JSON is nested too deeply. The connection goes on.
    pub const TOO_DEEP: &str = "too_deep";
    /// The announced frame is over the limit. The connection closes: the next boundary is unknown.
    pub const TOO_LARGE: &str = "too_large";
    /// The answer would be over the limit and is not sent. The connection goes on.
    pub const ANSWER_TOO_LARGE: &str = "answer_too_large";
    /// The method failed in a way that is the server's fault. The connection goes on.
    pub const INTERNAL: &str = "internal";
    /// The method took longer than the server allows, or a frame stayed unfinished (then the connection closes).
    pub const TIMEOUT: &str = "timeout";
    /// The method ran and says no. The connection goes on.
    pub const FAILED: &str = "failed";
    /// The server has as many connections as it takes. The connection closes.
    pub const BUSY: &str = "busy";
}

/// A request as it stands in a body; its parameters are not looked into yet, so numbers keep every digit.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The method's name.
    #[serde(rename = "in", borrow)]
    pub method: Cow<'a, str>,
    /// The parameters' JSON; `None` when absent.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Reads a body as a request. Members other than `in` and `params` are ignored.
    ///
    /// # Errors
    /// [`BodyError`], whose code goes into the error answer.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        parse(body, r#"{"in": METHOD, "params": X}"#)
    }

    /// The parameters' JSON; `null` when the request has none.
    pub fn params_text(&self) -> &'a str {
        self.params.map_or("null", RawValue::get)
    }
}

/// A request to be encoded.
#[derive(Debug, Serialize)]
pub struct RequestOut<'a, P: ?Sized> {
    /// The method's name.
    #[serde(rename = "in")]
    pub method: &'a str,
    /// Its parameters.
    pub params: &'a P,
}

/// An answer to be encoded.
#[derive(Debug, Serialize)]
pub struct ResultOut<'a, R: ?Sized> {
    /// The answer's name: the method's, or another by tradition (`ping` is answered by `pong`).
    pub out: &'a str,
    /// What the method returned.
    pub result: &'a R,
}

/// An error answer to be encoded.
#[derive(Debug, Serialize)]
pub struct ErrorOut<'a> {
    /// What went wrong.
    pub error: ErrorBody<'a>,
}

/// The inside of an error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody<'a> {
    /// One of [`code`], or a code of the method's own.
    pub code: Cow<'a, str>,
    /// One sentence for a person.
    #[serde(default)]
    pub message: Cow<'a, str>,
}

/// An answer as it stands in a body.
#[derive(Debug)]
pub enum Reply<'a> {
    /// `{"out": …, "result": …}`.
    Result {
        /// The answer's name.
        out: Cow<'a, str>,
        /// The result's JSON; `null` when absent.
        result: &'a str,
    },
    /// `{"error": {…}}`.
    Error(ErrorBody<'a>),
}

impl<'a> Reply<'a> {
    /// Reads a body as an answer.
    ///
    /// # Errors
    /// [`BodyError`]: the peer is no server of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        #[derive(Deserialize)]
        struct Both<'a> {
            #[serde(borrow, default)]
            out: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            result: Option<&'a RawValue>,
            #[serde(borrow, default)]
            error: Option<ErrorBody<'a>>,
        }
        const WANTED: &str = r#"{"out": NAME, "result": X}"#;
        let both: Both<'a> = parse(body, WANTED)?;
        match both {
            Both { error: Some(error), .. } => Ok(Reply::Error(error)),
            Both { out: Some(out), result, .. } => {
                Ok(Reply::Result { out, result: result.map_or("null", RawValue::get) })
            }
            Both { .. } => Err(BodyError::BadShape {
                wanted: WANTED,
                source: serde::de::Error::custom("neither `out` nor `error`"),
            }),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], wanted: &'static str) -> Result<T, BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| BodyError::BadUtf8 { at: error.valid_up_to() })?;
    serde_json::from_str(text).map_err(|error| {
        if is_too_deep(text) {
            BodyError::TooDeep
        } else if error.is_data() {
            BodyError::BadShape { wanted, source: error }
        } else {
            BodyError::BadJson(error)
        }
    })
}

/// True if brackets nest deeper than [`MAX_DEPTH`]. Asked only after the parser has refused, to name the reason.
pub fn is_too_deep(json: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[path = "json_frame_tests.rs"]
mod tests;
