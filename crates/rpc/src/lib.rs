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
//! `{"in": NAME, "params": X}`, its answer `{"out": NAME, "result": X}`. One connection carries many requests, answered in
//! order, and they may be sent without waiting (pipelining). A client that knows no more than this works.
//!
//! # Extensions
//! | the request has | it runs | its answers |
//! |---|---|---|
//! | nothing more | when all earlier ones without an `id` are answered, and nothing sent after it begins before it is | one, in order |
//! | `"id": NUMBER or TEXT` (64 bytes at most) | beside others, up to [`Limits::in_flight`] | one, with the same `id`, when it is ready |
//! | an `id`, and the method streams ([`Router::streaming`]) | the same, up to [`Limits::subscriptions`] | many with `"more": true`, and a last one without |
//! | `"notify": true` | like one without an `id` | none, not even an error |
//!
//! An error is `{"error": {"code", "message"}}`, with the request's `id` if it has one. Codes are stable ([`code`]).
//! `rpc.cancel {"id": I}` drops the request with that `id` (compared as it is written): it is answered with
//! [`code::CANCELLED`]. `rpc.methods` tells names, types and descriptions; `rpc.stats` requests, errors and latencies by
//! method, of one process; `rpc.health` what [`Router::health`] says. [`Client`] opens a connection for each call that is
//! under way and for each [`Subscription`].
//!
//! # What goes wrong, and who notices
//! | what | the peer sees | the connection |
//! |---|---|---|
//! | bad UTF-8 (`bad_utf8`), bad JSON (`bad_json`), no or two `in`, an `id` that is none or is in use (`bad_request`) | error frame | goes on |
//! | `unknown_method`; parameters that do not fit or are missing (`invalid_params`); nested too deeply (`too_deep`) | error frame | goes on |
//! | the method says no (`failed`, or a code of its own), panics (`internal`), takes too long (`timeout`); its answer is over the limit (`answer_too_large`) | error frame | goes on |
//! | too many requests in the process, or subscriptions of the connection (`overloaded`) | error frame | goes on |
//! | cancelled by its caller (`cancelled`); a subscription when the server stops (`stopping`) | error frame | goes on; closes |
//! | a frame over the limit (`too_large`), or unfinished for too long (`timeout`) | error frame | closes |
//! | too many connections (`busy`) | error frame | closes |
//! | end of stream at a frame boundary, no request for long, answers that nobody reads | – | closes |
//!
//! A method is dropped at its next await, and its guards run, as soon as its caller is known to be gone: at once when the
//! connection breaks or, for subscriptions, when the caller ends its sending; [`Limits::half_close`] after that for others,
//! because a caller may end its sending and still read.
//!
//! A server that runs in many processes is [`serve_stream`] in the workers of `baton-cluster` (`examples/pingpong.rs`);
//! `examples/adder.rs` is the smallest whole service.

#![forbid(unsafe_code)]

mod call_error;
mod client;
mod connection;
mod driver;
mod error;
mod feed;
mod introspect;
mod limits;
mod router;
mod run;
mod server;
mod stats;
mod subscription;
mod unsent;

pub use baton_address::{Address, BindError, Stream};
pub use baton_wire::json_frame::code;
pub use call_error::CallError;
pub use client::Client;
pub use connection::{StreamEnd, serve_stream, serve_stream_until};
pub use error::RpcError;
pub use feed::Feed;
pub use limits::Limits;
pub use router::Router;
pub use server::{ServeError, Server};
pub use subscription::Subscription;
