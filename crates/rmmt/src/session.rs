//! One connection of a member, or of somebody who asks about members.
//!
//! ```text
//!   (door) ─▶ open ──attach, resume──▶ attached ──bye──▶ ended (endpoint reaped)
//!              │ 5 s silent, garbage      │ end of stream, garbage
//!              ▼                          ▼
//!            ended                     ended (registry: hung up)
//! ```
//!
//! A message must be complete 5 s after its first byte and an answer must be taken within 5 s; between messages an
//! attached member may be silent for ever. Requests are answered one after the other, so a peer that does not read its
//! answers stops itself only. Nothing is buffered but one request of at most 4 KiB and its answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use baton_fdpass as fdpass;
use baton_killpoint::step;
use baton_pool::{BlockId, EndpointId, EndpointRef};
use baton_wire::attach::{
    Access, Answer, Attached, DecodeError, ErrorCode, Failure, HEADER_LEN, Header, Kind, Opened, Request,
    Resumed,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::classic::{self, Unconfirmed};
use crate::daemon::House;
use crate::door::SNIFFED;
use crate::registry::{Peer, Registry};
use crate::report;

/// For the first message, for the rest of a begun one, and for taking an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection that only asks questions may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// How long a hang-up may turn out to be a death.
const DYING: Duration = Duration::from_millis(100);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("end of stream")]
    Eof,
    #[error("bye")]
    Bye,
    #[error("it was silent for too long")]
    Silent,
    #[error("it does not read its answers")]
    Deaf,
    #[error("{0}")]
    Garbage(#[from] DecodeError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A connection being served.
pub(crate) struct Session {
    pub(crate) house: Rc<House>,
    pub(crate) number: u64,
    pub(crate) stream: UnixStream,
    pub(crate) peer: Peer,
    /// What was read at the door, until it is taken for the first request.
    pub(crate) begun: Option<[u8; SNIFFED]>,
}

impl Session {
    /// Serves the connection to its end. `attached` is called once when it becomes a member's.
    pub(crate) async fn run(mut self, attached: impl FnOnce()) {
        let peer = self.peer;
        let mut member = None;
        let end = self.serve(peer, &mut member, attached).await;
        tracing::debug!("rmmt: connection of pid={} ended: {end}", peer.pid);
        let Some(endpoint) = member else { return };
        if matches!(end, End::Bye) {
            self.house.registry.borrow_mut().leave(endpoint, self.number);
            return;
        }
        // A process that is being killed closes its files a moment before it is dead; then this is no hang-up, and what
        // waits in its inbox belongs on the line of its death.
        let process = self.house.registry.borrow().process(endpoint);
        if let Some(process) = process {
            let _ = timeout(DYING, process.ended()).await;
        }
        self.house.registry.borrow_mut().hung_up(endpoint, self.number);
    }

    async fn serve(&mut self, peer: Peer, member: &mut Option<EndpointRef>, attached: impl FnOnce()) -> End {
        let mut attached = Some(attached);
        let mut patience = PATIENCE;
        let mut unconfirmed: Option<Unconfirmed> = None;
        loop {
            let (serial, request) = match self.request(member.is_none().then_some(patience)).await {
                Ok(request) => request,
                Err(end) => {
                    if let End::Garbage(error) = &end {
                        let code = match error {
                            DecodeError::Version { .. } => ErrorCode::Version,
                            _ => ErrorCode::BadRequest,
                        };
                        let _ =
                            self.answer(0, &Answer::Error(Failure::new(code, error.to_string())), &[]).await;
                    }
                    return end;
                }
            };
            let sent = unconfirmed.take();
            if let Request::Confirm { bid } = request {
                sent.into_iter().for_each(|sent| sent.confirm(bid));
                continue;
            }
            drop(sent);
            patience = IDLE;
            let bye = matches!(request, Request::Bye);
            let stranger = member.is_none();
            let (answer, fds) = self.handle(peer, member, request).await.unwrap_or_else(|failure| {
                tracing::debug!("rmmt: pid={}: {}: {}", peer.pid, failure.code, failure.message);
                (Answer::Error(failure), Vec::new())
            });
            if member.is_some()
                && let Some(attached) = attached.take()
            {
                attached();
            }
            if let Answer::Transfer { bid, .. } = &answer {
                unconfirmed = Some(Unconfirmed::new(&self.house, *bid));
            }
            if let Err(end) = self.answer(serial, &answer, &fds).await {
                if let (Answer::Attached(_), Some(endpoint)) =
                    (&answer, stranger.then(|| member.take()).flatten())
                {
                    // It never learned that it is a member (it gave up waiting), so it holds nothing.
                    self.house.registry.borrow_mut().undo(endpoint);
                }
                return if bye { End::Bye } else { end };
            }
            if stranger && member.is_some() {
                step!(AdmitAnswered);
            }
            if bye {
                return End::Bye;
            }
        }
    }

    async fn request(&mut self, patience: Option<Duration>) -> Result<(u32, Request), End> {
        // The first byte may take its time; the rest may not.
        let mut head = [0; HEADER_LEN];
        let begun = match self.begun.take() {
            Some(begun) => {
                head[..SNIFFED].copy_from_slice(&begun);
                SNIFFED
            }
            None => {
                let first = self.stream.read(&mut head[..1]);
                match patience {
                    Some(patience) => timeout(patience, first).await.map_err(|_| End::Silent)??,
                    None => first.await?,
                }
            }
        };
        if begun == 0 {
            return Err(End::Eof);
        }
        let rest = async {
            self.stream.read_exact(&mut head[begun..]).await?;
            let header = Header::decode(&head, Kind::Request)?;
            header.check_version()?;
            let mut body = vec![0; header.body_len];
            self.stream.read_exact(&mut body).await?;
            Ok::<_, End>((header.serial, Request::decode(&body)?))
        };
        timeout(PATIENCE, rest).await.map_err(|_| End::Silent)?
    }

    async fn answer(&mut self, serial: u32, answer: &Answer, fds: &[OwnedFd]) -> Result<(), End> {
        say(&self.stream, serial, answer, fds).await
    }

    async fn handle(
        &self,
        peer: Peer,
        member: &mut Option<EndpointRef>,
        request: Request,
    ) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let registry = &self.house.registry;
        let not_attached = || {
            Failure::new(
                ErrorCode::NotAttached,
                "only a member opens inboxes and borrows blocks; attach first",
            )
        };
        let answer = match request {
            Request::Attach(_) | Request::Resume(_) if member.is_some() => {
                return Err(Failure::new(ErrorCode::BadRequest, "this connection is attached already"));
            }
            Request::Attach(ask) => {
                let admitted = Registry::admit(registry, peer, &ask, self.number, &self.stream)?;
                let fds = self.house.descriptors(ask.access == Access::ReadOnly, admitted.wake).map_err(
                    |error| {
                        tracing::error!("rmmt: pid={}: descriptors: {error}", peer.pid);
                        registry.borrow_mut().undo(admitted.endpoint);
                        Failure::new(ErrorCode::Internal, "the memory daemon has too many open files")
                    },
                )?;
                *member = Some(admitted.endpoint);
                classic::make_way(&self.house, peer.pid);
                tracing::info!(
                    "rmmt: attached pid={} name={} endpoint={}",
                    peer.pid,
                    ask.name,
                    admitted.endpoint.id
                );
                let EndpointRef { id, incarnation } = admitted.endpoint;
                return Ok((Answer::Attached(Attached { endpoint: id.get(), incarnation }), fds));
            }
            Request::Resume(ask) => {
                let unknown = || Failure::new(ErrorCode::UnknownEndpoint, "no such endpoint; connect again");
                let id = EndpointId::new(ask.endpoint).ok_or_else(unknown)?;
                let endpoint = EndpointRef { id, incarnation: ask.incarnation };
                registry.borrow_mut().resume(peer, endpoint, ask.token, self.number)?;
                *member = Some(endpoint);
                Answer::Resumed(Resumed { endpoint: ask.endpoint })
            }
            Request::OpenInbox { inbox } => {
                member.ok_or_else(not_attached)?;
                let found = registry.borrow_mut().open_inbox(&inbox)?;
                let EndpointRef { id, incarnation } = found.endpoint;
                return Ok((Answer::Opened(Opened { endpoint: id.get(), incarnation }), vec![found.wake]));
            }
            Request::Inboxes => Answer::Inboxes { inboxes: report::inboxes(&registry.borrow()) },
            Request::Keep => {
                let theirs = self.house.keeping.asked(registry, peer)?;
                return Ok((Answer::Kept, vec![theirs]));
            }
            Request::Members => {
                Answer::Members { members: report::members(&registry.borrow(), &self.house.classic) }
            }
            Request::Pool => {
                Answer::Pool(report::pool(&registry.borrow(), self.house.lives, self.house.pool_id))
            }
            Request::Blocks { held_by, from, limit } => {
                let unknown = || Failure::new(ErrorCode::NotFound, "an endpoint's number is 1 to 2047");
                let held_by = held_by.map(|id| EndpointId::new(id).ok_or_else(unknown)).transpose()?;
                let pool = registry.borrow().pool().clone();
                let listed = move || report::blocks(&pool, held_by, from, limit);
                let (blocks, next) = tokio::task::spawn_blocking(listed).await.map_err(|error| {
                    tracing::error!("rmmt: listing blocks failed: {error}");
                    Failure::new(ErrorCode::Internal, "listing blocks failed; see the memory daemon's log")
                })?;
                Answer::Blocks { blocks, next }
            }
            Request::Borrow { block } => {
                let asker = member.ok_or_else(not_attached)?;
                let block = registry.borrow_mut().borrow_block(asker, BlockId::new(block))?;
                Answer::Borrowed { block }
            }
            Request::Return { block } => {
                let asker = member.ok_or_else(not_attached)?;
                registry.borrow_mut().return_block(asker, BlockId::new(block))?;
                Answer::Returned
            }
            Request::Audit => {
                let pool = registry.borrow().pool().clone();
                let audit = tokio::task::spawn_blocking(move || report::audit(&pool)).await;
                Answer::Audit(audit.map_err(|error| {
                    tracing::error!("rmmt: the audit failed: {error}");
                    Failure::new(ErrorCode::Internal, "the audit failed; see the memory daemon's log")
                })?)
            }
            Request::MakeRoom { bytes } => {
                if member.is_none() {
                    return Err(Failure::new(
                        ErrorCode::NotAttached,
                        "only a member needs room; attach first",
                    ));
                }
                let made = usize::try_from(bytes).is_ok_and(|len| registry.borrow_mut().make_room(len));
                Answer::MadeRoom { made }
            }
            Request::SendToPid { pid, blocks } => {
                let Some(endpoint) = *member else {
                    return Err(Failure::new(ErrorCode::NotAttached, "only a member sends; attach first"));
                };
                let (bid, nodes) = classic::send_to_pid(&self.house, endpoint, peer.pid, &blocks, pid)?;
                Answer::Transfer { bid, nodes }
            }
            Request::Bye => {
                // Before the answer: who has it can rely on nobody sending there any more.
                if let Some(endpoint) = *member {
                    registry.borrow_mut().leave(endpoint, self.number);
                }
                Answer::Bye
            }
            _ => return Err(Failure::new(ErrorCode::BadRequest, "this daemon does not know that request")),
        };
        Ok((answer, Vec::new()))
    }
}

/// Writes one answer, with descriptors.
pub(crate) async fn say(
    stream: &UnixStream,
    serial: u32,
    answer: &Answer,
    fds: &[OwnedFd],
) -> Result<(), End> {
    let bytes = answer.encode(serial).map_err(io::Error::other)?;
    let mut fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let write = async {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let sent = stream.async_io(Interest::WRITABLE, || Ok(fdpass::send(stream, rest, &fds)?)).await?;
            rest = rest.get(sent..).unwrap_or_default();
            fds.clear(); // they went with the first byte
        }
        Ok::<_, io::Error>(())
    };
    timeout(PATIENCE, write).await.map_err(|_| End::Deaf)??;
    Ok(())
}
