//! What a run does: everything that can be chosen, and the check that the choices fit together.

use std::time::Duration;

use baton_address::Address;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The next one as soon as an answer has come: each connection keeps [`Plan::depth`] requests under way.
    Closed,
    /// So many a second over all connections, at fixed instants; latency counts from them.
    Rate(f64),
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// After this time.
    Time(Duration),
    /// After so many requests.
    Count(u64),
}

/// Which answer is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The parameters, unchanged.
    Echo,
    /// Anything that is no error.
    Any,
    /// This JSON.
    Value(String),
}

/// How an answer finds its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// The first answer belongs to the first request.
    Order,
    /// Each request carries an `id`, and so does its answer; any order is right.
    Id,
}

/// A few connections send most of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hot {
    /// Share of the connections, 0 to 1.
    pub connections: f64,
    /// Share of the requests that they send, 0 to 1.
    pub requests: f64,
    /// Which connections these are.
    pub place: Place,
}

/// Which connections are the hot ones. Connections are numbered in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Any, chosen by this seed.
    Random(u64),
    /// Each n-th, until there are enough: with n workers and round robin, all of them at one worker.
    Every(usize),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The server.
    pub address: Address,
    /// Connections that are open at once.
    pub connections: usize,
    /// Requests that a connection may have under way (pipelining).
    pub depth: usize,
    /// Closed or open loop.
    pub pace: Pace,
    /// For how long, or how many.
    pub extent: Extent,
    /// The method to call.
    pub method: String,
    /// The JSON of the parameters; without it a text that is different in each request.
    pub params: Option<String>,
    /// Bytes of the text that stands for parameters which were not given (at least 16).
    pub size: usize,
    /// Which answer is right.
    pub expect: Expect,
    /// How answers find their requests.
    pub matching: Matching,
    /// Whether some connections send more than others.
    pub hot: Option<Hot>,
    /// Whether to count which answer came how often (`whoami`: which worker answered).
    pub count_results: bool,
    /// Requests after which a connection is closed and another one made; a connection is then made when there is something
    /// to send, and that time is part of the latency.
    pub per_connection: Option<u64>,
    /// How long a request may take.
    pub timeout: Duration,
    /// The longest answer to accept, in bytes.
    pub answer_bytes_max: usize,
}

/// Choices that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A number is out of its range.
    #[error("{what} must be {range}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its range.
        range: &'static str,
    },
    /// Parameters that are no JSON.
    #[error("the {what} are not JSON: {reason}; quote them for the shell, as in '{{\"us\": 50}}'")]
    NotJson {
        /// Which text.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Fixed connections are needed for that.
    #[error(
        "hot connections must live: leave out either the share of hot ones or the number of requests per connection"
    )]
    HotAndFresh,
}

impl Plan {
    /// `ping` over one connection, one request at a time, for ten seconds.
    pub fn new(address: Address) -> Self {
        Plan {
            address,
            connections: 1,
            depth: 1,
            pace: Pace::Closed,
            extent: Extent::Time(Duration::from_secs(10)),
            method: "ping".to_owned(),
            params: None,
            size: 16,
            expect: Expect::Echo,
            matching: Matching::Order,
            hot: None,
            count_results: false,
            per_connection: None,
            timeout: Duration::from_secs(10),
            answer_bytes_max: baton_wire::json_frame::DEFAULT_MAX_BODY,
        }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`PlanError`], which names the choice.
    pub fn check(&self) -> Result<(), PlanError> {
        let in_range =
            |ok: bool, what, range| if ok { Ok(()) } else { Err(PlanError::Range { what, range }) };
        in_range((1..=1_000_000).contains(&self.connections), "connections", "1 to 1000000")?;
        in_range((1..=100_000).contains(&self.depth), "depth", "1 to 100000")?;
        in_range(self.size <= 8 << 20, "size", "at most 8 MiB")?;
        in_range(self.per_connection != Some(0), "requests per connection", "at least 1")?;
        in_range(self.timeout >= Duration::from_millis(1), "the time-out", "at least 1 ms")?;
        match self.extent {
            Extent::Count(count) => in_range(count > 0, "the number of requests", "at least 1")?,
            Extent::Time(time) => in_range(!time.is_zero(), "the time", "more than 0")?,
        }
        if let Pace::Rate(rate) = self.pace {
            in_range((0.001..=1e8).contains(&rate), "the rate", "0.001 to 100000000 a second")?;
        }
        if let Some(hot) = self.hot {
            let share = |share: f64| share > 0.0 && share < 1.0;
            let ok = share(hot.connections) && share(hot.requests) && hot.place != Place::Every(0);
            in_range(ok, "shares of hot connections and requests", "above 0 and below 100 %")?;
            if self.per_connection.is_some() {
                return Err(PlanError::HotAndFresh);
            }
        }
        if let Some(params) = &self.params {
            json("parameters", params)?;
        }
        if let Expect::Value(value) = &self.expect {
            json("expected results", value)?;
        }
        Ok(())
    }
}

fn json(what: &'static str, text: &str) -> Result<(), PlanError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| PlanError::NotJson { what, reason: error.to_string() })
}
