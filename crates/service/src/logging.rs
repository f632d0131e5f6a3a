//! Logs go to stderr, one event a line.
//!
//! Under a supervisor (its mark is [`crate::SUPERVISED_ENV`]) a line carries neither time nor colours: the supervisor
//! puts time and name in front of it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{ServiceError, parent};

/// Starts logging for this process. `filter` is a `tracing` filter as `info` or `info,aits_vas=debug`.
///
/// A second call in one process changes nothing (tests run several services in one).
///
/// # Errors
/// A filter that does not parse, as a usage error.
pub fn init_logging(filter: &str, json: bool) -> Result<(), ServiceError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        ServiceError::usage(format!(
            "--log {filter:?} is no filter: {error}; try `info` or `info,aits_vas=debug`"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // `try_init` fails only if a subscriber is there already, which then stays.
    let _already_there = if json {
        builder.json().try_init()
    } else if parent::supervised() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
    Ok(())
}
