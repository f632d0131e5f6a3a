//! Shared memory under Miri, the interpreter that checks unsafe code: it knows no memory files and no mappings.
//!
//! A "memory file" here is a deleted file that holds a number; the number names a piece of heap memory. All mappings of
//! one file are that same piece, so that two ends in one process share it as they would with the kernel's help. What is
//! *not* checked this way: the kernel's part (seals, reservation, protection), and processes.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::{CreateError, ValidateError};

const PAGE: usize = 4096;

/// Kept until the process ends: who has a mapping is not counted.
static PIECES: Mutex<Vec<Piece>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Piece {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a pointer that is never freed; what is done with it is the mappings' responsibility.
unsafe impl Send for Piece {}

pub(crate) fn create(len: u64) -> Result<OwnedFd, CreateError> {
    let len = usize::try_from(len).map_err(|_| CreateError::Empty)?.next_multiple_of(PAGE);
    if len == 0 {
        return Err(CreateError::Empty);
    }
    let layout = Layout::from_size_align(len, PAGE).map_err(|_| CreateError::Empty)?;
    // SAFETY: the layout is not of size 0.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(CreateError::Empty)?;
    let mut pieces = PIECES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let number = pieces.len() as u64;
    let kernel = |source| CreateError::Kernel { call: "open", source };
    let path = std::env::temp_dir().join(format!("baton-miri-{}-{number}", std::process::id()));
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(kernel)?;
    std::fs::remove_file(&path).map_err(kernel)?;
    file.write_all_at(&number.to_le_bytes(), 0).map_err(kernel)?;
    pieces.push(Piece { base, len });
    Ok(file.into())
}

fn find(fd: impl AsFd) -> std::io::Result<Piece> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let mut number = [0; 8];
    file.read_exact_at(&mut number, 0)?;
    let pieces = PIECES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    pieces.get(u64::from_le_bytes(number) as usize).copied().ok_or(std::io::ErrorKind::NotFound.into())
}

pub(crate) fn size(fd: impl AsFd) -> std::io::Result<u64> {
    Ok(find(fd)?.len as u64)
}

pub(crate) fn validate(fd: impl AsFd, expected: u64) -> Result<(), ValidateError> {
    let found = size(fd).map_err(ValidateError::NoMemfd)?;
    if found == expected { Ok(()) } else { Err(ValidateError::Size { expected, found }) }
}

pub(crate) fn map(fd: impl AsFd, len: usize) -> std::io::Result<NonNull<u8>> {
    let piece = find(fd)?;
    if len > piece.len { Err(std::io::ErrorKind::InvalidInput.into()) } else { Ok(piece.base) }
}
