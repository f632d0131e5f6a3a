//! Which request an answer belongs to, and whether it is right. An answer is a claim: nothing in it is believed.
//!
//! ```text
//!   the oldest request's answer, byte for byte ──▶ right      (nearly always; no JSON is parsed)
//!   otherwise parsed: an error frame            ──▶ refused   (the oldest's, or the one with this id)
//!                     of a request that has ended ▶ unasked
//!                     of another request         ──▶ out of order
//!                     anything else              ──▶ wrong
//! ```

use std::borrow::Cow;
use std::collections::VecDeque;

use baton_wire::json_frame::ErrorBody;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::plan::{Expect, Matching, Plan};
use crate::request::{Params, identity};

/// A request under way. Times are nanoseconds since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// Counts all requests of the run.
    pub(crate) number: u64,
    /// When it should have left.
    pub(crate) due: u64,
    /// When it left.
    pub(crate) sent: u64,
}

/// What an answer is, and the request that has ended by it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Right(UnderWay),
    Refused { request: Option<UnderWay>, code: String },
    Wrong(UnderWay),
    OutOfOrder(UnderWay),
    Unasked,
}

/// Judges answers.
#[derive(Debug)]
pub(crate) struct Judge {
    params: Params,
    expect: Expect,
    matching: Matching,
    /// What `out` must be.
    out: Option<&'static str>,
    expected: Vec<u8>,
}

/// An answer as it stands in a body.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    out: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorBody<'a>>,
    #[serde(default)]
    id: Option<u64>,
}

impl Judge {
    /// For the answers to a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let out = (plan.method == "ping").then_some("pong");
        Judge {
            params: Params::of(plan),
            expect: plan.expect.clone(),
            matching: plan.matching,
            out,
            expected: Vec::new(),
        }
    }

    /// Finds and removes the request that `body` answers. `result` gets the JSON of a right answer's result, if wanted.
    pub(crate) fn judge(
        &mut self,
        connection: usize,
        pending: &mut VecDeque<UnderWay>,
        body: &[u8],
        result: Option<&mut String>,
    ) -> Found {
        if result.is_none() && self.is_plainly_right(connection, pending.front(), body) {
            return pending.pop_front().map_or(Found::Unasked, Found::Right);
        }
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else {
            return pending.pop_front().map_or(Found::Unasked, Found::Wrong);
        };
        if let Some(error) = answer.error {
            let request = match self.matching {
                Matching::Order => pending.pop_front(),
                Matching::Id => take(pending, answer.id),
            };
            return Found::Refused { request, code: error.code.into_owned() };
        }
        let named = self.out.is_none_or(|out| answer.out.as_deref() == Some(out)) && answer.out.is_some();
        let json = answer.result.map_or("null", RawValue::get);
        let found = match self.matching {
            Matching::Id => match take(pending, answer.id) {
                None => Found::Unasked,
                Some(request) if named && self.is_right(connection, request, json) => Found::Right(request),
                Some(request) => Found::Wrong(request),
            },
            Matching::Order => self.in_order(connection, pending, json, named),
        };
        if let (Found::Right(_), Some(result)) = (&found, result) {
            json.clone_into(result);
        }
        found
    }

    fn in_order(
        &mut self,
        connection: usize,
        pending: &mut VecDeque<UnderWay>,
        json: &str,
        named: bool,
    ) -> Found {
        let Some(&oldest) = pending.front() else { return Found::Unasked };
        if named && self.is_right(connection, oldest, json) {
            pending.pop_front();
            return Found::Right(oldest);
        }
        // Which one is it? Only unique texts tell.
        let unique = self.expect == Expect::Echo && matches!(self.params, Params::Unique { .. });
        match identity(json).filter(|(whose, _)| unique && *whose == connection) {
            Some((_, number)) if number < oldest.number => Found::Unasked,
            Some((_, number)) => match take(pending, Some(number)) {
                Some(other) if named && self.is_right(connection, other, json) => Found::OutOfOrder(other),
                Some(other) => Found::Wrong(other),
                None if number > oldest.number && self.is_known_gap(pending, number) => Found::Unasked,
                None => pending.pop_front().map_or(Found::Unasked, Found::Wrong),
            },
            None => pending.pop_front().map_or(Found::Unasked, Found::Wrong),
        }
    }

    /// A request younger than the oldest that is under way no more was answered out of order before.
    fn is_known_gap(&self, pending: &VecDeque<UnderWay>, number: u64) -> bool {
        pending.back().is_some_and(|youngest| number < youngest.number)
    }

    fn is_right(&mut self, connection: usize, request: UnderWay, json: &str) -> bool {
        match &self.expect {
            Expect::Any => true,
            Expect::Value(value) => same(value, json),
            Expect::Echo => {
                self.expected.clear();
                self.params.write(&mut self.expected, connection, request.number);
                self.expected == json.as_bytes()
                    || std::str::from_utf8(&self.expected).is_ok_and(|wanted| same(wanted, json))
            }
        }
    }

    /// The form in which most servers write the answer to a ping.
    fn is_plainly_right(&mut self, connection: usize, oldest: Option<&UnderWay>, body: &[u8]) -> bool {
        let plain = self.out.is_some() && self.expect == Expect::Echo && self.matching == Matching::Order;
        let (true, Some(oldest)) = (plain, oldest) else { return false };
        self.expected.clear();
        self.expected.extend_from_slice(br#"{"out":"pong","result":"#);
        self.params.write(&mut self.expected, connection, oldest.number);
        self.expected.push(b'}');
        self.expected == body
    }
}

/// Numbers only grow along the queue.
fn take(pending: &mut VecDeque<UnderWay>, number: Option<u64>) -> Option<UnderWay> {
    let at = pending.binary_search_by_key(&number?, |request| request.number).ok()?;
    pending.remove(at)
}

/// The same JSON, however it is written. Numbers are compared as JSON's own model has them.
fn same(wanted: &str, json: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    wanted == json || value(wanted).is_some_and(|wanted| value(json) == Some(wanted))
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
