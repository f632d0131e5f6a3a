//! Why there is nothing to report.

use std::io;

use baton_address::Address;

use crate::PlanError;

/// The run could not be made. What goes wrong later is part of the outcome.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The choices do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host's name has no address, or the path is too long for a socket.
    #[error("{address} leads nowhere: {source}; check the name")]
    Resolve {
        /// Where to.
        address: Address,
        /// The system's reason.
        source: io::Error,
    },
    /// Not one connection came about.
    #[error("cannot connect to {address}: {source}; is the server running?")]
    Connect {
        /// Where to.
        address: Address,
        /// The kernel's reason.
        source: io::Error,
    },
    /// More connections than descriptors.
    #[error(
        "{wanted} connections need more descriptors than this process may have ({limit}); raise `ulimit -Hn` or take fewer"
    )]
    Descriptors {
        /// Connections asked for.
        wanted: usize,
        /// The hard limit.
        limit: u64,
    },
    /// The kernel refused something basic.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl LoadError {
    pub(crate) fn system(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { step, source: errno.into() }
    }
}
