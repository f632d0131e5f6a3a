//! The process around the judge: pool, thread, socket.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use aits_orders::{ForgetStream, StreamId, VssInfo, VssResultsQuery, inbox, method};
use aits_service::{ServiceContext, ServiceError};
use baton_client::{ConnectOptions, Inbox};
use baton_rpc::{Router, RpcError};
use tokio::sync::oneshot;

use crate::{Args, judge::Judge, ring::Ring};

/// How long the thread sleeps at most without a look at its orders.
const LOOK_UP: Duration = Duration::from_millis(250);
/// How long to wait for the memory daemon at the start.
const DAEMON_WITHIN: Duration = Duration::from_secs(10);
/// Orders to forget that wait for the thread; more are refused, and the caller asks again.
const ORDERS: usize = 1024;

/// Numbers of this process.
#[derive(Default)]
struct Counters {
    processed: AtomicU64,
    refused: AtomicU64,
}

/// Loads the model, joins the pool, judges until told to stop.
pub(crate) async fn serve(context: ServiceContext, args: &Args) -> Result<(), ServiceError> {
    let detector = aits_detect::open(&args.detector()).map_err(|e| ServiceError::config_from(&e))?;
    let model = detector.info().clone();
    let [width, height] = model.input;
    tracing::info!(
        "model {} with head {} at {width}x{height}, believed from {:.2}",
        model.file,
        model.head,
        model.confident
    );
    let options = ConnectOptions::new(args.name())
        .inbox(inbox::vss_frames(args.index))
        .read_only()
        .timeout(DAEMON_WITHIN);
    // The client is kept: it is this process' place in the pool.
    let (_client, frames) = context.pool(options)?;

    let (ring, counters) = (Arc::new(Ring::new()), Arc::new(Counters::default()));
    let (forget, orders) = mpsc::sync_channel(ORDERS);
    let (ended, end) = oneshot::channel();
    let thread = {
        let (context, ring, counters) = (context.clone(), Arc::clone(&ring), Arc::clone(&counters));
        let judge = Judge::new(detector);
        let work = move || {
            // A panic must end the process with a message, not leave a service that answers and judges nothing.
            let work = AssertUnwindSafe(|| judge_all(&context, judge, frames, &orders, &ring, &counters));
            let result = catch_unwind(work);
            let result = result.unwrap_or_else(|_| Err(ServiceError::failed("the judging thread panicked")));
            // Nobody listens when the service is ending anyway.
            let _ = ended.send(result);
        };
        thread::Builder::new().name("judge".into()).spawn(work)?
    };
    let info = VssInfo {
        model: model.file,
        head: model.head.name().into(),
        input: model.input,
        processed: 0,
        refused: 0,
    };
    let router = router(ring, counters, forget, info);
    let result = tokio::select! {
        result = context.serve(router) => result,
        result = end => return result.unwrap_or_else(|_| Err(ServiceError::failed("the judging thread is gone"))),
    };
    // The thread sees the order to end within LOOK_UP; the block that it holds goes back by its own hand.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    result
}

fn judge_all(
    context: &ServiceContext,
    mut judge: Judge,
    mut frames: Inbox,
    orders: &mpsc::Receiver<StreamId>,
    ring: &Ring,
    counters: &Counters,
) -> Result<(), ServiceError> {
    while !context.is_shutting_down() {
        let delivery = frames.recv(Some(LOOK_UP))?;
        // Before the frame: whoever was told that a stream is forgotten sees no frame sent later judged with the past.
        orders.try_iter().for_each(|stream| judge.forget(stream));
        let Some(delivery) = delivery else { continue };
        match judge.judge(&delivery.block) {
            Ok(result) => {
                // The pixels are not needed any more: their block is free before anybody hears of the result.
                drop(delivery);
                counters.processed.fetch_add(1, Relaxed);
                ring.push(result);
            }
            Err(why) => {
                counters.refused.fetch_add(1, Relaxed);
                tracing::warn!("block {:?} from {:?} was refused: {why}", delivery.block.id(), delivery.from);
            }
        }
    }
    Ok(())
}

fn router(
    ring: Arc<Ring>,
    counters: Arc<Counters>,
    forget: mpsc::SyncSender<StreamId>,
    info: VssInfo,
) -> Router {
    Router::new()
        .method(method::VSS_RESULTS, move |query: VssResultsQuery| {
            let ring = Arc::clone(&ring);
            async move { Ok(ring.poll(query).await) }
        })
        .method(method::VSS_FORGET, move |order: ForgetStream| {
            let sent = forget.try_send(order.stream);
            async move {
                sent.map_err(|_| {
                    RpcError::failed("too many orders to forget are waiting: ask again in a second")
                })
            }
        })
        .method(method::VSS_INFO, move |(): ()| {
            let info = VssInfo {
                processed: counters.processed.load(Relaxed),
                refused: counters.refused.load(Relaxed),
                ..info.clone()
            };
            async move { Ok(info) }
        })
}
