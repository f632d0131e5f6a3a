//! Framed JSON requests and answers over any stream: a method is an `async fn(params) -> result`.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use baton_rpc::{Client, Router, RpcError, Server};
//!
//! let router = Router::new()
//!     .method("double", |n: i64| async move {
//!         n.checked_mul(2).ok_or_else(|| RpcError::invalid_params("too large to double"))
//!     });
//! let server = Server::bind("ip://127.0.0.1:0").await?;
//! let client = Client::new(server.local_uri());
//! tokio::spawn(server.serve(router, std::future::pending()));
//! assert_eq!(client.call::<i64, i64>("double", &21).await?, 42);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! The protocol is that of [`baton_wire::json_frame`]: `u32` little-endian length and JSON; a request is
//! `{"in": NAME, "params": X}`, its answer `{"out": NAME, "result": X}` or `{"error": {"code", "message"}}` with a stable
//! code from [`code`]. One connection carries many requests, answered in order, and they may be sent without waiting
//! (pipelining). A method that waits (a long poll) holds up its own connection only; [`Client`] opens another one for each
//! call that is under way.
//!
//! What goes wrong, and who notices:
//!
//! | what | the peer sees | the connection |
//! |---|---|---|
//! | bad UTF-8, bad JSON, wrong shape, unknown method, parameters that do not fit, nested too deeply | error frame | goes on |
//! | the method fails, panics or takes too long; its answer is too large | error frame | goes on |
//! | a frame over the limit | error frame | closes |
//! | a frame that stays unfinished | error frame | closes |
//! | end of stream at a frame boundary, no request for long, answers that nobody reads | – | closes |
//!
//! A server that runs in many processes is [`serve_stream`] in the workers of `baton-cluster` (see
//! `examples/pingpong.rs`).

#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod limits;
mod router;
mod server;

pub use baton_address::{Address, BindError, Stream};
pub use baton_wire::json_frame::code;
pub use client::{CallError, Client};
pub use connection::{StreamEnd, serve_stream, serve_stream_until};
pub use error::RpcError;
pub use limits::Limits;
pub use router::Router;
pub use server::{ServeError, Server};
