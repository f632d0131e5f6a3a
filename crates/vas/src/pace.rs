//! When a frame of a file is due.
//!
//! ```text
//!  anchor (when, pts) ──▶ due(pts) = when + (pts − anchor's pts)
//!     ▲ anew when the player is more than LATE behind (no rush to catch up: a camera does not either),
//!     └ or when the times of the file jump ahead by more than JUMP
//! ```
//!
//! A player asks twice: *before* decoding when the next frame is expected, so that a frame is decoded when it is due and
//! not a frame earlier (it would only grow old in the queue); and when the frame is there, since files of variable rate
//! are not what one expects.

use std::time::{Duration, Instant};

use aits_frame::Micros;

/// Further behind than this, the clock is set anew.
const LATE: Duration = Duration::from_millis(500);
/// A jump ahead in the file's own times that is not waited for.
const JUMP: Duration = Duration::from_secs(5);

pub(crate) struct Pacer {
    anchor: Option<(Instant, Micros)>,
    last: Option<Micros>,
    /// From one frame to the next; the latest one seen.
    interval: Duration,
}

impl Pacer {
    /// `fps` is what the container says; 0 if it does not say.
    pub(crate) fn new(fps: f64) -> Self {
        let fps = if (0.1..=1000.0).contains(&fps) { fps } else { 25.0 };
        Self { anchor: None, last: None, interval: Duration::from_secs_f64(1.0 / fps) }
    }

    /// From one frame to the next.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// When the next frame is expected; `None`: at once.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let ((when, zero), last) = (self.anchor?, self.last?);
        Some(when + between(zero, last) + self.interval)
    }

    /// When the frame of this time is due; `now` at the earliest.
    pub(crate) fn due(&mut self, pts: Micros, now: Instant) -> Instant {
        let step = self.last.map(|last| between(last, pts));
        if let Some(step) = step.filter(|step| !step.is_zero() && *step <= JUMP) {
            self.interval = step;
        }
        self.last = Some(pts);
        let planned = self.anchor.map(|(when, zero)| when + between(zero, pts));
        match planned {
            Some(due) if step.is_none_or(|step| step <= JUMP) && due + LATE >= now => due.max(now),
            _ => {
                self.anchor = Some((now, pts));
                now
            }
        }
    }
}

fn between(from: Micros, to: Micros) -> Duration {
    Duration::from_micros(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    fn pts(frame: i64) -> Micros {
        Micros(frame * 40_000)
    }

    #[test]
    fn frames_are_due_at_their_times() {
        let start = Instant::now();
        let mut pacer = Pacer::new(25.0);
        assert_eq!(pacer.next_due(), None);
        for frame in 0..100 {
            assert_eq!(pacer.due(pts(frame), start), start + FRAME * frame as u32);
            assert_eq!(pacer.next_due(), Some(start + FRAME * (frame as u32 + 1)));
        }
    }

    #[test]
    fn a_little_late_is_caught_up_and_very_late_is_forgiven() {
        let start = Instant::now();
        let mut pacer = Pacer::new(25.0);
        pacer.due(pts(0), start);
        let now = start + Duration::from_millis(300);
        assert_eq!(pacer.due(pts(1), now), now, "at once");
        assert_eq!(pacer.due(pts(10), now), start + FRAME * 10, "back in time");
        let now = start + Duration::from_secs(60);
        assert_eq!(pacer.due(pts(11), now), now);
        assert_eq!(pacer.due(pts(12), now), now + FRAME, "counted from the new beginning");
    }

    #[test]
    fn a_jump_in_the_file_is_not_waited_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(25.0);
        pacer.due(pts(0), start);
        let hour = Micros(3_600_000_000);
        assert_eq!(pacer.due(hour, start), start);
        assert_eq!(pacer.next_due(), Some(start + FRAME), "a jump is no rate");
        assert_eq!(pacer.due(Micros(hour.0 + 100_000), start), start + Duration::from_millis(100));
        assert_eq!(pacer.interval(), Duration::from_millis(100), "the rate is followed");
    }
}
