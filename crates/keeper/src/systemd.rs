//! systemd as the second keeper: what this process holds lies in its descriptor store, too.
//!
//! A note travels in the descriptor's name (`KEY.HEX`), since the store has nothing else for it. Names may have 255
//! characters; a note that does not fit is left out, and the daemon then does without it.
//!
//! Nothing here happens unless systemd (or who speaks like it) gave `NOTIFY_SOCKET` to this process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

use crate::ward::Deposit;

/// Longest name of a descriptor in the store.
const NAME_LEN_MAX: usize = 255;

/// The way to systemd, if there is one.
#[derive(Debug)]
pub(crate) struct Systemd {
    present: bool,
}

impl Systemd {
    pub(crate) fn from_env() -> Self {
        Self { present: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    /// What an earlier life left in the store, and sockets that systemd opened for us.
    pub(crate) fn found() -> Vec<Deposit> {
        if std::env::var_os("LISTEN_FDS").is_none() {
            return Vec::new();
        }
        let named = match sd_notify::listen_fds_with_names() {
            Ok(named) => named,
            Err(error) => {
                tracing::warn!("keeper: the descriptors from systemd cannot be taken: {error}");
                return Vec::new();
            }
        };
        let taken = |(number, name): (i32, String)| {
            let (key, note) = parse_name(&name)?;
            // A copy through our own pidfd: an owned descriptor without a word of unsafe code.
            let copy = pidfd_open(getpid(), PidfdFlags::empty())
                .and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty()));
            match copy {
                Ok(fd) => Some(Deposit { key, note, fd }),
                Err(error) => {
                    tracing::warn!("keeper: descriptor `{name}` from systemd cannot be taken: {error}");
                    None
                }
            }
        };
        named.filter_map(taken).collect()
    }

    pub(crate) fn store(&self, key: &str, note: &[u8], fd: &OwnedFd) {
        if !self.present {
            return;
        }
        let state = [NotifyState::FdStore, NotifyState::FdName(&name(key, note))];
        self.said(sd_notify::notify_with_fds(&state, &[fd.as_fd()]));
    }

    pub(crate) fn remove(&self, key: &str, note: &[u8]) {
        self.say(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name(key, note))]);
    }

    pub(crate) fn ready(&self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(crate) fn status(&self, status: &str) {
        self.say(&[NotifyState::Status(status)]);
    }

    pub(crate) fn alive(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    pub(crate) fn stopping(&self) {
        self.say(&[NotifyState::Stopping]);
    }

    fn say(&self, state: &[NotifyState<'_>]) {
        if self.present {
            self.said(sd_notify::notify(state));
        }
    }

    fn said(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("keeper: systemd cannot be told: {error}");
        }
    }
}

fn name(key: &str, note: &[u8]) -> String {
    let hex: String = note.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{key}.{hex}");
    if name.len() <= NAME_LEN_MAX { name } else { format!("{key}.") }
}

fn parse_name(name: &str) -> Option<(String, Vec<u8>)> {
    let (key, hex) = name.rsplit_once('.').unwrap_or((name, ""));
    let digits = hex.as_bytes();
    if digits.len() % 2 != 0 || key.is_empty() {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let note = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
    Some((key.to_owned(), note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_notes() {
        for (key, note) in [("lock", &b""[..]), ("event/3/1", b"{\"uid\":0}"), ("listener/0", b"un:///a.b")] {
            let name = name(key, note);
            assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b':'), "{name}");
            assert_eq!(parse_name(&name), Some((key.to_owned(), note.to_vec())));
        }
        assert_eq!(parse_name(&name("k", &[7; 200])), Some(("k".to_owned(), vec![])), "too long: without it");
        assert_eq!(parse_name("socket"), Some(("socket".to_owned(), vec![])));
        for bad in [".00", "k.0", "k.zz"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
