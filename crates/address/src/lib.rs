//! Where a service listens: `ip://HOST:PORT` and `un://PATH`, parsed, bound and connected to.
//!
//! Everything that listens takes its address in this form, so the rules are kept in one place:
//!
//! - `ip://HOST:PORT` is TCP; the host may be a name, an IPv4 or a bracketed IPv6 address; port 0 lets the kernel choose.
//! - `un://PATH` is a Unix stream socket, made with mode 0600. A socket file that a killed server left behind is replaced,
//!   but only if nobody listens there any more; anything else at that path is left alone and reported.
//! - anything else is refused with the words users of the classic protocol know (see [`ParseError`]).
//!
//! ```
//! use baton_address::Address;
//! let address: Address = "ip://127.0.0.1:0".parse()?;
//! let listener = address.bind()?;
//! assert!(listener.local().to_string().starts_with("ip://127.0.0.1:"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod bind;
mod parse;
mod stream;

pub use bind::{BindError, Listener, Socket, SocketGuard};
pub use parse::{Address, ParseError};
pub use stream::{AsyncListener, Stream};
