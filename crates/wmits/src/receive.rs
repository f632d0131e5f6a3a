//! The thread that receives frames. It sleeps in the inbox, not in the runtime: nothing else delays a frame.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aits_service::ServiceError;
use baton_client::{Inbox, RecvError};
use tokio::sync::oneshot;

use crate::desk::Desk;

/// Pace of [`Desk::tick`], also while no frames come.
const TICK: Duration = Duration::from_millis(50);

/// Starts the thread. The future resolves if the inbox is closed for good. The thread ends with the process, or then.
pub(crate) fn start(
    mut inbox: Inbox,
    desk: Arc<Desk>,
) -> Result<impl Future<Output = ServiceError> + Send, ServiceError> {
    let (closed, is_closed) = oneshot::channel();
    std::thread::Builder::new().name("frames".into()).spawn(move || {
        let error = receive(&mut inbox, &desk);
        let _main_has_ended = closed.send(error);
    })?;
    Ok(async move {
        match is_closed.await {
            Ok(error) => error.into(),
            Err(_) => ServiceError::failed("the thread that receives frames has ended by a panic"),
        }
    })
}

fn receive(inbox: &mut Inbox, desk: &Desk) -> RecvError {
    let mut next_tick = Instant::now();
    loop {
        match inbox.recv(Some(TICK)) {
            Ok(Some(delivery)) => desk.frame(delivery.block),
            Ok(None) => {}
            Err(error) => return error,
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            desk.tick();
        }
    }
}
