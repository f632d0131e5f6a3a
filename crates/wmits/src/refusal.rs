//! What wmits refuses, why, and under which code.

use aits_orders::{Micros, StartTask, StreamId, WatchStream};
use baton_rpc::RpcError;

use crate::store::StoreError;

const ID_MAX: usize = 64;
const URL_MAX: usize = 4096;
const INBOX_MAX: usize = 64;
const TTL_MAX_MS: u32 = 60_000;
const DETECT_HZ: std::ops::RangeInclusive<f64> = 0.1..=30.0;

/// Why a request is not carried out. The codes are part of the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no task `{0}`; `task.list` names those that there are")]
    NoSuchTask(String),
    #[error("there is no task with stream {0}")]
    NoSuchStream(StreamId),
    #[error("task `{0}` exists with other parameters; delete it first or choose another id")]
    TaskExists(String),
    #[error("stream {0} has {max} watchers already", max = crate::dispatch::WATCHERS_MAX)]
    TooManyWatchers(StreamId),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(_) => Self::invalid_params(message),
            Refusal::NoSuchTask(_) => Self::new("no_such_task", message),
            Refusal::NoSuchStream(_) => Self::new("no_such_stream", message),
            Refusal::TaskExists(_) => Self::new("task_exists", message),
            Refusal::TooManyWatchers(_) => Self::new("too_many_watchers", message),
            Refusal::Store(_) => Self::new("store_failed", message),
        }
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::Invalid(message.into())
}

/// Checks the parameters of `task.start`.
pub(crate) fn check_order(order: &StartTask) -> Result<(), Refusal> {
    if let Some(id) = &order.id {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // An id becomes a segment of a path, and browsers resolve a segment of dots away.
        if id.is_empty() || id.len() > ID_MAX || !id.chars().all(allowed) || id.chars().all(|c| c == '.') {
            return Err(invalid(format!(
                "an id has 1 to {ID_MAX} of the characters A-Z a-z 0-9 . _ - and not dots alone"
            )));
        }
    }
    if order.url.is_empty() || order.url.len() > URL_MAX || order.url.chars().any(char::is_control) {
        return Err(invalid(format!(
            "a url is a path or address of 1 to {URL_MAX} bytes without control characters"
        )));
    }
    if !DETECT_HZ.contains(&order.detect_hz) {
        let (low, high) = (DETECT_HZ.start(), DETECT_HZ.end());
        return Err(invalid(format!("detect_hz is {}, it must be from {low} to {high}", order.detect_hz)));
    }
    Ok(())
}

/// Checks the parameters of `watch`; answers for how long.
pub(crate) fn check_watch(order: &WatchStream) -> Result<Micros, Refusal> {
    if order.inbox.is_empty()
        || order.inbox.len() > INBOX_MAX
        || !order.inbox.chars().all(|c| c.is_ascii_graphic())
    {
        return Err(invalid(format!("the name of an inbox has 1 to {INBOX_MAX} visible ASCII characters")));
    }
    if order.ttl_ms == 0 || order.ttl_ms > TTL_MAX_MS {
        return Err(invalid(format!("ttl_ms is {}, it must be from 1 to {TTL_MAX_MS}", order.ttl_ms)));
    }
    Ok(Micros(i64::from(order.ttl_ms) * 1000))
}

#[cfg(test)]
mod tests {
    use aits_orders::Pace;

    use super::*;

    fn order(id: &str, url: &str, detect_hz: f64) -> StartTask {
        StartTask { id: Some(id.into()), url: url.into(), pace: Pace::Fast, repeat: false, detect_hz }
    }

    #[test]
    fn orders_are_checked() {
        check_order(&order("Cam_1.north-2", "a.mp4", 0.1)).unwrap();
        for (id, url, hz) in [
            ("", "a", 5.0),
            ("a/b", "a", 5.0),
            (".", "a", 5.0),
            ("..", "a", 5.0),
            ("ä", "a", 5.0),
            (&"x".repeat(65), "a", 5.0),
            ("a", "", 5.0),
            ("a", "a\nb", 5.0),
            ("a", "a", 0.0),
            ("a", "a", 30.1),
            ("a", "a", f64::NAN),
        ] {
            assert!(check_order(&order(id, url, hz)).is_err(), "{id:?} {url:?} {hz}");
        }
    }

    #[test]
    fn watches_are_checked() {
        let watch = |inbox: &str, ttl_ms| WatchStream { stream: StreamId(1), inbox: inbox.into(), ttl_ms };
        assert_eq!(check_watch(&watch("preview.frames", 60_000)).unwrap(), Micros(60_000_000));
        for bad in [watch("", 1), watch("a b", 1), watch("a", 0), watch("a", 60_001)] {
            assert!(check_watch(&bad).is_err(), "{bad:?}");
        }
    }
}
