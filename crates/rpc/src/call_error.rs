//! Every way in which a call can fail, each with its own consequence for who calls again.

use std::io;
use std::time::Duration;

use baton_wire::json_frame::EncodeError;

use crate::RpcError;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there (now). The request was not sent.
    #[error("cannot connect to {uri}: {source}")]
    Connect {
        /// Where.
        uri: String,
        /// What the system said, or what is wrong with the address.
        source: io::Error,
    },
    /// The connection broke while the call was under way: it may or may not have been carried out.
    #[error("{uri} went away during `{method}`: {source}")]
    Disconnected {
        /// Where.
        uri: String,
        /// The method that was called.
        method: String,
        /// What happened to the connection.
        source: io::Error,
    },
    /// No answer in time: the call may or may not be carried out.
    #[error("no answer from {uri} to `{method}` within {} s", after.as_secs_f32())]
    Timeout {
        /// Where.
        uri: String,
        /// The method that was called.
        method: String,
        /// The time it was given.
        after: Duration,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Remote(RpcError),
    /// The answer is not what was expected: not of this protocol, or a result of another type.
    #[error("the answer of {uri} to `{method}` cannot be understood: {reason}")]
    Decode {
        /// Where.
        uri: String,
        /// The method that was called.
        method: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The parameters cannot be sent: too large, or without a JSON form.
    #[error("the parameters of `{method}` cannot be sent: {source}")]
    Encode {
        /// The method that was called.
        method: String,
        /// Why.
        source: EncodeError,
    },
}

impl CallError {
    /// The error answer, if the server gave one.
    pub fn remote(&self) -> Option<&RpcError> {
        match self {
            CallError::Remote(error) => Some(error),
            _ => None,
        }
    }
}
