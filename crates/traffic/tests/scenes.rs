//! Small scenes at five frames a second, with what must come out.

use aits_traffic::{BBox, Micros, ObjectClass, Observation, Scene, Settings, Verdict};

const FRAME: i64 = 200_000;

fn seen(class: ObjectClass, score: f32, x: f32, y: f32, width: f32, height: f32) -> Observation {
    Observation { class, score, bbox: BBox { x1: x, y1: y, x2: x + width, y2: y + height } }
}

fn car(x: f32, y: f32) -> Observation {
    seen(ObjectClass::Car, 0.8, x, y, 60.0, 30.0)
}

/// Judges one frame after the other, numbered from 0.
fn play(frames: impl IntoIterator<Item = Vec<Observation>>) -> Vec<Verdict> {
    let mut scene = Scene::new(Settings::default());
    let judge =
        |(n, found): (usize, Vec<Observation>)| scene.judge(Micros(n as i64 * FRAME), &found).unwrap();
    frames.into_iter().enumerate().map(judge).collect()
}

fn ids(verdict: &Verdict) -> Vec<u64> {
    verdict.tracks.iter().map(|t| t.track).collect()
}

fn total(verdict: &Verdict, class: ObjectClass) -> u64 {
    verdict.counts.iter().find(|c| c.class == class).unwrap().total
}

#[test]
fn a_car_keeps_its_number_and_its_speed_is_found() {
    let verdicts = play((0..12).map(|n| vec![car(20.0 * n as f32, 100.0)]));
    assert!(verdicts.iter().all(|v| ids(v) == [1]));
    assert_eq!(verdicts[0].tracks[0].velocity, None);
    assert_eq!(total(&verdicts[0], ObjectClass::Car), 0, "once may be a mistake");
    let last = verdicts.last().unwrap();
    let [right, down] = last.tracks[0].velocity.unwrap();
    assert!((right - 100.0).abs() < 3.0 && down.abs() < 1.0, "{right} {down}");
    assert!((last.mean_speed_px_s.unwrap() - 100.0).abs() < 3.0);
    assert_eq!(total(last, ObjectClass::Car), 1);
    assert_eq!(last.counts[0].now, 1);
}

#[test]
fn a_car_that_moves_more_than_its_length_a_frame_is_one_car() {
    // 75 pixels a frame, 60 long: no two boxes overlap, not even the first two.
    let verdicts = play((0..8).map(|n| vec![car(75.0 * n as f32, 100.0)]));
    assert!(verdicts.iter().all(|v| ids(v) == [1]));
}

#[test]
fn two_cars_that_pass_each_other_keep_their_numbers() {
    let verdicts =
        play((0..20).map(|n| vec![car(20.0 * n as f32, 100.0), car(380.0 - 20.0 * n as f32, 112.0)]));
    for verdict in &verdicts {
        assert_eq!(ids(verdict), [1, 2]);
    }
    let last = &verdicts[19].tracks;
    assert_eq!((last[0].bbox.x1, last[1].bbox.x1), (380.0, 0.0));
    assert_eq!(total(&verdicts[19], ObjectClass::Car), 2);
}

#[test]
fn a_gap_is_bridged_by_prediction_and_a_long_one_ends_the_track() {
    let hidden = |gap: std::ops::Range<usize>| {
        play((0..30).map(move |n| if gap.contains(&n) { vec![] } else { vec![car(25.0 * n as f32, 100.0)] }))
    };
    assert_eq!(ids(&hidden(8..13)[29]), [1]);
    let long = hidden(8..18);
    assert_eq!(ids(&long[29]), [2]);
    assert_eq!(total(&long[29], ObjectClass::Car), 2);
}

#[test]
fn an_unsure_detection_keeps_a_track_but_founds_none() {
    let weak = |x: f32| seen(ObjectClass::Car, 0.2, x, 100.0, 60.0, 30.0);
    let verdicts = play((0..20).map(|n| {
        let x = 10.0 * n as f32;
        vec![if (5..16).contains(&n) { weak(x) } else { car(x, 100.0) }, weak(x + 300.0)]
    }));
    assert!(verdicts.iter().all(|v| ids(v) == [1]));
}

