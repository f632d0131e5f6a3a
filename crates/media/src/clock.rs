//! From the time stamps of a stream to times that begin at 0 and never go backwards.
//!
//! ```text
//!  stamps   1000  1040  1080 | rewind | 1000  1040      120 (broken)   160
//!  times       0    40    80 |        |  120   160      200            240
//! ```
//!
//! After a rewind, and when stamps jump back, time goes on one frame interval after the last frame. Missing stamps are
//! replaced in the same way. Jumps forward are kept: a camera that was silent was silent.

use aits_frame::Micros;

pub(crate) struct Clock {
    /// Seconds per unit of a stamp.
    time_base: (i64, i64),
    /// Microseconds from one frame to the next, nominal.
    interval: i64,
    /// What to add to a stamp in microseconds; `None`: the next stamp decides.
    shift: Option<i64>,
    last: Option<i64>,
}

impl Clock {
    /// `fps` 0 means unknown; 25 is assumed then.
    pub(crate) fn new(time_base: (i64, i64), fps: f64) -> Self {
        let fps = if (0.1..=1000.0).contains(&fps) { fps } else { 25.0 };
        Self { time_base, interval: (1e6 / fps) as i64, shift: None, last: None }
    }

    /// The next stamp begins anew.
    pub(crate) fn rewind(&mut self) {
        self.shift = None;
    }

    /// The time of the next frame.
    pub(crate) fn time(&mut self, stamp: Option<i64>) -> Micros {
        let next = self.last.map_or(0, |last| last.saturating_add(self.interval));
        let time = match (stamp.map(|stamp| self.micros(stamp)), self.shift) {
            (None, _) => next,
            (Some(stamp), Some(shift)) if stamp.saturating_add(shift) >= self.last.unwrap_or(0) => {
                stamp.saturating_add(shift)
            }
            (Some(stamp), _) => {
                self.shift = Some(next.saturating_sub(stamp));
                next
            }
        };
        self.last = Some(time);
        Micros(time)
    }

    fn micros(&self, stamp: i64) -> i64 {
        let exact =
            i128::from(stamp) * 1_000_000 * i128::from(self.time_base.0) / i128::from(self.time_base.1);
        exact.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_drawing_in_the_module_comment_holds() {
        let mut clock = Clock::new((1, 1000), 25.0);
        let mut time = |stamp| clock.time(Some(stamp)).0 / 1000;
        assert_eq!([time(1000), time(1040), time(1080)], [0, 40, 80]);
        clock.rewind();
        let mut time = |stamp| clock.time(stamp).0 / 1000;
        assert_eq!(
            [time(Some(1000)), time(Some(1040)), time(Some(120)), time(Some(160))],
            [120, 160, 200, 240]
        );
        assert_eq!([time(None), time(Some(1160))], [280, 1240]);
    }

    proptest! {
        #[test]
        fn time_never_goes_backwards(
            stamps in proptest::collection::vec(proptest::option::of(any::<i64>()), 1..50),
            base in (1_i64..100_000, 1_i64..100_000), fps in any::<f64>(),
        ) {
            let mut clock = Clock::new(base, fps);
            let mut last = Micros(0);
            for stamp in stamps {
                let time = clock.time(stamp);
                prop_assert!(time >= last);
                last = time;
            }
        }
    }
}
