//! From a request's body to the method that carries it out.
//!
//! ```text
//!   body ──UTF-8, JSON, shape──▶ name, raw params ──typed params──▶ method ──▶ Run ──result──▶ frame
//!             └ bad_utf8, bad_json, bad_request, too_deep   └ invalid_params   └ failed, internal, timeout …
//! ```
//! The parameters stay raw JSON until the method's own type reads them, so they are parsed once and numbers keep every
//! digit (`Box<RawValue>` as a parameter gets them untouched).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use baton_wire::json_frame::{MAX_DEPTH, Request, code, is_deeper, is_too_deep};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::feed::{Feed, answer_frame};
use crate::introspect::{self, About, Health};
use crate::run::{Answer, Run, panicked};
use crate::stats::{Counters, Meter, Stats};
use crate::{Limits, RpcError};

/// A request on its way into its method.
pub(crate) struct Call<'a> {
    params: &'a str,
    id: Option<&'a RawValue>,
    max: usize,
}

/// A method that runs, and the items of a streaming one.
type Started = (Answer, Option<mpsc::Receiver<Vec<u8>>>);
/// Reads the parameters and starts the method.
type Method = Arc<dyn Fn(Call<'_>) -> Result<Started, RpcError> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Entry {
    method: Method,
    deadline: Option<Duration>,
    pub about: About,
    pub counters: Arc<Counters>,
}

/// What a body asks for.
pub(crate) enum Start {
    /// A method; it has not been polled yet.
    Run(Run),
    /// It is answered already.
    Reply(Vec<u8>),
    /// It needs no answer.
    Nothing,
    /// `rpc.cancel` of the request with the first id. The answer goes under the second.
    Cancel { target: Box<RawValue>, id: Option<Box<RawValue>>, notify: bool },
}

/// The methods of a server by name. Cheap to clone; clones share their counters. `rpc.methods`, `rpc.stats`, `rpc.health`
/// and `rpc.cancel` are always there.
#[derive(Clone, Default)]
pub struct Router {
    pub(crate) methods: Arc<BTreeMap<&'static str, Entry>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) health: Health,
    last: Option<&'static str>,
}

impl Router {
    /// A router that knows the `rpc.` methods only.
    pub fn new() -> Self {
        Router::default()
    }

    /// Adds a method (or replaces the one of that name), answered under its own name.
    ///
    /// The parameters arrive as `P`; absent parameters are `null`, which `()` and `Option` accept. The method is dropped
    /// at its next await when its caller goes away, cancels it, or at its deadline.
    pub fn method<P, R, F, Fut>(self, name: &'static str, f: F) -> Self
    where
        P: DeserializeOwned,
        R: Serialize,
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.method_as(name, name, f)
    }

