//! A buffer that two processes have mapped, and nothing else: no allocation, no ownership, nobody to clean up.

// What the pool's types make safe is done by hand here: it is the floor.
#![allow(unsafe_code)]

use crate::board::{Board, FRAME};

/// Copies a frame into the board's buffer.
pub fn write(board: &Board, frame: &[u8]) {
    let (mapping, at) = board.frame();
    let len = frame.len().min(FRAME);
    let Ok(to) = mapping.range(at, len) else { return };
    // SAFETY: `range` has checked that `len` bytes from there are mapped (writable, see `Board`); the reader looks only
    // between `Announced` and `Done`, and this is called outside of that.
    unsafe { std::ptr::copy_nonoverlapping(frame.as_ptr(), to.as_ptr(), len) };
}

/// Reads all of it.
pub fn read(board: &Board, use_it: impl FnOnce(&[u8]) -> u64) -> u64 {
    let (mapping, at) = board.frame();
    let Ok(from) = mapping.range(at, FRAME) else { return 0 };
    // SAFETY: mapped, as above, and initialised by the kernel; the writer waits for `Done` before it writes again, and
    // this is called before that is said.
    use_it(unsafe { std::slice::from_raw_parts(from.as_ptr(), FRAME) })
}
