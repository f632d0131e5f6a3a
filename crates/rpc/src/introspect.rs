//! The methods that every server has: what it can do, what it has done, whether it is well.

use std::fmt;
use std::sync::Arc;

use baton_wire::json_frame::{Request, code};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::RpcError;
use crate::feed::answer_frame;
use crate::router::{Router, Start, read_params};

const METHODS: &str = "rpc.methods";
const STATS: &str = "rpc.stats";
const HEALTH: &str = "rpc.health";
pub(crate) const CANCEL: &str = "rpc.cancel";
/// The names of these methods.
pub(crate) const NAMES: [&str; 4] = [CANCEL, HEALTH, METHODS, STATS];

/// What is known of a method.
#[derive(Clone, Debug)]
pub(crate) struct About {
    out: &'static str,
    params: String,
    result: String,
    items: Option<String>,
    pub doc: &'static str,
}

impl About {
    pub fn new<P, R>(out: &'static str) -> About {
        About { out, params: type_of::<P>(), result: type_of::<R>(), items: None, doc: "" }
    }

    pub fn of_items<T>(mut self) -> About {
        self.items = Some(type_of::<T>());
        self
    }

    fn tell(&self, name: &str) -> Value {
        let mut told = json!({ "name": name, "out": self.out, "params": self.params, "result": self.result, "doc": self.doc });
        if let Some(items) = &self.items {
            told["items"] = json!(items);
        }
        told
    }
}

/// The type's name without the paths: `alloc::vec::Vec<my::Order>` is `Vec<Order>`.
fn type_of<T>() -> String {
    let mut short = String::new();
    for part in
        std::any::type_name::<T>().split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
    {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

/// What a service says of its own health.
#[derive(Clone, Default)]
pub(crate) struct Health(pub Option<Arc<dyn Fn() -> Result<(), String> + Send + Sync>>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Health")
    }
}

/// Answers a request that is for no method of the service.
pub(crate) fn answer(router: &Router, request: &Request<'_>, max: usize) -> Result<Start, RpcError> {
    let (out, result) = match &*request.method {
        METHODS => (METHODS, methods(router)),
        STATS => {
            let methods = router.methods.iter().map(|(name, entry)| (*name, &*entry.counters));
            (STATS, router.stats.report(methods))
        }
        HEALTH => (HEALTH, health(router)),
        CANCEL => {
            #[derive(serde::Deserialize)]
            struct Cancel {
                id: Box<RawValue>,
            }
            let Cancel { id: target } = read_params(CANCEL, request.params_text())?;
            return Ok(Start::Cancel {
                target,
                id: request.id.map(ToOwned::to_owned),
                notify: request.notify,
            });
        }
        unknown => {
            // A peer's text goes back shortened: an error must stay small whatever the request was.
            let name: String = unknown.chars().take(64).collect();
            let message = format!("no method `{name}`; `{METHODS}` lists those there are");
            return Err(RpcError::new(code::UNKNOWN_METHOD, message));
        }
    };
    if request.notify {
        return Ok(Start::Nothing);
    }
    answer_frame(out, &result, request.id, false, max).map(Start::Reply)
}

fn methods(router: &Router) -> Value {
    let names: Vec<_> = router.names().collect();
    let about: Vec<_> = router.methods.iter().map(|(name, entry)| entry.about.tell(name)).collect();
    json!({ "methods": names, "about": about })
}

fn health(router: &Router) -> Value {
    let said = router.health.0.as_ref().map_or(Ok(()), |ask| {
        // A panic in here is an answer too.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask()))
            .unwrap_or_else(|_| Err("the check itself failed; the server's log says where".to_owned()))
    });
    json!({
        "ok": said.is_ok(),
        "why": said.err(),
        "pid": std::process::id(),
        "uptime_s": router.stats.uptime().as_secs_f64(),
        "in_flight": router.stats.in_flight(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_types_name_is_told_without_its_paths() {
        assert_eq!(type_of::<Vec<Option<Box<RawValue>>>>(), "Vec<Option<Box<RawValue>>>");
        assert_eq!(type_of::<(u32, std::collections::BTreeMap<String, ()>)>(), "(u32, BTreeMap<String, ()>)");
        assert_eq!(type_of::<About>(), "About");
    }
}
