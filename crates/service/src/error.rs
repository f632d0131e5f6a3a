//! Why a service ended: one sentence for people, one number for the supervisor.

use std::fmt;
use std::process::ExitCode;

/// What kind of end an exit code stands for. Documented in `aits --help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitClass {
    /// 0: ended as ordered.
    Done,
    /// 1: failed; starting again may help.
    Failed,
    /// 2: called in a wrong way; starting again cannot help.
    Usage,
    /// 78 (`EX_CONFIG`): the configuration cannot work (bad model, port in use, pool too large); starting again
    /// cannot help.
    Config,
}

impl ExitClass {
    /// The number given to the operating system.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 78,
        }
    }

    /// The class of an exit code; unknown codes count as [`Failed`](Self::Failed).
    pub fn of(code: i32) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Usage,
            78 => Self::Config,
            _ => Self::Failed,
        }
    }

    /// Whether the same call can succeed the next time.
    pub fn restart_may_help(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

impl From<ExitClass> for ExitCode {
    fn from(class: ExitClass) -> Self {
        Self::from(class.code())
    }
}

/// Why a service cannot go on: a sentence that says what was tried and what to do, and an [`ExitClass`].
///
/// Any error converts into it with `?` (class [`ExitClass::Failed`], the chain of sources joined by colons). Therefore
/// it is not itself a [`std::error::Error`]; it lives at the end of a program, not in a library's interface.
pub struct ServiceError {
    message: String,
    class: ExitClass,
}

impl ServiceError {
    /// A failure that starting again may mend.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), class: ExitClass::Failed }
    }

    /// A wrong call.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), class: ExitClass::Usage }
    }

    /// A configuration that cannot work.
    pub fn config(message: impl Into<String>) -> Self {
        Self { message: message.into(), class: ExitClass::Config }
    }

    /// An error as a configuration that cannot work.
    pub fn config_from(error: &dyn std::error::Error) -> Self {
        Self::config(chain(error))
    }

    /// What the supervisor is told.
    pub fn class(&self) -> ExitClass {
        self.class
    }

    /// What people are told.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: std::error::Error> From<E> for ServiceError {
    fn from(error: E) -> Self {
        Self::failed(chain(&error))
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.class)
    }
}

/// The messages of an error and its sources. A source whose text the error already shows is not repeated.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_failure_with_its_text() {
        fn work() -> Result<u32, ServiceError> {
            Ok("x".parse::<u32>()?)
        }
        let error = work().unwrap_err();
        assert_eq!(error.class(), ExitClass::Failed);
        assert_eq!(error.message(), "invalid digit found in string");
    }

    #[test]
    fn codes_and_classes_agree() {
        for class in [ExitClass::Done, ExitClass::Failed, ExitClass::Usage, ExitClass::Config] {
            assert_eq!(ExitClass::of(class.code().into()), class);
        }
        assert!(ExitClass::of(101).restart_may_help());
        assert!(!ExitClass::of(78).restart_may_help());
    }
}
