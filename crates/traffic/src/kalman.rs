//! A Kalman filter for one coordinate that moves with nearly constant velocity, for steps of any length.
//!
//! State: position p and velocity v. Acceleration is white noise of density q (Bar-Shalom, Li & Kirubarajan, *Estimation
//! with Applications to Tracking and Navigation*, 2001, §6.2.2): over a time t, the covariance grows by
//! q·[t³/3, t²/2; t²/2, t]. Measured is p with variance r. q and r scale with the object's size, so that near and far
//! objects behave alike.

/// The filter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Kalman {
    pub position: f32,
    pub velocity: f32,
    /// Covariance: position, both, velocity.
    covariance: [f32; 3],
}

/// Size that smaller objects are taken to have, in pixels: the variances must not vanish.
const SMALLEST: f32 = 1.0;
/// Standard deviation of a measured coordinate, in object sizes.
const MEASURED: f32 = 0.06;
/// Standard deviation of an unknown velocity, in object sizes per second: a car may cross three times its length.
const UNKNOWN_VELOCITY: f32 = 3.0;
/// Square root of the density of the acceleration, in object sizes per second^1.5.
const ACCELERATION: f32 = 1.2;

impl Kalman {
    /// At a position, velocity unknown.
    pub fn new(position: f32, size: f32) -> Self {
        let size = size.max(SMALLEST);
        let (r, v) = (MEASURED * size, UNKNOWN_VELOCITY * size);
        Self { position, velocity: 0.0, covariance: [r * r, 0.0, v * v] }
    }

    /// Where it will be in `seconds`.
    pub fn ahead(&self, seconds: f32) -> f32 {
        self.position + self.velocity * seconds
    }

    /// Lets time pass and takes a measurement in.
    pub fn step(&mut self, seconds: f32, measured: f32, size: f32) {
        let size = size.max(SMALLEST);
        let [p, pv, v] = self.covariance;
        let q = (ACCELERATION * size).powi(2);
        let t = seconds;
        let p = p + 2.0 * t * pv + t * t * v + q * t.powi(3) / 3.0;
        let pv = pv + t * v + q * t * t / 2.0;
        let v = v + q * t;
        let r = (MEASURED * size).powi(2);
        let (gain_p, gain_v) = (p / (p + r), pv / (p + r));
        let surprise = measured - self.ahead(t);
        self.position = self.ahead(t) + gain_p * surprise;
        self.velocity += gain_v * surprise;
        self.covariance = [(1.0 - gain_p) * p, (1.0 - gain_p) * pv, (v - gain_v * pv).max(0.0)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_velocity_is_found_whatever_the_steps() {
        let mut filter = Kalman::new(0.0, 50.0);
        let mut time = 0.0;
        for step in [0.2, 0.2, 0.4, 0.2, 0.05, 1.0, 0.2, 0.2] {
            time += step;
            filter.step(step, 120.0 * time, 50.0);
        }
        assert!((filter.velocity - 120.0).abs() < 2.0, "{filter:?}");
        assert!((filter.position - 120.0 * time).abs() < 1.0, "{filter:?}");
    }
}
