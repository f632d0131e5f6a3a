//! Detections to tracks, after ByteTrack (Zhang et al. 2022, arXiv:2110.06864), with time instead of frames.
//!
//! ```text
//!            unmatched sure detection            seen again
//!                 ──────────▶ Tentative ─────────────────────▶ Confirmed ◀─┐ seen (again)
//!                                 │ not seen                       │ not   │
//!                                 ▼                                ▼ seen  │
//!                               gone ◀──────── longer than `keep` ─ Lost ──┘
//! ```
//!
//! Per frame: (1) tracks are matched with the sure detections by overlap of the predicted box; (2) what is left of both
//! is matched with boxes grown, since at 5 frames a second a new track of unknown velocity may have moved by its own size;
//! (3) tracks still unmatched take unsure detections that overlap well (an object half hidden scores low, but is there);
//! (4) sure detections left over found new tracks.

use aits_orders::{BBox, Micros, ObjectClass};

use crate::{Observation, assign::best_pairs, geometry::Shape, kalman::Kalman};

/// How the tracker decides. The defaults are for a detector at some 2 to 25 frames a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Score from which a detection may found a track.
    pub sure: f32,
    /// Seconds that a confirmed track is kept without being seen.
    pub keep: f32,
    /// Speed from which a track moves, in its own sizes per second: boxes tremble.
    pub moving: f32,
    /// Longest pause between two frames in seconds; after a longer one all tracks end.
    pub pause: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sure: 0.35, keep: 1.5, moving: 0.15, pause: 3.0 }
    }
}

/// Time did not move forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeError {
    /// The last frame's time.
    pub last: Micros,
    /// The time given, not later than that.
    pub given: Micros,
}

impl std::fmt::Display for TimeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a frame of {} µs after one of {} µs: make a new scene when a stream starts again",
            self.given.0, self.last.0
        )
    }
}

impl std::error::Error for TimeError {}

/// Overlap of a predicted box and a sure detection that are one object.
const OVERLAP: f32 = 0.25;
/// The same for an unsure detection.
const OVERLAP_UNSURE: f32 = 0.45;
/// How much boxes grow in the second look, in their sizes on each side.
const GROWN: f32 = 0.45;
/// Overlap that grown boxes need.
const OVERLAP_GROWN: f32 = 0.15;
/// What a different class costs: a van is a car in one frame and a truck in the next, a person is never a car.
const OTHER_VEHICLE: f32 = 0.8;
/// Time constant with which sizes follow the detections, in seconds.
const SIZE_FOLLOWS: f32 = 0.4;

/// One road user over time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Track {
    /// Number in the order of foundation, from 1.
    pub id: u64,
    /// Sums of scores by class, in the order of [`ObjectClass::ALL`].
    votes: [f32; 6],
    x: Kalman,
    y: Kalman,
    width: f32,
    height: f32,
    /// The last detection.
    pub seen: Observation,
    /// Its time.
    seen_at: Micros,
    /// How often it was seen.
    pub times: u32,
}

impl Track {
    fn new(id: u64, observation: Observation, shape: Shape, now: Micros) -> Self {
        let mut track = Self {
            id,
            votes: [0.0; 6],
            x: Kalman::new(shape.x, shape.width.max(shape.height)),
            y: Kalman::new(shape.y, shape.width.max(shape.height)),
            width: shape.width,
            height: shape.height,
            seen: observation,
            seen_at: now,
            times: 1,
        };
        track.vote(&observation);
        track
    }

    fn vote(&mut self, observation: &Observation) {
        let index = ObjectClass::ALL.iter().position(|c| *c == observation.class).unwrap_or(0);
        self.votes[index] += observation.score;
    }

    /// The class by majority of scores; the earlier in [`ObjectClass::ALL`] if equal.
    pub fn class(&self) -> ObjectClass {
        let mut best = 0;
        for index in 1..self.votes.len() {
            if self.votes[index] > self.votes[best] {
                best = index;
            }
        }
        ObjectClass::ALL[best]
    }

    /// Pixels per second, right and down; `None` until it has been seen twice.
    pub fn velocity(&self) -> Option<[f32; 2]> {
        (self.times > 1).then_some([self.x.velocity, self.y.velocity])
    }

    /// Whether it was seen twice: once may be a mistake of the detector.
    pub fn confirmed(&self) -> bool {
        self.times > 1
    }

    /// Its larger side in pixels.
    pub fn size(&self) -> f32 {
        self.width.max(self.height)
    }

    fn predicted(&self, now: Micros) -> Shape {
        let seconds = seconds_between(self.seen_at, now);
        Shape { x: self.x.ahead(seconds), y: self.y.ahead(seconds), width: self.width, height: self.height }
    }

    fn update(&mut self, observation: Observation, shape: Shape, now: Micros) {
        let seconds = seconds_between(self.seen_at, now);
        let size = self.size().max(shape.width.max(shape.height));
        self.x.step(seconds, shape.x, size);
        self.y.step(seconds, shape.y, size);
        let share = 1.0 - (-seconds / SIZE_FOLLOWS).exp();
        self.width += share * (shape.width - self.width);
        self.height += share * (shape.height - self.height);
        self.seen = observation;
        self.seen_at = now;
        self.times = self.times.saturating_add(1);
        self.vote(&observation);
    }
}

fn seconds_between(from: Micros, to: Micros) -> f32 {
    // Through 128 bits: times are claims, and the difference of two may not fit.
    ((i128::from(to.0) - i128::from(from.0)) as f64 / 1e6) as f32
}

