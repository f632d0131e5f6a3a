//! Which frames of a stream are due for judging: at most so many per second of presentation time.

use aits_orders::Micros;

/// An even beat over presentation times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    interval: i64,
    last: i64,
    next: Option<i64>,
}

impl Cadence {
    /// At most `hz` frames per second; the caller has checked that it is a sane number.
    pub(super) fn new(hz: f64) -> Self {
        Self { interval: ((1e6 / hz) as i64).max(1), last: 0, next: None }
    }

    /// Whether the frame of this presentation time is due. The beat stays even: a frame that comes late does not move
    /// the next one. Time that jumps back (the source began anew), or far ahead, starts a new beat.
    pub(super) fn due(&mut self, pts: Micros) -> bool {
        let pts = pts.0;
        let backwards = pts < self.last;
        self.last = pts;
        match self.next {
            Some(next) if !backwards && pts < next => false,
            Some(next) if !backwards && pts < next.saturating_add(self.interval) => {
                self.next = Some(next.saturating_add(self.interval));
                true
            }
            _ => {
                self.next = Some(pts.saturating_add(self.interval));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_frames(hz: f64, fps: f64, frames: u32) -> Vec<u32> {
        let mut cadence = Cadence::new(hz);
        (0..frames).filter(|n| cadence.due(Micros((f64::from(*n) * 1e6 / fps) as i64))).collect()
    }

    #[test]
    fn five_of_twenty_five() {
        assert_eq!(due_frames(5.0, 25.0, 20), [0, 5, 10, 15]);
    }

    #[test]
    fn a_rate_that_does_not_divide_keeps_its_mean() {
        assert_eq!(due_frames(10.0, 25.0, 250).len(), 100);
        assert_eq!(due_frames(30.0, 25.0, 100).len(), 100, "never more than there are");
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut cadence = Cadence::new(5.0);
        for pts in [i64::MAX, i64::MIN, 0, i64::MAX - 1, i64::MAX] {
            cadence.due(Micros(pts));
        }
        assert!(cadence.due(Micros(0)), "back in time is due at once");
    }
}
