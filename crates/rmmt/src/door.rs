//! A connection before anybody knows what it is.
//!
//! ```text
//!   accepted ─▶ admitted? ─▶ first 4 bytes ──fourth byte 0: the pid of a classic hello──▶ classic
//!    un://, ip://  │ no         │        └───anything else─────────────────────────────▶ session (un:// only)
//!                  ▼            │ not there within 5 s
//!               refused       closed
//! ```
//!
//! A pid is at most 2^22, so the fourth byte of a classic hello is 0; the magic of an attached one is none. What is
//! neither gets the attached protocol's answer to garbage, over TCP nothing.

use std::rc::Rc;

use baton_address::Stream;
use baton_wire::attach::Answer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::classic::{self, Caller};
use crate::daemon::House;
use crate::registry::Peer;
use crate::session::{PATIENCE, Session};

/// Bytes that tell the two protocols apart.
pub(crate) const SNIFFED: usize = 4;

/// Somebody at the door.
pub(crate) struct Visitor {
    pub(crate) house: Rc<House>,
    /// The number of the connection, used once.
    pub(crate) number: u64,
}

impl Visitor {
    /// Finds out what `stream` is and serves it to its end. `known` is called once when it is no stranger any more.
    pub(crate) async fn enter(self, mut stream: Stream, known: impl FnOnce()) {
        let caller = match &stream {
            Stream::Tcp(tcp) => match self.admit_ip(tcp) {
                Some(caller) => caller,
                None => return,
            },
            Stream::Unix(unix) => match self.house.policy.admit(unix) {
                Ok((peer, grant)) => {
                    Caller::Process(Peer { pid: peer.pid.unsigned_abs(), uid: peer.uid, grant })
                }
                Err(failure) => {
                    if let Stream::Unix(stream) = stream {
                        let _ = crate::session::say(&stream, 0, &Answer::Error(failure), &[]).await;
                    }
                    return;
                }
            },
        };
        let mut first = [0; SNIFFED];
        match timeout(PATIENCE, stream.read_exact(&mut first)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return tracing::debug!("rmmt: a connection ended before its first word: {error}");
            }
            Err(_) => return tracing::debug!("rmmt: a connection was silent for too long"),
        }
        let Self { house, number } = self;
        match (stream, caller) {
            (_, Caller::Process(peer)) if first[3] == 0 && !peer.grant.writes => tracing::warn!(
                "rmmt: pid={} of user {} may read only; a classic client writes, so it is not served",
                peer.pid,
                peer.uid
            ),
            (stream, caller) if first[3] == 0 => {
                classic::serve(house, stream, caller, number, first, known).await
            }
            (Stream::Unix(stream), Caller::Process(peer)) => {
                Session { house, number, stream, peer, begun: Some(first) }.run(known).await;
            }
            _ => tracing::debug!("rmmt: a TCP connection that is no classic client is closed"),
        }
    }

    fn admit_ip(&self, stream: &TcpStream) -> Option<Caller> {
        let at = match stream.peer_addr() {
            Ok(address) => address.ip().to_canonical(),
            Err(error) => {
                tracing::debug!("rmmt: a TCP connection ended before it was looked at: {error}");
                return None;
            }
        };
        let grant = self.house.policy.admit_ip(at);
        if grant.is_none() {
            tracing::warn!("rmmt: refused a client at {at}: no rule [[admit_ip]] in the --config admits it");
        }
        Some(Caller::At(at, grant?))
    }
}
