//! Where orders, frames and results meet: store, book, dispatch and senders behind their locks.
//!
//! Locks are taken in this order: `store` → `outbox` → `state`. `outbox` makes *decide and send* one step, so that frames
//! of a stream reach a vss in order, whichever thread decides; `state` is held for the decision only, so that a question
//! is never behind a send. `store` serialises changes of tasks, and is held while SQLite writes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aits_frame::{HeaderError, Picture};
use aits_orders::{
    FrameResult, Micros, ResultsReply, StartTask, StreamId, StreamsReply, Task, TaskList, WatchStream,
    Watching,
};
use baton_client::Block;
use tokio::sync::{Notify, watch};

use crate::book::{Book, VasOrder};
use crate::dispatch::{Action, Dispatch, Stamp};
use crate::outbox::Outbox;
use crate::refusal::{Refusal, check_order, check_watch};
use crate::store::{Intent, Record, Store, StoreError};

/// The shared state of a wmits.
#[derive(Debug)]
pub(crate) struct Desk {
    store: Mutex<Store>,
    outbox: Mutex<Outbox>,
    state: Mutex<State>,
    /// Orders to vas may be due.
    pub(crate) orders_due: Notify,
    /// Ticks with each result and each task that begins or goes.
    results: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    book: Book,
    dispatch: Dispatch<Block>,
    refused_blocks: u64,
}

impl Desk {
    /// A desk with the tasks of the store.
    pub(crate) fn new(store: Store, outbox: Outbox) -> Result<Self, StoreError> {
        let records = store.all()?;
        let mut dispatch = Dispatch::new(outbox.instances());
        for record in records.iter().filter(|record| record.intent == Intent::Run) {
            // Nothing was open before: no actions come of it.
            dispatch.open(record.stream, record.detect_hz);
        }
        Ok(Self {
            store: Mutex::new(store),
            outbox: Mutex::new(outbox),
            state: Mutex::new(State { book: Book::new(records), dispatch, refused_blocks: 0 }),
            orders_due: Notify::new(),
            results: watch::Sender::new(()),
        })
    }

    /// Decides and does. Reports of what could not be sent go straight back into the dispatch.
    fn step<T>(&self, decide: impl FnOnce(&mut State) -> (T, Vec<Action<Block>>)) -> T {
        let mut outbox = lock(&self.outbox);
        let (value, actions) = decide(&mut lock(&self.state));
        for action in actions {
            match action {
                Action::Judge { vss, stream, frame } => match outbox.judge(vss, frame) {
                    Ok(()) => lock(&self.state).dispatch.sent(stream),
                    Err(frame) => lock(&self.state).dispatch.not_sent(stream, frame),
                },
                Action::Share { inbox, block } => outbox.share(&inbox, block),
                Action::Forget { vss, stream } => outbox.forget(vss, stream),
            }
        }
        value
    }

    // ---- tasks -------------------------------------------------------------------------------------------------------

    pub(crate) fn start(&self, order: StartTask) -> Result<Task, Refusal> {
        check_order(&order)?;
        let mut store = lock(&self.store);
        let existing = {
            let state = lock(&self.state);
            let stream = order.id.as_deref().and_then(|id| state.book.find(id));
            stream.and_then(|stream| state.book.record(stream)).cloned()
        };
        let record = match existing {
            Some(record) if !record.same_order(&order) => return Err(Refusal::TaskExists(record.id)),
            Some(record) if record.intent == Intent::Run => return self.task(record.stream),
            Some(record) => {
                store.set_intent(record.stream, &Intent::Run)?;
                Record { intent: Intent::Run, ..record }
            }
            None => store.add(&order, &now_rfc3339())?,
        };
        tracing::info!("task {} starts: {}", record.id, crate::redacted(&record.url));
        let stream = record.stream;
        self.step(|state| {
            let actions = state.dispatch.open(stream, record.detect_hz);
            state.book.begin(record);
            ((), actions)
        });
        self.orders_due.notify_one();
        self.results.send_replace(());
        self.task(stream)
    }

    pub(crate) fn stop(&self, id: &str) -> Result<Task, Refusal> {
        let mut store = lock(&self.store);
        let stream = self.find(id)?;
        store.set_intent(stream, &Intent::Stopped)?;
        tracing::info!("task {id} is stopped");
        self.step(|state| {
            let routed = state.dispatch.routed(stream);
            state.book.stop(stream, routed);
            ((), state.dispatch.close(stream))
        });
        self.orders_due.notify_one();
        self.task(stream)
    }

    pub(crate) fn delete(&self, id: &str) -> Result<Task, Refusal> {
        let task = self.stop(id)?;
        let mut store = lock(&self.store);
        store.delete(task.stream)?;
        tracing::info!("task {id} is deleted");
        lock(&self.state).book.remove(task.stream);
        self.orders_due.notify_one();
        self.results.send_replace(());
        Ok(task)
    }

    pub(crate) fn list(&self) -> TaskList {
        let state = lock(&self.state);
        let tasks = state.book.streams().filter_map(|stream| state.task(stream)).collect();
        TaskList { tasks }
    }

    pub(crate) fn state(&self, id: &str) -> Result<Task, Refusal> {
        self.task(self.find(id)?)
    }

    fn find(&self, id: &str) -> Result<StreamId, Refusal> {
        lock(&self.state).book.find(id).ok_or_else(|| Refusal::NoSuchTask(id.to_owned()))
    }

