//! The arena: bytes that a connection has pending, in chunks that are taken when needed and given back when not.
//!
//! ```text
//!   table entry   63          32 31   25  24   23          0
//!                ┌──────────────┬───────┬────┬─────────────┐
//!    word 0, tag │   next + 1   │   0   │ out│  record + 1 │   0: free
//!                ├──────────────┴───────┴────┴─────────────┤
//!    word 1      │   stream offset of its first byte       │
//!                └─────────────────────────────────────────┘
//!
//!   record ──head──▶ chunk at 0 ──next──▶ chunk at 256 ──next──▶ chunk at 4352     every chunk but the last is full;
//!                                                                                   the record says how far it counts
//! ```
//! A chunk is taken by one compare-and-swap of its tag, which at once says whose it is; so a process that is killed
//! before it links the chunk leaves a tag behind, and the sweep finds it. There is no free list that could be torn:
//! who needs a chunk looks for a tag of zero, from where he found the last one.
//!
//! # What it costs
//! Taking: one compare-and-swap as long as the arena is mostly empty, which it is, because chunks are there only while
//! bytes are pending; a pass over the table when it is full. Bytes go in and out by atomic words, 8 at a time, 3 ns
//! each (a request and an answer of 4000 bytes, in, out and out again: 5 µs; of 100 bytes: 0.4 µs).
//!
//! # What goes wrong
//! * Full: the caller is told and leaves the bytes where they are, in the kernel (back-pressure).
//! * Scribbled tags: a chain that leaves its record, does not fit together or does not end is [`Corrupt`]; every walk
//!   is bounded by the number of chunks.

use crate::geometry::{CHUNK_WORDS, Geometry, RECORD_WORDS};
use crate::kill::kill_point;
use crate::sync::{AtomicU64, Ordering, Slice};
use core::sync::atomic::AtomicU32 as Hint;

/// Which of a connection's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Bytes from the client.
    Input,
    /// Bytes for the client.
    Output,
}

/// The memory does not fit together; somebody wrote what he should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {record} of the ledger is corrupt ({what}): close this connection")]
pub struct Corrupt {
    /// Which record.
    pub record: u32,
    /// What cannot be.
    pub what: &'static str,
}

/// No chunk is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Why bytes were not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreError {
    Full,
    Corrupt(Corrupt),
}

impl From<Corrupt> for StoreError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

impl From<Full> for StoreError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// The shared words, and a private memory of where a free chunk was last found.
#[derive(Debug)]
pub struct Memory {
    pub(crate) geometry: Geometry,
    pub(crate) records: Slice<AtomicU64>,
    pub(crate) table: Slice<AtomicU64>,
    pub(crate) payload: Slice<AtomicU64>,
    /// Where to look next: a small chunk, a large one, a free record.
    pub(crate) hints: [Hint; 3],
}

/// Words of a record.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Field {
    State,
    Read,
    Taking,
    Done,
    RequestEnd,
    Handling,
    Answered,
    Sent,
    InputHead,
    OutputHead,
    AckedBase,
    About,
}

impl Field {
    /// All but the state.
    pub(crate) const DATA: [Self; 11] = [
        Self::Read,
        Self::Taking,
        Self::Done,
        Self::RequestEnd,
        Self::Handling,
        Self::Answered,
        Self::Sent,
        Self::InputHead,
        Self::OutputHead,
        Self::AckedBase,
        Self::About,
    ];
}

/// A chunk of a chain, checked.
#[derive(Debug, Clone, Copy)]
struct Link {
    chunk: u32,
    at: u64,
    end: u64,
    next: u64,
}

const OUT: u64 = 1 << 24;

fn tag(record: u32, stream: Stream) -> u64 {
    u64::from(record + 1) | if stream == Stream::Output { OUT } else { 0 }
}

const WHOSE: u64 = (1 << 25) - 1;

impl Memory {
    /// A record's word. `record` has been checked by whoever got hold of it.
    pub(crate) fn cell(&self, record: u32, field: Field) -> &AtomicU64 {
        &self.records[record as usize * RECORD_WORDS + field as usize]
    }

    pub(crate) fn get(&self, record: u32, field: Field) -> u64 {
        self.cell(record, field).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, record: u32, field: Field, value: u64) {
        self.cell(record, field).store(value, Ordering::Release);
    }

    fn entry(&self, chunk: u32) -> (&AtomicU64, &AtomicU64) {
        let first = chunk as usize * CHUNK_WORDS;
        (&self.table[first], &self.table[first + 1])
    }