#[test]
fn the_class_is_what_it_was_called_most_and_counts_follow() {
    let verdicts = play((0..10).map(|n| {
        let class = if n % 3 == 0 { ObjectClass::Car } else { ObjectClass::Truck };
        vec![seen(class, 0.7, 15.0 * n as f32, 50.0, 90.0, 60.0)]
    }));
    let last = verdicts.last().unwrap();
    assert_eq!((ids(last), last.tracks[0].class), (vec![1], ObjectClass::Truck));
    assert_eq!((total(last, ObjectClass::Truck), total(last, ObjectClass::Car)), (1, 0));
}

#[test]
fn a_pedestrian_before_a_car_is_never_the_car() {
    let verdicts = play((0..10).map(|n| {
        let person = seen(ObjectClass::Person, 0.7, 100.0, 90.0, 40.0, 40.0);
        if n % 2 == 0 { vec![car(100.0, 100.0)] } else { vec![person] }
    }));
    for (n, verdict) in verdicts.iter().enumerate() {
        let class = if n % 2 == 0 { ObjectClass::Car } else { ObjectClass::Person };
        assert!(verdict.tracks.iter().all(|t| t.class == class));
    }
}

#[test]
fn parked_cars_whose_boxes_tremble_do_not_move() {
    let tremble = |n: usize| [0.0, 1.0, -1.0, 0.5, -0.5][n % 5];
    let verdicts =
        play((0..30).map(|n| vec![car(100.0 + tremble(n), 50.0), car(300.0, 50.0 + tremble(n + 2))]));
    assert_eq!(verdicts[29].mean_speed_px_s, None);
    assert_eq!(verdicts[29].counts[0].now, 2);
}

#[test]
fn frames_at_any_pace_give_the_same_speed() {
    let mut scene = Scene::new(Settings::default());
    let mut last = None;
    for at in [0, 200, 240, 700, 900, 1000, 1800, 2000, 2200, 2600] {
        let x = 0.09 * at as f32;
        last = Some(scene.judge(Micros(at * 1000), &[car(x, 80.0)]).unwrap());
    }
    let last = last.unwrap();
    assert_eq!(ids(&last), [1]);
    assert!((last.mean_speed_px_s.unwrap() - 90.0).abs() < 4.0, "{last:?}");
}

#[test]
fn a_pause_ends_all_tracks_but_not_the_counts() {
    let mut scene = Scene::new(Settings::default());
    for n in 0..5 {
        scene.judge(Micros(n * FRAME), &[car(100.0, 80.0)]).unwrap();
    }
    let after = scene.judge(Micros(60_000_000), &[car(100.0, 80.0)]).unwrap();
    assert_eq!(ids(&after), [2]);
    assert_eq!(total(&after, ObjectClass::Car), 1);
}

#[test]
fn time_that_stands_still_is_refused_and_changes_nothing() {
    let mut scene = Scene::new(Settings::default());
    scene.judge(Micros(500), &[car(0.0, 0.0)]).unwrap();
    let before = scene.clone();
    for at in [500, 499, i64::MIN] {
        let error = scene.judge(Micros(at), &[car(1.0, 0.0)]).unwrap_err();
        assert_eq!((error.last, error.given), (Micros(500), Micros(at)));
    }
    assert_eq!(scene, before);
}

#[test]
fn what_cannot_be_true_is_dropped_and_counted() {
    let good = car(100.0, 100.0);
    let with =
        |x1: f32, x2: f32, score: f32| Observation { score, bbox: BBox { x1, x2, ..good.bbox }, ..good };
    let found = [
        with(f32::NAN, 10.0, 0.9),
        with(0.0, f32::INFINITY, 0.9),
        with(10.0, 10.0, 0.9),
        with(10.0, 5.0, 0.9),
        with(0.0, 10.0, f32::NAN),
        with(0.0, 10.0, 1.5),
        with(0.0, 10.0, -0.5),
        with(-1e30, 10.0, 0.9),
        good,
    ];
    let verdict = Scene::new(Settings::default()).judge(Micros(0), &found).unwrap();
    assert_eq!((verdict.dropped, verdict.tracks.len()), (8, 1));
}
