//! What must outlive this process, and the keeper that sees to it.
//!
//! The daemon's own descriptors lie here in duplicate, so that they can be given to another keeper at any time; those of
//! the members lie in the registry.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use baton_keeper::{Deposit, Ward, WardError};

/// The daemon's belongings, and its keeper if it has one.
#[derive(Debug, Default)]
pub(crate) struct Chest {
    ward: Option<Arc<Ward>>,
    own: Vec<Deposit>,
}

impl Chest {
    pub(crate) fn new(ward: Option<Ward>) -> Self {
        Self { ward: ward.map(Arc::new), own: Vec::new() }
    }

    pub(crate) fn ward(&self) -> Option<&Arc<Ward>> {
        self.ward.as_ref()
    }

    /// Another keeper from now on; the one before is given back.
    pub(crate) fn change_ward(&mut self, ward: Option<Arc<Ward>>) -> Option<Arc<Ward>> {
        std::mem::replace(&mut self.ward, ward)
    }

    /// Something of the daemon's own, which the keeper has already.
    pub(crate) fn own(&mut self, key: &str, note: &[u8], fd: impl AsFd) -> std::io::Result<()> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        self.own.retain(|own| own.key != key);
        self.own.push(Deposit { key: key.to_owned(), note: note.to_vec(), fd });
        Ok(())
    }

    /// Something new of the daemon's own.
    pub(crate) fn put(&mut self, key: &str, note: &[u8], fd: impl AsFd) -> Result<(), WardError> {
        let fd = fd.as_fd();
        self.own(key, note, fd)?;
        self.deposit(key, note, fd)
    }

    /// Has the keeper hold `fd`. If the keeper was killed, that is no error: its successor is given everything.
    pub(crate) fn deposit(&self, key: &str, note: &[u8], fd: BorrowedFd<'_>) -> Result<(), WardError> {
        self.say(|ward| ward.deposit(key, note, fd))
    }

    pub(crate) fn withdraw(&self, key: &str) {
        self.tell(|ward| ward.withdraw(key));
    }

    /// Says something that is only a pity if it is not heard.
    pub(crate) fn tell(&self, what: impl FnOnce(&Ward) -> Result<(), WardError>) {
        if let Err(error) = self.say(what) {
            tracing::warn!("rmmt: {error}");
        }
    }

    fn say(&self, what: impl FnOnce(&Ward) -> Result<(), WardError>) -> Result<(), WardError> {
        match self.ward.as_deref().map(what) {
            Some(Err(WardError::NoKeeper)) | None => Ok(()),
            Some(result) => result,
        }
    }

    /// Duplicates of the daemon's own belongings. The pool's memory first: it matters most.
    pub(crate) fn duplicates(&self, wanted: impl Fn(&str) -> bool) -> std::io::Result<Vec<Deposit>> {
        self.own
            .iter()
            .filter(|own| wanted(&own.key))
            .map(|own| duplicate(&own.key, &own.note, &own.fd))
            .collect()
    }
}

pub(crate) fn duplicate(key: &str, note: &[u8], fd: &OwnedFd) -> std::io::Result<Deposit> {
    Ok(Deposit { key: key.to_owned(), note: note.to_vec(), fd: fd.try_clone()? })
}
