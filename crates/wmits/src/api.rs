//! The methods that wmits answers: the platform's orders, results, watching.

use std::sync::Arc;
use std::time::Duration;

use aits_orders::{ResultsQuery, ResultsReply, StartTask, TaskRef, WatchStream, method};
use baton_rpc::{Router, RpcError};

use crate::desk::Desk;
use crate::refusal::Refusal;

/// Longest wait that is granted to a long poll.
const WAIT_MAX_MS: u32 = 10_000;

pub(crate) fn router(desk: &Arc<Desk>) -> Router {
    let with = |desk: &Arc<Desk>| Arc::clone(desk);
    let (start, stop, delete, state) = (with(desk), with(desk), with(desk), with(desk));
    let (list, watch, results) = (with(desk), with(desk), with(desk));
    Router::new()
        .method(method::TASK_START, move |order: StartTask| change(&start, move |desk| desk.start(order)))
        .method(method::TASK_STOP, move |task: TaskRef| change(&stop, move |desk| desk.stop(&task.id)))
        .method(method::TASK_DELETE, move |task: TaskRef| change(&delete, move |desk| desk.delete(&task.id)))
        .method(method::TASK_STATE, move |task: TaskRef| change(&state, move |desk| desk.state(&task.id)))
        .method(method::TASK_LIST, move |(): ()| change(&list, |desk| Ok(desk.list())))
        .method(method::WATCH, move |order: WatchStream| change(&watch, move |desk| desk.watch(&order)))
        .method(method::RESULTS, move |query: ResultsQuery| newest(Arc::clone(&results), query))
}

/// Runs what may write to the disk, or wait for a look-up, away from the threads of the runtime.
fn change<R, F>(
    desk: &Arc<Desk>,
    work: F,
) -> impl Future<Output = Result<R, RpcError>> + Send + 'static + use<R, F>
where
    R: Send + 'static,
    F: FnOnce(&Desk) -> Result<R, Refusal> + Send + 'static,
{
    let desk = Arc::clone(desk);
    async move {
        let done = tokio::task::spawn_blocking(move || work(&desk)).await;
        done.map_err(|_| RpcError::internal("the request failed inside wmits; its log says more"))?
            .map_err(Into::into)
    }
}

async fn newest(desk: Arc<Desk>, query: ResultsQuery) -> Result<ResultsReply, RpcError> {
    let mut ticks = desk.results();
    let wait = Duration::from_millis(query.wait_ms.min(WAIT_MAX_MS).into());
    let newer = async {
        loop {
            ticks.mark_unchanged();
            if let Some(reply) = desk.newest(query.stream, query.after)? {
                return Ok(reply);
            }
            if ticks.changed().await.is_err() {
                return Ok(ResultsReply { version: query.after, result: None });
            }
        }
    };
    let nothing = ResultsReply { version: query.after, result: None };
    tokio::time::timeout(wait, newer).await.unwrap_or(Ok(nothing))
}
