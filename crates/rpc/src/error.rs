//! What a method says when it says no.

use std::borrow::Cow;

use baton_wire::json_frame::{ErrorBody, ErrorOut, code, encode};
use serde_json::value::RawValue;

/// An error answer: a stable code for programs and a sentence for people. A method returns it, a caller receives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// One of [`code`](mod@code), or a code of the method's own.
    pub code: Cow<'static, str>,
    /// One sentence that says what to do.
    pub message: String,
}

impl RpcError {
    /// An error with a code of its own.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        RpcError { code: code.into(), message: message.into() }
    }

    /// The parameters make no sense to the method ([`code::INVALID_PARAMS`]).
    pub fn invalid_params(message: impl Into<String>) -> Self {
        RpcError::new(code::INVALID_PARAMS, message)
    }

    /// The method could not do what was asked ([`code::FAILED`]).
    pub fn failed(message: impl Into<String>) -> Self {
        RpcError::new(code::FAILED, message)
    }

    /// The server's own fault ([`code::INTERNAL`]).
    pub fn internal(message: impl Into<String>) -> Self {
        RpcError::new(code::INTERNAL, message)
    }

    /// The error answer as a frame.
    pub(crate) fn to_frame(&self, id: Option<&RawValue>) -> Vec<u8> {
        let body = ErrorBody { code: Cow::Borrowed(&self.code), message: Cow::Borrowed(&self.message) };
        // Two texts always have a JSON form; a message beyond 4 GiB would give an empty frame's worth of nothing.
        encode(&ErrorOut { error: body, id }, usize::MAX).unwrap_or_default()
    }
}