    fn head(stream: Stream) -> Field {
        if stream == Stream::Input { Field::InputHead } else { Field::OutputHead }
    }

    /// The chunk that a link (number + 1, 0 for none) names, if it is that record's.
    fn follow(&self, record: u32, stream: Stream, link: u64) -> Result<Option<Link>, Corrupt> {
        let corrupt = |what| Corrupt { record, what };
        let Some(number) = link.checked_sub(1) else { return Ok(None) };
        let chunk = u32::try_from(number).ok().filter(|chunk| *chunk < self.geometry.chunks());
        let chunk = chunk.ok_or(corrupt("a chunk that does not exist"))?;
        let (word, at) = self.entry(chunk);
        let (word, at) = (word.load(Ordering::Acquire), at.load(Ordering::Acquire));
        if word & 0xffff_ffff != tag(record, stream) {
            return Err(corrupt("a chunk of somebody else's"));
        }
        let end = at.checked_add(self.geometry.capacity(chunk) as u64);
        let end = end.ok_or(corrupt("an offset beyond the end of numbers"))?;
        Ok(Some(Link { chunk, at, end, next: word >> 32 }))
    }

    /// The next link of a chain, which must begin where this one ends.
    fn next(&self, record: u32, stream: Stream, link: Link) -> Result<Option<Link>, Corrupt> {
        match self.follow(record, stream, link.next)? {
            Some(next) if next.at != link.end => Err(Corrupt { record, what: "chunks that do not meet" }),
            next => Ok(next),
        }
    }

