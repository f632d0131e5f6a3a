//! What holds for any input at all.

use std::collections::HashSet;

use aits_traffic::{BBox, Micros, ObjectClass, Observation, Scene, Settings, Verdict};
use proptest::prelude::*;

/// Any numbers, likely ones and absurd ones.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![8 => 0.0_f32..800.0, 1 => any::<f32>(), 1 => Just(f32::NAN), 1 => Just(1e-30)]
}

fn wild() -> impl Strategy<Value = Observation> {
    (0_usize..6, prop_oneof![6 => 0.0_f32..=1.0, 1 => any::<f32>()], [number(), number(), number(), number()])
        .prop_map(|(class, score, [x1, y1, x2, y2])| Observation {
            class: ObjectClass::ALL[class],
            score,
            bbox: BBox { x1, y1, x2, y2 },
        })
}

/// Boxes of traffic: sound, of sizes that occur, often overlapping.
fn likely() -> impl Strategy<Value = Observation> {
    (0_usize..6, 0.1_f32..1.0, 0.0_f32..300.0, 0.0_f32..200.0, 10.0_f32..120.0, 10.0_f32..90.0).prop_map(
        |(class, score, x, y, w, h)| Observation {
            class: ObjectClass::ALL[class],
            score,
            bbox: BBox { x1: x, y1: y, x2: x + w, y2: y + h },
        },
    )
}

type Frames = Vec<(i64, Vec<Observation>)>;

fn frames(
    one: impl Strategy<Value = Observation>,
    step: std::ops::Range<i64>,
) -> impl Strategy<Value = Frames> {
    let frame = (step, proptest::collection::vec(one, 0..9));
    proptest::collection::vec(frame, 1..12).prop_map(|steps| {
        let mut now = 0_i64;
        let at = |(step, found)| {
            now += step;
            (now, found)
        };
        steps.into_iter().map(at).collect()
    })
}

fn play(frames: &Frames, shift: i64) -> Vec<Verdict> {
    let mut scene = Scene::new(Settings::default());
    frames.iter().map(|(at, found)| scene.judge(Micros(at + shift), found).unwrap()).collect()
}

proptest! {
    #[test]
    fn anything_is_judged_without_panic_and_results_are_numbers(
        frames in proptest::collection::vec((any::<i64>(), proptest::collection::vec(wild(), 0..12)), 0..12)
    ) {
        let mut scene = Scene::new(Settings::default());
        for (at, found) in frames {
            let Ok(verdict) = scene.judge(Micros(at), &found) else { continue };
            prop_assert!(verdict.tracks.len() + verdict.dropped as usize <= found.len());
            prop_assert!(verdict.mean_speed_px_s.is_none_or(f32::is_finite));
            for track in &verdict.tracks {
                prop_assert!(track.velocity.is_none_or(|v| v[0].is_finite() && v[1].is_finite()));
                prop_assert!(found.iter().any(|o| o.bbox == track.bbox && o.score == track.score));
            }
        }
    }

    #[test]
    fn the_order_of_the_detections_does_not_matter(
        (straight, shuffled) in frames(likely(), 20_000..900_000).prop_flat_map(|frames| {
            let shuffled: Vec<_> =
                frames.iter().map(|(at, found)| (Just(*at), Just(found.clone()).prop_shuffle())).collect();
            (Just(frames), shuffled)
        })
    ) {
        prop_assert_eq!(play(&straight, 0), play(&shuffled, 0));
    }

    #[test]
    fn only_differences_of_times_matter(frames in frames(likely(), 20_000..900_000), shift in -1_i64 << 60..1 << 60) {
        prop_assert_eq!(play(&frames, 0), play(&frames, shift));
    }

    #[test]
    fn numbers_are_unique_and_counts_only_grow(frames in frames(likely(), 20_000..900_000)) {
        let mut confirmed = HashSet::new();
        let mut met = HashSet::new();
        let mut before = 0;
        for verdict in play(&frames, 0) {
            let ids: HashSet<u64> = verdict.tracks.iter().map(|t| t.track).collect();
            prop_assert_eq!(ids.len(), verdict.tracks.len());
            for track in &verdict.tracks {
                // Seen for the first time: no velocity. Ever after: one.
                prop_assert_eq!(track.velocity.is_none(), met.insert(track.track));
            }
            confirmed.extend(verdict.tracks.iter().filter(|t| t.velocity.is_some()).map(|t| t.track));
            let total: u64 = verdict.counts.iter().map(|c| c.total).sum();
            prop_assert_eq!(total, confirmed.len() as u64);
            prop_assert!(total >= before);
            before = total;
            let now: u32 = verdict.counts.iter().map(|c| c.now).sum();
            prop_assert_eq!(now as usize, verdict.tracks.iter().filter(|t| t.velocity.is_some()).count());
        }
    }
}
