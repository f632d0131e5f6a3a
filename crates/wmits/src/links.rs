//! The conversations that wmits keeps up: with vas about sources, with each vss about results.
//!
//! Each is a loop that asks, hears, and asks again; a peer that is away is asked again after [`AGAIN`]. Nothing is ever
//! given up, and no answer is needed for the next question to make sense.

use std::sync::Arc;
use std::time::Duration;

use aits_orders::{
    CloseStream, ForgetStream, OpenStream, Opened, StreamId, StreamsQuery, StreamsReply, VssResultsQuery,
    VssResultsReply, method,
};
use baton_rpc::{CallError, Client};
use tokio::sync::mpsc;

use crate::book::VasOrder;
use crate::desk::Desk;

/// Pause after a peer did not answer.
const AGAIN: Duration = Duration::from_millis(100);
/// Long poll of vas: also the pace at which its counters are read.
const VAS_WAIT_MS: u32 = 500;
/// Long poll of a vss.
const VSS_WAIT_MS: u32 = 2_000;
/// Time-out of calls beyond what they may wait by themselves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Listens to what vas tells of its streams.
pub(crate) async fn listen_to_vas(desk: Arc<Desk>, vas: Client) {
    let mut version = 0;
    loop {
        let epoch = desk.epoch();
        let query = StreamsQuery { version, wait_ms: VAS_WAIT_MS };
        let wait = PATIENCE + Duration::from_millis(VAS_WAIT_MS.into());
        let heard = desk.clone();
        match vas.call_with_timeout::<_, StreamsReply>(method::VAS_STREAMS, &query, wait).await {
            Ok(reply) => {
                version = reply.version;
                blocking(move || heard.vas_says(epoch, &reply)).await;
            }
            Err(error) => {
                tracing::debug!("vas: {error}");
                version = 0;
                blocking(move || {
                    heard.sources(|book| {
                        book.vas_gone();
                        Vec::new()
                    })
                })
                .await;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Gives vas the orders that are due.
pub(crate) async fn order_vas(desk: Arc<Desk>, vas: Client) {
    loop {
        let mut unreachable = false;
        for order in desk.orders() {
            unreachable |= give(&desk, &vas, order).await.is_err();
        }
        if unreachable {
            tokio::time::sleep(AGAIN).await;
        } else {
            desk.orders_due.notified().await;
        }
    }
}

/// vas could not be asked; the order stays due.
struct Unreachable;

async fn give(desk: &Arc<Desk>, vas: &Client, order: VasOrder) -> Result<(), Unreachable> {
    match order {
        VasOrder::Close(stream) => close(desk, vas, stream).await,
        VasOrder::Open(open) => self::open(desk, vas, open).await,
        VasOrder::Reopen(open) => {
            close(desk, vas, open.stream).await?;
            self::open(desk, vas, open).await
        }
    }
}

async fn close(desk: &Arc<Desk>, vas: &Client, stream: StreamId) -> Result<(), Unreachable> {
    let answer: Result<(), _> = vas.call(method::VAS_CLOSE, &CloseStream { stream }).await;
    let result = match &answer {
        Err(CallError::Remote(error)) => {
            tracing::warn!("vas does not close stream {stream}: {error}");
            Ok(())
        }
        Err(_) => Err(Unreachable),
        Ok(()) => Ok(()),
    };
    // If vas is away the order is dropped as well: what is open when it is back, it will tell.
    let desk = desk.clone();
    blocking(move || {
        desk.sources(|book| {
            book.closed(stream);
            Vec::new()
        })
    })
    .await;
    result
}

async fn open(desk: &Arc<Desk>, vas: &Client, open: OpenStream) -> Result<(), Unreachable> {
    let answer: Result<Opened, _> = vas.call(method::VAS_OPEN, &open).await;
    let desk = desk.clone();
    match answer {
        Ok(_) => {
            blocking(move || {
                desk.sources(|book| {
                    book.opened(&open);
                    Vec::new()
                })
            })
            .await;
            Ok(())
        }
        Err(CallError::Remote(error)) => {
            blocking(move || {
                desk.sources(|book| {
                    let outcome = book.refused(open.stream, &error.message);
                    outcome.map(|intent| (open.stream, intent)).into_iter().collect()
                })
            })
            .await;
            Ok(())
        }
        Err(error) => {
            tracing::debug!("vas: {error}");
            Err(Unreachable)
        }
    }
}

/// Gathers the results of one vss.
pub(crate) async fn listen_to_vss(desk: Arc<Desk>, index: usize, vss: Client) {
    let (mut process, mut after) = (0, 0);
    // The first question to a process is answered at once: no frames go to a vss before it has answered, so waiting for
    // results would wait in vain.
    let mut wait_ms = 0;
    loop {
        let query = VssResultsQuery { process, after, wait_ms };
        let wait = PATIENCE + Duration::from_millis(wait_ms.into());
        match vss.call_with_timeout::<_, VssResultsReply>(method::VSS_RESULTS, &query, wait).await {
            Ok(reply) => {
                desk.vss_up(index, reply.process != process);
                if reply.lost > 0 && reply.process == process {
                    tracing::warn!("vss-{index}: {} results were lost unseen", reply.lost);
                }
                (process, after, wait_ms) = (reply.process, reply.next, VSS_WAIT_MS);
                reply.results.into_iter().for_each(|result| desk.result(result));
            }
            Err(error) => {
                tracing::debug!("vss-{index}: {error}");
                desk.vss_down(index);
                wait_ms = 0;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Passes orders to forget on to one vss. One that cannot be reached has nothing to forget when it is back.
pub(crate) async fn forget_at_vss(mut streams: mpsc::Receiver<StreamId>, index: usize, vss: Client) {
    while let Some(stream) = streams.recv().await {
        let answer: Result<(), _> = vss.call(method::VSS_FORGET, &ForgetStream { stream }).await;
        if let Err(error) = answer {
            tracing::debug!("vss-{index} was not told to forget stream {stream}: {error}");
        }
    }
}

/// Work that may write to the disk, away from the threads of the runtime.
async fn blocking(work: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(work).await.is_err() {
        tracing::error!("a change of the tasks failed; the next answer repeats it");
    }
}
