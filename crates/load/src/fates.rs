//! What became of the requests, as numbers.

use serde::Serialize;

/// How many requests ended how. `sent` is the sum of the six fates once a run has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// Requests that were sent.
    pub sent: u64,
    /// Answered right, in time and in turn.
    pub right: u64,
    /// Answered by an error frame.
    pub refused: u64,
    /// Answered with what belongs to no request of the connection.
    pub wrong: u64,
    /// Answered with the right answer to another request of the connection.
    pub out_of_order: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// The connection ended first.
    pub lost: u64,
    /// Beside the sum: answers that nobody asked for.
    pub unasked: u64,
    /// Beside the sum: due before the end (open loop), but never sent, since the server had not answered earlier ones.
    pub unsent: u64,
}

impl Fates {
    /// Requests whose fate is known.
    pub fn ended(&self) -> u64 {
        self.right + self.refused + self.wrong + self.out_of_order + self.timed_out + self.lost
    }

    /// Whether every request got its right answer, and nothing else came.
    pub fn are_all_right(&self) -> bool {
        self.right == self.sent && self.unasked == 0 && self.unsent == 0
    }
}