    /// Adds a method whose answer has another name, as `ping` is answered by `pong`.
    pub fn method_as<P, R, F, Fut>(self, name: &'static str, out: &'static str, f: F) -> Self
    where
        P: DeserializeOwned,
        R: Serialize,
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        let about = About::new::<P, R>(out);
        let method: Method = Arc::new(move |Call { params, id, max }| {
            let answer = f(read_params(name, params)?);
            let id = id.map(ToOwned::to_owned);
            let answer = async move { answer_frame(out, &answer.await?, id.as_deref(), false, max) };
            Ok((Box::pin(answer), None))
        });
        self.insert(name, about, method)
    }

    /// Adds a method that answers many times: a subscription. It sends items through its [`Feed`], waits there while the
    /// caller is slow, and what it returns is the last answer. There is no deadline; the caller ends it by `rpc.cancel` or
    /// by going away, and a server that shuts down ends it with [`code::STOPPING`]. The request needs an `id`.
    pub fn streaming<P, T, R, F, Fut>(self, name: &'static str, f: F) -> Self
    where
        P: DeserializeOwned,
        T: Serialize + 'static,
        R: Serialize,
        F: Fn(P, Feed<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        let about = About::new::<P, R>(name).of_items::<T>();
        let method: Method = Arc::new(move |Call { params, id, max }| {
            let needs =
                || RpcError::new(code::BAD_REQUEST, format!("`{name}` answers many times: give an `id`"));
            let id = id.ok_or_else(needs)?.to_owned();
            let (feed, items) = Feed::new(id.clone(), name, max);
            let answer = f(read_params(name, params)?, feed);
            let answer = async move { answer_frame(name, &answer.await?, Some(&id), false, max) };
            Ok((Box::pin(answer), Some(items)))
        });
        self.insert(name, about, method)
    }

    /// Describes the method added last; `rpc.methods` tells.
    pub fn doc(self, text: &'static str) -> Self {
        self.change_last(|entry| entry.about.doc = text)
    }

    /// Gives the method added last a deadline of its own instead of [`Limits::request`].
    pub fn deadline(self, deadline: Duration) -> Self {
        self.change_last(|entry| entry.deadline = Some(deadline))
    }

    /// What `rpc.health` asks: an error says in one sentence why this process had better get no requests. Be quick.
    pub fn health(mut self, f: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.health = Health(Some(Arc::new(f)));
        self
    }

    /// The names that a caller may use.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.methods.keys().copied().chain(introspect::NAMES)
    }

    fn insert(mut self, name: &'static str, about: About, method: Method) -> Self {
        let entry = Entry { method, deadline: None, about, counters: Arc::default() };
        Arc::make_mut(&mut self.methods).insert(name, entry);
        self.last = Some(name);
        self
    }

    fn change_last(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        if let Some(entry) = self.last.and_then(|name| Arc::make_mut(&mut self.methods).get_mut(name)) {
            change(entry);
        }
        self
    }

    /// Begins what a body asks for. Never panics, whatever the method does.
    pub(crate) fn start(&self, body: &[u8], limits: &Limits) -> Start {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(error) => {
                let error = RpcError::new(error.code(), error.to_string());
                return self.refuse(&error, Request::id_of(body), false);
            }
        };
        match self.start_request(&request, body, limits) {
            Ok(start) => start,
            Err(error) => self.refuse(&error, request.id, request.notify),
        }
    }

    fn start_request(&self, request: &Request<'_>, body: &[u8], limits: &Limits) -> Result<Start, RpcError> {
        if limits.depth < MAX_DEPTH && is_deeper(body, limits.depth) {
            let message = format!("the request is nested deeper than {} levels", limits.depth);
            return Err(RpcError::new(code::TOO_DEEP, message));
        }
        let Some(entry) = self.methods.get(&*request.method) else {
            return introspect::answer(self, request, limits.frame_bytes);
        };
        if self.stats.in_flight() >= limits.requests {
            let message =
                format!("{} requests are under way, which is the limit; try again later", limits.requests);
            return Err(RpcError::new(code::OVERLOADED, message));
        }
        let mut meter = Meter::start(&self.stats, &entry.counters);
        let call = Call { params: request.params_text(), id: request.id, max: limits.frame_bytes };
        let started =
            catch_unwind(AssertUnwindSafe(|| (entry.method)(call))).unwrap_or_else(|_panic| Err(panicked()));
        match started {
            Err(error) => {
                meter.refused();
                Err(error)
            }
            Ok((_, Some(_))) if request.notify => {
                meter.refused();
                Err(RpcError::new(code::BAD_REQUEST, "a subscription without answers is of no use"))
            }
            Ok((answer, items)) => {
                let deadline =
                    if items.is_some() { None } else { Some(entry.deadline.unwrap_or(limits.request)) };
                let mut run = Run::new(answer, items, deadline, meter);
                run.id = request.id.map(ToOwned::to_owned);
                run.notify = request.notify;
                Ok(Start::Run(run))
            }
        }
    }

    /// The error answer to a request that does not begin.
    pub(crate) fn refuse(&self, error: &RpcError, id: Option<&RawValue>, notify: bool) -> Start {
        self.stats.error(&error.code);
        if notify {
            tracing::debug!(%error, "a notification has no effect");
            return Start::Nothing;
        }
        Start::Reply(error.to_frame(id))
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

pub(crate) fn read_params<P: DeserializeOwned>(name: &str, params: &str) -> Result<P, RpcError> {
    serde_json::from_str(params).map_err(|error| {
        if is_too_deep(params) {
            RpcError::new(
                code::TOO_DEEP,
                format!("the parameters of `{name}` nest deeper than {MAX_DEPTH} levels"),
            )
        } else {
            RpcError::invalid_params(format!("the parameters of `{name}`: {error}"))
        }
    })
}
