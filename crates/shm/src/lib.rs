//! Shared memory of the kernel behind safe types: sealed memfds, mappings, and how much memory the host really has.
//!
//! ```text
//!   create_sealed(name, len)                        receiver of the descriptor
//!     host has the memory? ── no ──▶ CreateError      validate(fd) ── not sealed, not reserved ──▶ ValidateError
//!     memfd, size, every page reserved, sealed          │ ok: its size can never change again
//!       │                                               ▼
//!       ├─▶ reopen_read_only(fd) ──▶ give to readers   Mapping::new(fd, len, access)
//!       └─▶ Mapping::new(fd, len, access)                 └─▶ SharedSlice<AtomicU64> …, raw ranges, populate
//! ```
//!
//! Why an anonymous memfd and not a file in `/dev/shm`: nothing is left over whatever dies, nobody maps it who was
//! not given a descriptor, and *seals* forbid to change its size, so that no access can ever hit a missing page.
//!
//! # What goes wrong, and who cleans up
//! * The host is too small: refused with the numbers *before* anything is reserved, since under a cgroup limit the
//!   kernel answers with a kill and not with an error ([`HostMemory`]).
//! * A peer hands over something else than a sealed memfd: [`validate`] says what is wrong with it.
//! * The process dies: the kernel unmaps and closes; the pages go when the last descriptor and mapping go.
//! * `fork` without `exec`: the mapping is not inherited (`MADV_DONTFORK`), so that a child cannot act as its parent.
//!
//! Unsafe code lives in `mapping.rs` only, and in `interpreted.rs`, which replaces the kernel under Miri.
#![deny(unsafe_code)]
#![cfg_attr(miri, allow(unreachable_code, unused_variables))]

mod host;
#[cfg(miri)]
mod interpreted;
mod mapping;
mod memfd;
mod named;

pub use host::{HostError, HostMemory, LimitedBy};
pub use mapping::{Access, MapError, Mapping, OutOfRange, Shared, SharedSlice};
#[doc(hidden)]
pub use memfd::create_sparse;
pub use memfd::{CreateError, ValidateError, create_sealed, is_writable, reopen_read_only, size, validate};
pub use named::{Named, NamedError, create_named, remove_named};
