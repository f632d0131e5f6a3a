//! Descriptors are what a server runs out of first.
//!
//! At start the soft limit is raised to the hard one. The master also keeps a few spare descriptors that accepting cannot
//! use up: without them a master that has accepted until nothing was left could not start the worker that would take the
//! connections off it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What starting a process needs: the channel's two ends, a pidfd, and what the standard library opens meanwhile.
const SPARE: usize = 8;

/// Lets this process have as many descriptors as it may. Programs that use `select(2)` must not do this.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, ?limit, "the limit of open descriptors stays as it is");
    }
}

/// Spare descriptors.
#[derive(Debug)]
pub(crate) struct Reserve {
    source: OwnedFd,
    spare: Vec<OwnedFd>,
}

impl Reserve {
    pub fn new() -> std::io::Result<Reserve> {
        let mut reserve = Reserve { source: std::fs::File::open("/dev/null")?.into(), spare: Vec::new() };
        reserve.fill();
        Ok(reserve)
    }

    /// Gives the spare ones up, for what is about to be done.
    pub fn release(&mut self) {
        self.spare.clear();
    }

    /// Takes them again, as far as there are any: at the next time more.
    pub fn fill(&mut self) {
        while self.spare.len() < SPARE {
            match self.source.as_fd().try_clone_to_owned() {
                Ok(fd) => self.spare.push(fd),
                Err(_) => break,
            }
        }
    }
}