    /// Takes a free chunk of the size that fits, or else of the other.
    fn take_chunk(&self, record: u32, stream: Stream, wanted: usize, at: u64) -> Result<u32, Full> {
        let g = &self.geometry;
        let sizes = [(0, g.small, &self.hints[0]), (g.small, g.large, &self.hints[1])];
        let order = if wanted <= crate::geometry::SMALL { [0, 1] } else { [1, 0] };
        for (first, count, hint) in order.map(|size| sizes[size]) {
            let start = hint.load(core::sync::atomic::Ordering::Relaxed);
            for step in 0..count {
                let index = start.wrapping_add(step) % count;
                let (word, offset) = self.entry(first + index);
                let free = word.load(Ordering::Acquire) == 0;
                let mine = tag(record, stream);
                if free && word.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    kill_point!(ChunkTaken);
                    offset.store(at, Ordering::Release);
                    hint.store(index, core::sync::atomic::Ordering::Relaxed);
                    return Ok(first + index);
                }
            }
        }
        Err(Full)
    }

    /// Writes `bytes` at `offset` of the stream, into the chain as it is and as much more as is needed. Nothing counts
    /// until the record says so.
    pub(crate) fn store(
        &self,
        record: u32,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let head = Self::head(stream);
        let mut link = self.follow(record, stream, self.get(record, head))?;
        let mut last: Option<Link> = None;
        let (mut position, mut rest) = (offset, bytes);
        for _ in 0..=self.geometry.chunks() {
            if rest.is_empty() {
                return Ok(());
            }
            let here = match link {
                Some(link) => link,
                None => {
                    let at = last.map_or(position, |last| last.end);
                    let chunk = self.take_chunk(record, stream, rest.len(), at)?;
                    let number = u64::from(chunk) + 1;
                    match last {
                        Some(last) => {
                            let word = tag(record, stream) | number << 32;
                            self.entry(last.chunk).0.store(word, Ordering::Release);
                        }
                        None => self.set(record, head, number),
                    }
                    kill_point!(ChunkLinked);
                    Link { chunk, at, end: at + self.geometry.capacity(chunk) as u64, next: 0 }
                }
            };
            if position < here.at {
                return Err(Corrupt { record, what: "a chain that begins after its bytes" }.into());
            }
            if position < here.end {
                let count = rest.len().min((here.end - position) as usize);
                self.write(here.chunk, (position - here.at) as usize, &rest[..count]);
                (position, rest) = (position + count as u64, &rest[count..]);
            }
            last = Some(here);
            link = self.next(record, stream, here)?;
        }
        Err(Corrupt { record, what: "a chain without end" }.into())
    }

    /// Copies the stream's bytes from `from` to `to` into `out`, at most `most` of them.
    pub(crate) fn load(
        &self,
        record: u32,
        stream: Stream,
        span: core::ops::Range<u64>,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        out.clear();
        let Some(length) = span.end.checked_sub(span.start) else {
            return Err(Corrupt { record, what: "fewer bytes than none" });
        };
        let end = span.start + length.min(most as u64);
        let mut position = span.start;
        let mut link = self.follow(record, stream, self.get(record, Self::head(stream)))?;
        for _ in 0..=self.geometry.chunks() {
            if position >= end {
                return Ok(());
            }
            let Some(here) = link else {
                return Err(Corrupt { record, what: "a chain that ends too early" });
            };
            if position < here.at {
                return Err(Corrupt { record, what: "a chain that begins after its bytes" });
            }
            if position < here.end {
                let stop = here.end.min(end);
                self.read(here.chunk, (position - here.at) as usize, (stop - position) as usize, out);
                position = stop;
            }
            link = self.next(record, stream, here)?;
        }
        Err(Corrupt { record, what: "a chain without end" })
    }

    /// Gives back the chunks whose bytes all lie before `floor`; all of them if nothing counts from there on.
    pub(crate) fn trim(&self, record: u32, stream: Stream, floor: u64, end: u64) -> Result<(), Corrupt> {
        let head = Self::head(stream);
        for _ in 0..=self.geometry.chunks() {
            let Some(link) = self.follow(record, stream, self.get(record, head))? else { return Ok(()) };
            if link.end > floor && floor != end {
                return Ok(());
            }
            self.set(record, head, link.next);
            kill_point!(ChunkUnlinked);
            self.entry(link.chunk).0.store(0, Ordering::Release);
            kill_point!(ChunkFreed);
        }
        Err(Corrupt { record, what: "a chain without end" })
    }

    /// Gives back every chunk that belongs to a record of `mine` and is in none of its chains: taken by somebody who was
    /// killed before he linked it, or unlinked before he gave it back. Returns how many.
    pub(crate) fn sweep(&self, mine: impl Fn(u32) -> bool) -> u32 {
        let mut freed = 0;
        for chunk in 0..self.geometry.chunks() {
            let word = self.entry(chunk).0.load(Ordering::Acquire);
            let record = ((word & (OUT - 1)) as u32).wrapping_sub(1);
            if word == 0 || record >= self.geometry.connections || !mine(record) {
                continue;
            }
            let stream = if word & WHOSE & OUT != 0 { Stream::Output } else { Stream::Input };
            if !self.is_linked(record, stream, chunk) {
                self.entry(chunk).0.store(0, Ordering::Release);
                freed += 1;
            }
        }
        freed
    }

    fn is_linked(&self, record: u32, stream: Stream, chunk: u32) -> bool {
        let mut link = self.follow(record, stream, self.get(record, Self::head(stream)));
        for _ in 0..=self.geometry.chunks() {
            match link {
                Ok(Some(here)) if here.chunk == chunk => return true,
                Ok(Some(here)) => link = self.next(record, stream, here),
                // What a corrupt chain names is nobody's any more; its connection will be closed.
                Ok(None) | Err(_) => return false,
            }
        }
        false
    }

    /// Chunks that are taken, all connections together.
    pub(crate) fn chunks_taken(&self) -> u32 {
        (0..self.geometry.chunks())
            .map(|chunk| u32::from(self.entry(chunk).0.load(Ordering::Acquire) != 0))
            .sum()
    }

    fn write(&self, chunk: u32, offset: usize, bytes: &[u8]) {
        let first = self.geometry.payload_word(chunk);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (cell, within) = (&self.payload[first + at / 8], at % 8);
            let count = rest.len().min(8 - within);
            // A part of a word keeps its neighbours: only the holder writes here, so a load and a store do.
            let mut word = if count == 8 { [0; 8] } else { cell.load(Ordering::Acquire).to_le_bytes() };
            word[within..within + count].copy_from_slice(&rest[..count]);
            cell.store(u64::from_le_bytes(word), Ordering::Release);
            (at, rest) = (at + count, &rest[count..]);
        }
    }

    fn read(&self, chunk: u32, offset: usize, count: usize, out: &mut Vec<u8>) {
        let first = self.geometry.payload_word(chunk);
        let (mut at, end) = (offset, offset + count);
        while at < end {
            let (within, word) = (at % 8, self.payload[first + at / 8].load(Ordering::Acquire).to_le_bytes());
            let stop = (8 - within).min(end - at);
            out.extend_from_slice(&word[within..within + stop]);
            at += stop;
        }
    }
}
