//! What the JSON inside a frame says: requests, answers, errors.
//!
//! A body is looked at once, and only its envelope: parameters and results stay raw JSON until their own types read them.
//! A body that cannot be read leaves the framing intact, so each failure has a code ([`code`]) for the error answer.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::code;

/// Nesting that the JSON parser goes into before it refuses.
pub const MAX_DEPTH: usize = 127;

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

/// The longest `id`, in bytes of JSON: it is kept while the request is under way and comes back with each answer.
pub const MAX_ID: usize = 64;

/// A request as it stands in a body; its parameters are not looked into yet, so numbers keep every digit.
///
/// | members beside `in` and `params` | the answer |
/// |---|---|
/// | none | in its turn: after those of all earlier requests of the connection |
/// | `"id": NUMBER or TEXT` | carries the same `id`, and comes when it is ready; several with `"more": true` before the last one if the method streams |
/// | `"notify": true` | there is none, not even an error |
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The method's name.
    #[serde(rename = "in", borrow)]
    pub method: Cow<'a, str>,
    /// The parameters' JSON; `None` when absent.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// What its answers are known by: the JSON of a number or a text, compared as it is written.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// True if no answer is wanted.
    #[serde(default)]
    pub notify: bool,
}

impl<'a> Request<'a> {
    /// Reads a body as a request. Members that are not known are ignored.
    ///
    /// # Errors
    /// [`BodyError`], whose code goes into the error answer.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let request: Request<'a> = parse(body, WANTED_REQUEST)?;
        match request.id {
            Some(id) if !is_id(id) => Err(BodyError::BadShape {
                wanted: WANTED_REQUEST,
                source: serde::de::Error::custom(format!(
                    "`id` must be a number or a text of at most {MAX_ID} bytes"
                )),
            }),
            _ => Ok(request),
        }
    }

    /// The `id` of a body that is no request, so that its error answer finds the caller.
    pub fn id_of(body: &'a [u8]) -> Option<&'a RawValue> {
        #[derive(Deserialize)]
        struct IdOnly<'a> {
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
        }
        let IdOnly { id } = parse(body, WANTED_REQUEST).ok()?;
        id.filter(|id| is_id(id))
    }

    /// The parameters' JSON; `null` when the request has none.
    pub fn params_text(&self) -> &'a str {
        self.params.map_or("null", RawValue::get)
    }
}

const WANTED_REQUEST: &str = r#"{"in": METHOD, "params": X}"#;

fn is_id(id: &RawValue) -> bool {
    let text = id.get();
    text.len() <= MAX_ID && text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A request to be encoded.
#[derive(Debug, Serialize)]
pub struct RequestOut<'a, P: ?Sized> {
    /// The method's name.
    #[serde(rename = "in")]
    pub method: &'a str,
    /// Its parameters.
    pub params: &'a P,
    /// What its answers are to be known by; without it they come in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
    /// True if no answer is wanted.
    #[serde(skip_serializing_if = "is_false")]
    pub notify: bool,
}

impl<'a, P: ?Sized> RequestOut<'a, P> {
    /// A request as the document has it: without the extensions.
    pub fn plain(method: &'a str, params: &'a P) -> Self {
        RequestOut { method, params, id: None, notify: false }
    }
}

/// An answer to be encoded.
#[derive(Debug, Serialize)]
pub struct ResultOut<'a, R: ?Sized> {
    /// The answer's name: the method's, or another by tradition (`ping` is answered by `pong`).
    pub out: &'a str,
    /// What the method returned.
    pub result: &'a R,
    /// The request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
    /// True if further answers to the same request follow.
    #[serde(skip_serializing_if = "is_false")]
    pub more: bool,
}

/// An error answer to be encoded.
#[derive(Debug, Serialize)]
pub struct ErrorOut<'a> {
    /// What went wrong.
    pub error: ErrorBody<'a>,
    /// The request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
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
pub struct Answer<'a> {
    /// The request's `id`, if it had one.
    pub id: Option<&'a RawValue>,
    /// True if further answers to the same request follow.
    pub more: bool,
    /// What it says.
    pub reply: Reply<'a>,
}

/// What an answer says.
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

impl<'a> Answer<'a> {
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
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
            #[serde(default)]
            more: bool,
        }
        const WANTED: &str = r#"{"out": NAME, "result": X}"#;
        let Both { out, result, error, id, more } = parse(body, WANTED)?;
        let reply = match (error, out) {
            (Some(error), _) => Reply::Error(error),
            (None, Some(out)) => Reply::Result { out, result: result.map_or("null", RawValue::get) },
            (None, None) => {
                return Err(BodyError::BadShape {
                    wanted: WANTED,
                    source: serde::de::Error::custom("neither `out` nor `error`"),
                });
            }
        };
        Ok(Answer { id, more, reply })
    }
}

impl<'a> Reply<'a> {
    /// Reads a body as an answer of which `id` and `more` do not matter.
    ///
    /// # Errors
    /// [`BodyError`]: the peer is no server of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        Answer::parse(body).map(|answer| answer.reply)
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
    is_deeper(json.as_bytes(), MAX_DEPTH)
}

/// True if brackets nest deeper than `max`.
pub fn is_deeper(json: &[u8], max: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
    }
    false
}
