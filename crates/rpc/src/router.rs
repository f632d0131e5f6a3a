//! From a request's body to its answer's frame.
//!
//! ```text
//!   body ──UTF-8, JSON, shape──▶ name, raw params ──typed params──▶ method ──result──▶ frame
//!             └ bad_utf8, bad_json, bad_request, too_deep   └ invalid_params  └ failed, internal, timeout …
//! ```
//! The parameters stay raw JSON until the method's own type reads them, so they are parsed once and numbers keep every
//! digit (`Box<RawValue>` as a parameter gets them untouched).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use baton_wire::json_frame::{EncodeError, MAX_DEPTH, Request, ResultOut, code, encode, is_too_deep};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Limits, RpcError};

/// Lists the methods of a server: `{"methods": [NAME, …]}`.
pub(crate) const METHODS: &str = "rpc.methods";

/// The frame of an answer, or the error to be answered.
type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, RpcError>> + Send>>;
/// Reads the parameters and starts the method; the number is the largest answer in bytes.
type Method = Arc<dyn Fn(&str, usize) -> Result<Answer, RpcError> + Send + Sync>;

/// The methods of a server by name. Cheap to clone. `rpc.methods` is always there and lists them.
#[derive(Clone, Default)]
pub struct Router {
    methods: Arc<BTreeMap<&'static str, Method>>,
}

impl Router {
    /// A router that knows `rpc.methods` only.
    pub fn new() -> Self {
        Router::default()
    }

    /// Adds a method (or replaces the one of that name), answered under its own name.
    ///
    /// The parameters arrive as `P`; absent parameters are `null`, which `()` and `Option` accept.
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
    pub fn method_as<P, R, F, Fut>(mut self, name: &'static str, out: &'static str, f: F) -> Self
    where
        P: DeserializeOwned,
        R: Serialize,
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        let method: Method = Arc::new(move |params, max| {
            let params = serde_json::from_str(params).map_err(|error| bad_params(name, params, &error))?;
            let answer = f(params);
            Ok(Box::pin(async move {
                let result = answer.await?;
                encode(&ResultOut { out, result: &result }, max).map_err(|error| match error {
                    EncodeError::TooLarge(_) => {
                        RpcError::new(code::ANSWER_TOO_LARGE, format!("the answer to `{name}` is {error}"))
                    }
                    EncodeError::Json(_) => RpcError::internal(format!("the answer to `{name}`: {error}")),
                })
            }))
        });
        Arc::make_mut(&mut self.methods).insert(name, method);
        self
    }

    /// The names that a caller may use.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.methods.keys().copied().chain([METHODS])
    }

    /// The answer to one request, error answers included. Never fails and never panics.
    pub(crate) fn answer(
        &self,
        body: &[u8],
        limits: &Limits,
    ) -> impl Future<Output = Vec<u8>> + Send + use<> {
        // Everything that borrows the body happens here, before the first await.
        let started = catch_unwind(AssertUnwindSafe(|| self.start(body, limits.frame_bytes)))
            .unwrap_or_else(|_| Err(panicked()));
        let deadline = limits.request;
        async move {
            let outcome = match started {
                Err(error) => Err(error),
                Ok(answer) => {
                    match tokio::time::timeout(deadline, AssertUnwindSafe(answer).catch_unwind()).await {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_panic)) => Err(panicked()),
                        Err(_elapsed) => Err(RpcError::new(
                            code::TIMEOUT,
                            format!("no answer within {} s", deadline.as_secs_f32()),
                        )),
                    }
                }
            };
            outcome.unwrap_or_else(|error| error.to_frame())
        }
    }

    fn start(&self, body: &[u8], max: usize) -> Result<Answer, RpcError> {
        let request = Request::parse(body).map_err(|error| RpcError::new(error.code(), error.to_string()))?;
        if let Some(method) = self.methods.get(&*request.method) {
            return method(request.params_text(), max);
        }
        if request.method == METHODS {
            let names: Vec<_> = self.names().collect();
            let result = serde_json::json!({ "methods": names });
            let frame = encode(&ResultOut { out: METHODS, result: &result }, max)
                .map_err(|error| RpcError::internal(error.to_string()));
            return Ok(Box::pin(std::future::ready(frame)));
        }
        // A peer's text goes back shortened: an error must stay small whatever the request was.
        let name: String = request.method.chars().take(64).collect();
        Err(RpcError::new(
            code::UNKNOWN_METHOD,
            format!("no method `{name}`; `{METHODS}` lists those there are"),
        ))
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn bad_params(name: &str, params: &str, error: &serde_json::Error) -> RpcError {
    if is_too_deep(params) {
        RpcError::new(
            code::TOO_DEEP,
            format!("the parameters of `{name}` nest deeper than {MAX_DEPTH} levels"),
        )
    } else {
        RpcError::invalid_params(format!("the parameters of `{name}`: {error}"))
    }
}

fn panicked() -> RpcError {
    RpcError::internal("the method failed unexpectedly; the server's log says where")
}