/// How alike classes are, as a factor.
fn kinship(a: ObjectClass, b: ObjectClass) -> f32 {
    use ObjectClass::{Bicycle, Bus, Car, Motorcycle, Person, Truck};
    match (a, b) {
        _ if a == b => 1.0,
        (Car | Truck | Bus, Car | Truck | Bus) => OTHER_VEHICLE,
        (Bicycle | Motorcycle | Person, Bicycle | Motorcycle | Person) => OTHER_VEHICLE,
        _ => 0.0,
    }
}

/// The tracks of one stream.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Tracker {
    settings: Settings,
    tracks: Vec<Track>,
    last: Option<Micros>,
    next: u64,
}

/// What a frame did.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Step {
    /// Numbers of the tracks seen in this frame.
    pub seen: Vec<u64>,
    /// Tracks that were seen for the second time.
    pub confirmed: Vec<u64>,
    /// Detections that could not be true.
    pub dropped: u32,
}

impl Tracker {
    pub fn new(settings: Settings) -> Self {
        Self { settings, tracks: Vec::new(), last: None, next: 1 }
    }

    /// The track of this number.
    pub fn track(&self, id: u64) -> Option<&Track> {
        self.tracks.iter().find(|t| t.id == id)
    }

    /// Takes the detections of one frame.
    pub fn step(&mut self, now: Micros, found: &[Observation]) -> Result<Step, TimeError> {
        if let Some(last) = self.last {
            if now <= last {
                return Err(TimeError { last, given: now });
            }
            if seconds_between(last, now) > self.settings.pause {
                self.tracks.clear();
            }
        }
        self.last = Some(now);
        let mut sound: Vec<(Observation, Shape)> =
            found.iter().filter_map(|o| sound_score(o.score).then_some((*o, Shape::new(&o.bbox)?))).collect();
        let dropped = (found.len() - sound.len()) as u32;
        // One order, whatever the order they came in.
        sound.sort_by(|(a, _), (b, _)| order(a, b));
        let split = sound.partition_point(|(o, _)| o.score >= self.settings.sure);
        let (sure, unsure) = sound.split_at(split);

        let mut free: Vec<usize> = (0..self.tracks.len()).collect();
        let mut open: Vec<usize> = (0..sure.len()).collect();
        let mut seen = Vec::new();
        self.round(now, sure, (0.0, OVERLAP), &mut free, &mut open, &mut seen);
        self.round(now, sure, (GROWN, OVERLAP_GROWN), &mut free, &mut open, &mut seen);
        let mut rest = (0..unsure.len()).collect();
        self.round(now, unsure, (0.0, OVERLAP_UNSURE), &mut free, &mut rest, &mut seen);
        let seen_again: Vec<u64> = seen.iter().map(|&index| self.tracks[index].id).collect();
        let confirmed =
            seen.iter().map(|&i| &self.tracks[i]).filter(|t| t.times == 2).map(|t| t.id).collect();

        let keep = self.settings.keep;
        self.tracks.retain(|track| {
            let unseen = seconds_between(track.seen_at, now);
            unseen == 0.0 || (track.confirmed() && unseen <= keep)
        });
        let mut seen = seen_again;
        for index in open {
            let (observation, shape) = sure[index];
            self.tracks.push(Track::new(self.next, observation, shape, now));
            seen.push(self.next);
            self.next += 1;
        }
        seen.sort_unstable();
        Ok(Step { seen, confirmed, dropped })
    }

    /// Matches the free tracks with the open detections and updates the pairs; what is left stays in the lists.
    fn round(
        &mut self,
        now: Micros,
        found: &[(Observation, Shape)],
        (grown, overlap): (f32, f32),
        free: &mut Vec<usize>,
        open: &mut Vec<usize>,
        seen: &mut Vec<usize>,
    ) {
        let mut likeness = Vec::with_capacity(free.len() * open.len());
        for &track in free.iter() {
            let track = &self.tracks[track];
            let predicted = track.predicted(now);
            for &index in open.iter() {
                let (observation, shape) = &found[index];
                let value = predicted.likeness(shape, grown) * kinship(track.class(), observation.class);
                likeness.push(if value >= overlap { value } else { 0.0 });
            }
        }
        let pairs = best_pairs(&likeness, free.len(), open.len());
        for &(track, index) in &pairs {
            let (observation, shape) = found[open[index]];
            self.tracks[free[track]].update(observation, shape, now);
            seen.push(free[track]);
        }
        let (tracks, found): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        remove(free, &tracks);
        remove(open, &found);
    }
}

fn remove(list: &mut Vec<usize>, positions: &[usize]) {
    let mut position = 0;
    list.retain(|_| {
        position += 1;
        !positions.contains(&(position - 1))
    });
}

fn sound_score(score: f32) -> bool {
    (0.0..=1.0).contains(&score)
}

/// Highest score first; then anything that does not depend on the order of arrival.
fn order(a: &Observation, b: &Observation) -> std::cmp::Ordering {
    let sides = |b: &BBox| <[f32; 4]>::from(*b);
    let place = || {
        let pairs = sides(&a.bbox).into_iter().zip(sides(&b.bbox));
        pairs.map(|(x, y)| x.total_cmp(&y)).find(|o| o.is_ne()).unwrap_or(a.class.cmp(&b.class))
    };
    b.score.total_cmp(&a.score).then_with(place)
}
