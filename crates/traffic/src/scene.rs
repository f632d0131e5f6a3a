//! What a stream shows: its tracks in this frame, counted and measured.

use std::collections::BTreeMap;

use aits_orders::{ClassCount, Micros, ObjectClass, TrackedObject};

use crate::{
    Observation,
    tracker::{Settings, TimeError, Track, Tracker},
};

/// The state of one stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Scene {
    settings: Settings,
    tracker: Tracker,
    /// How many confirmed tracks there were of each class. A track counts as what it was called when it ended or, as long
    /// as it lives, as what it is called now; so a total may move from one class to another.
    ended: BTreeMap<ObjectClass, u64>,
    /// Confirmed tracks that are alive, and what they were last called.
    living: BTreeMap<u64, ObjectClass>,
}

/// What one frame shows. **Provisional**: pixels and tracks. The default is a frame that shows nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Verdict {
    /// The road users seen in this frame, by number of their track.
    pub tracks: Vec<TrackedObject>,
    /// Counts of all six classes, in the order of [`ObjectClass::ALL`]. Only tracks seen at least twice count.
    pub counts: Vec<ClassCount>,
    /// Mean speed of the moving tracks of this frame, pixels per second.
    pub mean_speed_px_s: Option<f32>,
    /// Detections that could not be true and were left out.
    pub dropped: u32,
}

impl Scene {
    /// An empty scene.
    pub fn new(settings: Settings) -> Self {
        Self { settings, tracker: Tracker::new(settings), ended: BTreeMap::new(), living: BTreeMap::new() }
    }

    /// Judges the detections of the frame of presentation time `pts`. The order of the detections does not matter.
    ///
    /// # Errors
    /// [`TimeError`] if the frame is not later than the one before; nothing has changed then.
    ///
    /// ```
    /// use aits_traffic::{BBox, Micros, ObjectClass, Observation, Scene, Settings};
    ///
    /// let mut scene = Scene::new(Settings::default());
    /// let car = |x: f32| Observation {
    ///     class: ObjectClass::Car,
    ///     score: 0.8,
    ///     bbox: BBox { x1: x, y1: 50.0, x2: x + 60.0, y2: 80.0 },
    /// };
    /// assert_eq!(scene.judge(Micros(0), &[car(100.0)])?.tracks[0].velocity, None);
    /// let verdict = scene.judge(Micros(200_000), &[car(110.0)])?;
    /// assert_eq!((verdict.tracks[0].track, verdict.counts[0].total), (1, 1));
    /// assert!(verdict.tracks[0].velocity.unwrap()[0] > 25.0); // on its way to 50 pixels per second
    /// # Ok::<(), aits_traffic::TimeError>(())
    /// ```
    pub fn judge(&mut self, pts: Micros, found: &[Observation]) -> Result<Verdict, TimeError> {
        let step = self.tracker.step(pts, found)?;
        let seen: Vec<&Track> = step.seen.iter().filter_map(|&id| self.tracker.track(id)).collect();
        self.living.extend(step.confirmed.iter().map(|&id| (id, ObjectClass::Car)));
        let mut gone = Vec::new();
        for (&id, class) in &mut self.living {
            match self.tracker.track(id) {
                Some(track) => *class = track.class(),
                None => gone.push(id),
            }
        }
        for id in gone {
            if let Some(class) = self.living.remove(&id) {
                *self.ended.entry(class).or_default() += 1;
            }
        }
        let count = |class: ObjectClass| {
            let ended = self.ended.get(&class).copied().unwrap_or(0);
            let living = self.living.values().filter(|c| **c == class).count() as u64;
            let now = seen.iter().filter(|t| t.confirmed() && t.class() == class).count() as u32;
            ClassCount { class, total: ended + living, now }
        };
        let counts = ObjectClass::ALL.into_iter().map(count).collect();
        let speeds: Vec<f32> = seen.iter().filter_map(|t| self.speed(t)).collect();
        let mean = speeds.iter().sum::<f32>() / speeds.len() as f32;
        let tracked = |track: &&Track| TrackedObject {
            track: track.id,
            class: track.class(),
            score: track.seen.score,
            bbox: track.seen.bbox,
            velocity: track.velocity(),
        };
        Ok(Verdict {
            tracks: seen.iter().map(tracked).collect(),
            counts,
            mean_speed_px_s: (!speeds.is_empty()).then_some(mean),
            dropped: step.dropped,
        })
    }

    /// Pixels per second of a track that moves.
    fn speed(&self, track: &Track) -> Option<f32> {
        let [x, y] = track.velocity()?;
        let speed = x.hypot(y);
        (speed >= self.settings.moving * track.size()).then_some(speed)
    }
}
