//! Why a measurement could not be made.

use std::fmt::Display;

/// A step that failed. The command prints it and goes on with the next case.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {reason}")]
pub struct Error {
    step: String,
    reason: String,
}

impl Error {
    /// From words.
    pub fn new(step: impl Into<String>, reason: impl Display) -> Self {
        Self { step: step.into(), reason: reason.to_string() }
    }
}

/// Says which step an error belongs to.
pub fn step<T, E: Display>(step: &str, result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|reason| Error::new(step, reason))
}
