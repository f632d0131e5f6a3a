//! Requests as bytes.
//!
//! Parameters that were not given are a text that no other request has: six hexadecimal digits for the connection, ten for
//! the request, and padding. So an answer tells which request it answers, and whether it came to the right connection.

use baton_wire::json_frame::PREFIX_LEN;

use crate::plan::{Matching, Plan};

/// Digits of connection and request.
const CONNECTION: usize = 6;
const NUMBER: usize = 10;

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `{"in":"ping",`
    head: Vec<u8>,
    with_id: bool,
    params: Params,
}

/// What the parameters are.
#[derive(Debug)]
pub(crate) enum Params {
    /// The same in each request.
    Fixed(String),
    /// Different in each, with so much padding.
    Unique {
        /// Bytes behind the digits.
        padding: usize,
    },
}

impl Params {
    /// As the plan wants them.
    pub(crate) fn of(plan: &Plan) -> Self {
        match &plan.params {
            Some(params) => Params::Fixed(params.clone()),
            None => Params::Unique { padding: plan.size.saturating_sub(CONNECTION + NUMBER) },
        }
    }

    /// Appends their JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>, connection: usize, number: u64) {
        match self {
            Params::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Params::Unique { padding } => {
                out.push(b'"');
                digits(out, connection as u64, CONNECTION);
                digits(out, number, NUMBER);
                out.resize(out.len() + padding, b'x');
                out.push(b'"');
            }
        }
    }
}

/// Connection and request of a text that [`Params::Unique`] wrote, if it is one.
pub(crate) fn identity(json: &str) -> Option<(usize, u64)> {
    let text = json.strip_prefix('"')?;
    let (connection, number) = (text.get(..CONNECTION)?, text.get(CONNECTION..CONNECTION + NUMBER)?);
    Some((usize::from_str_radix(connection, 16).ok()?, u64::from_str_radix(number, 16).ok()?))
}

fn digits(out: &mut Vec<u8>, value: u64, count: usize) {
    out.extend((0..count).rev().map(|at| b"0123456789abcdef"[(value >> (4 * at)) as usize & 15]));
}

impl Writer {
    /// For the requests of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let method = serde_json::Value::from(plan.method.as_str());
        let head = format!(r#"{{"in":{method},"#).into_bytes();
        Writer { head, with_id: plan.matching == Matching::Id, params: Params::of(plan) }
    }

    /// Appends one frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>, connection: usize, number: u64) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_LEN]);
        out.extend_from_slice(&self.head);
        if self.with_id {
            out.extend_from_slice(format!(r#""id":{number},"#).as_bytes());
        }
        out.extend_from_slice(br#""params":"#);
        self.params.write(out, connection, number);
        out.push(b'}');
        // A plan's parameters are far below 4 GiB; a longer frame would be refused by any server.
        let len = u32::try_from(out.len() - start - PREFIX_LEN).unwrap_or(u32::MAX);
        out[start..start + PREFIX_LEN].copy_from_slice(&len.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_protocol_says() {
        let mut plan = Plan::new("ip://127.0.0.1:1".parse().unwrap());
        (plan.size, plan.matching) = (20, Matching::Id);
        let mut out = Vec::new();
        Writer::new(&plan).write(&mut out, 0xABC, 77);
        let (prefix, body) = out.split_at(PREFIX_LEN);
        assert_eq!(prefix, (body.len() as u32).to_le_bytes());
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(json, serde_json::json!({"in": "ping", "id": 77, "params": "000abc000000004dxxxx"}));
        assert_eq!(identity(r#""000abc000000004dxxxx""#), Some((0xABC, 77)));
        assert_eq!(identity(r#""pong""#), None);
    }
}