    fn task(&self, stream: StreamId) -> Result<Task, Refusal> {
        lock(&self.state).task(stream).ok_or(Refusal::NoSuchStream(stream))
    }

    // ---- frames ------------------------------------------------------------------------------------------------------

    /// A block arrived in the inbox. What it carries is a claim of its sender.
    pub(crate) fn frame(&self, block: Block) {
        let (stream, stamp) = match Picture::parse(&block) {
            Ok(picture) => (picture.header().stream, Stamp::from(picture.header())),
            Err(error) => return self.refuse(error),
        };
        self.step(|state| {
            let actions = state.dispatch.frame(stream, stamp, block, Micros::monotonic_now());
            ((), actions)
        });
    }

    fn refuse(&self, error: HeaderError) {
        let mut state = lock(&self.state);
        state.refused_blocks += 1;
        // 1, 2, 4, 8…: a broken sender must not fill the log.
        if state.refused_blocks.is_power_of_two() {
            tracing::warn!("{} blocks were no pictures; the last one: {error}", state.refused_blocks);
        }
    }

    pub(crate) fn tick(&self) {
        let now = Micros::monotonic_now();
        self.step(|state| ((), state.dispatch.tick(now)));
        let mut outbox = lock(&self.outbox);
        let state = lock(&self.state);
        outbox.keep_watchers(|inbox| state.dispatch.watching(now).any(|watching| watching == inbox));
    }

    pub(crate) fn watch(&self, order: &WatchStream) -> Result<Watching, Refusal> {
        let ttl = check_watch(order)?;
        let now = Micros::monotonic_now();
        let until = Micros(now.0.saturating_add(ttl.0));
        self.step(|state| match state.dispatch.watch(order.stream, &order.inbox, until, now) {
            Some(Ok((newest, actions))) => (Ok(Watching { newest }), actions),
            Some(Err(_)) => (Err(Refusal::TooManyWatchers(order.stream)), Vec::new()),
            // A task that is stopped shows nothing, but is no error.
            None if state.book.record(order.stream).is_some() => (Ok(Watching { newest: None }), Vec::new()),
            None => (Err(Refusal::NoSuchStream(order.stream)), Vec::new()),
        })
    }

    // ---- results -----------------------------------------------------------------------------------------------------

    pub(crate) fn result(&self, result: FrameResult) {
        let now = Micros::monotonic_now();
        let wanted = self.step(|state| {
            let actions = state.dispatch.result(result.stream, result.sequence, now);
            (state.book.result(result, now), actions)
        });
        if wanted {
            self.results.send_replace(());
        }
    }

    pub(crate) fn vss_up(&self, vss: usize, restarted: bool) {
        self.step(|state| ((), state.dispatch.vss_up(vss, restarted, Micros::monotonic_now())));
    }

    pub(crate) fn vss_down(&self, vss: usize) {
        lock(&self.state).dispatch.vss_down(vss, Micros::monotonic_now());
    }

    /// For long polls: changes whenever [`Self::newest`] may have something new.
    pub(crate) fn results(&self) -> watch::Receiver<()> {
        self.results.subscribe()
    }

    /// The newest result, unless its version is `seen`.
    pub(crate) fn newest(&self, stream: StreamId, seen: u64) -> Result<Option<ResultsReply>, Refusal> {
        let state = lock(&self.state);
        let (version, result) = state.book.newest(stream).ok_or(Refusal::NoSuchStream(stream))?;
        Ok((version != seen).then(|| ResultsReply { version, result: result.cloned() }))
    }

    // ---- sources -----------------------------------------------------------------------------------------------------

    pub(crate) fn orders(&self) -> Vec<VasOrder> {
        lock(&self.state).book.orders()
    }

    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.state).book.epoch()
    }

    /// Changes the book, and stores what has come to an end.
    pub(crate) fn sources(&self, change: impl FnOnce(&mut Book) -> Vec<(StreamId, Intent)>) {
        let mut store = lock(&self.store);
        let outcomes = change(&mut lock(&self.state).book);
        for (stream, intent) in outcomes {
            // An outcome that cannot be stored is told all the same; at worst it is found out again after a restart.
            if let Err(error) = store.set_intent(stream, &intent) {
                tracing::error!("{error}");
            }
            let mut state = lock(&self.state);
            if let Some(record) = state.book.record(stream) {
                match &intent {
                    Intent::Failed(reason) => tracing::warn!("task {} failed: {reason}", record.id),
                    _ => tracing::info!("task {} has ended", record.id),
                }
            }
            state.book.finish(stream, intent);
        }
        if !self.orders().is_empty() {
            self.orders_due.notify_one();
        }
    }

    pub(crate) fn vas_says(&self, epoch: u64, reply: &StreamsReply) {
        self.sources(|book| book.vas_says(epoch, reply));
    }
}

impl State {
    fn task(&self, stream: StreamId) -> Option<Task> {
        self.book.task(stream, self.dispatch.routed(stream))
    }
}

fn now_rfc3339() -> String {
    let whole_seconds = jiff::TimestampRound::new().smallest(jiff::Unit::Second).mode(jiff::RoundMode::Trunc);
    let now = jiff::Timestamp::now();
    now.round(whole_seconds).unwrap_or(now).to_string()
}

/// A panic in one request must not end the others: every change leaves the state whole before it can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
