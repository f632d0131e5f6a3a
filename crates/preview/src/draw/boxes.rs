//! From a result to rectangles and labels on the picture of another moment.

use aits_frame::Micros;
use aits_media::pixels::Canvas;
use aits_orders::{BBox, FrameResult, TrackedObject};

use super::{Color, Rect, class_color, draw_label, label_size, outline, paint::size};

/// Longest time, in seconds, over which a box is moved on with the velocity of its track.
pub const MAX_LEAD_S: f64 = 1.0;

/// A result that lies further than this from the frame, in seconds, says nothing about it: no boxes are drawn. (The
/// analysis was killed or is far behind; boxes that stand still in the road would be a lie.)
pub const STALE_AFTER_S: f64 = 3.0;

/// Slowest movement, pixels per second, that is written on the label.
const SHOWN_SPEED_PX_S: f32 = 1.0;

/// Draws the tracks of `result`, moved to where they are at `pts`. Returns how many boxes were drawn.
///
/// Boxes are in pixels of the judged picture and are scaled to the canvas, which may be smaller.
///
/// vss judges some of the frames, and later than they are shown: a car at 100 px/s would run out of its box by 20 pixels
/// at 5 results a second. So each box is moved by velocity × (pts − result.pts), at most [`MAX_LEAD_S`] either way.
pub fn annotate(canvas: &mut Canvas, result: &FrameResult, pts: Micros) -> usize {
    let apart = Micros(pts.0.saturating_sub(result.pts.0)).seconds();
    if apart.abs() > STALE_AFTER_S {
        return 0;
    }
    let lead = apart.clamp(-MAX_LEAD_S, MAX_LEAD_S) as f32;
    let (width, height) = size(canvas);
    // A size of 0 gives infinity, and boxes that are not finite are not drawn.
    let shrink = [width as f32 / result.size[0] as f32, height as f32 / result.size[1] as f32];
    let scale = (height / 540).clamp(1, 4);
    let mut drawn = 0;
    let mut labels = Vec::with_capacity(result.tracks.len());
    for track in &result.tracks {
        let Some(rect) = place(track, lead, shrink, (width, height)) else { continue };
        let color = Color::from(class_color(track.class));
        outline(canvas, rect, 2 * scale, color);
        labels.push((rect, label(track), color));
        drawn += 1;
    }
    // After all outlines, so that no box crosses out the label of another.
    for (rect, text, color) in labels {
        let (x, y) = label_corner(rect, label_size(&text, scale), width);
        draw_label(canvas, x, y, &text, scale, color);
    }
    drawn
}

/// Where the box of a track is after `lead` seconds, in whole pixels; `None` if no part of it is on the picture.
fn place(track: &TrackedObject, lead: f32, [sx, sy]: [f32; 2], (width, height): (i32, i32)) -> Option<Rect> {
    let [vx, vy] = track.velocity.unwrap_or_default();
    let BBox { x1, y1, x2, y2 } = track.bbox;
    let (dx, dy) = (vx * lead, vy * lead);
    let edges = [(x1 + dx) * sx, (y1 + dy) * sy, (x2 + dx) * sx, (y2 + dy) * sy];
    if !edges.iter().all(|v| v.is_finite()) {
        return None;
    }
    // `as` saturates: what is far outside stays outside.
    let [x0, y0, x1, y1] = edges.map(|v| v.round() as i32);
    let visible = x0 < x1 && y0 < y1 && x1 > 0 && y1 > 0 && x0 < width && y0 < height;
    visible.then_some(Rect { x0, y0, x1, y1 })
}

/// Above the box, or inside its top edge where there is no room above; never left or right of the picture.
fn label_corner(rect: Rect, (width, height): (i32, i32), picture_width: i32) -> (i32, i32) {
    let x = rect.x0.min(picture_width.saturating_sub(width)).max(0);
    let above = rect.y0.saturating_sub(height);
    (x, if above >= 0 { above } else { rect.y0.max(0) })
}

/// Class and number of the track, and its speed once known: `car 12 85px/s`.
fn label(track: &TrackedObject) -> String {
    let name = format!("{} {}", track.class.name(), track.track);
    match track.velocity.map(|[vx, vy]| vx.hypot(vy)) {
        Some(speed) if speed.is_finite() && speed >= SHOWN_SPEED_PX_S => format!("{name} {speed:.0}px/s"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use aits_orders::{ObjectClass, Sequence, StreamId};
    use proptest::prelude::*;

    use super::super::paint::tests::{canvas, luma, painted};
    use super::*;

    fn track(bbox: [f32; 4], velocity: Option<[f32; 2]>) -> TrackedObject {
        TrackedObject { track: 12, class: ObjectClass::Car, score: 0.9, bbox: bbox.into(), velocity }
    }

    fn result(tracks: Vec<TrackedObject>) -> FrameResult {
        FrameResult {
            stream: StreamId(1),
            sequence: Sequence(0),
            pts: Micros(1_000_000),
            decoded_at: Micros(0),
            finished_at: Micros(0),
            detect_ms: 1.0,
            size: [200, 100],
            tracks,
            counts: Vec::new(),
            mean_speed_px_s: None,
            provisional: true,
        }
    }

    #[test]
    fn a_box_is_moved_to_the_time_of_the_frame() {
        let mut canvas = canvas(200, 100);
        let seen = result(vec![track([20.0, 40.0, 60.0, 80.0], Some([100.0, 0.0]))]);
        assert_eq!(annotate(&mut canvas, &seen, Micros(1_500_000)), 1);
        assert_eq!(luma(&mut canvas, 20, 60), 99);
        assert_eq!(luma(&mut canvas, 70, 60), Color::from([0, 255, 40]).yuv[0]);
    }

    #[test]
    fn the_lead_is_limited_and_stale_results_are_not_drawn() {
        let seen = result(vec![track([20.0, 40.0, 60.0, 80.0], Some([50.0, 0.0]))]);
        let mut two_seconds = canvas(200, 100);
        assert_eq!(annotate(&mut two_seconds, &seen, Micros(3_000_000)), 1);
        assert_ne!(luma(&mut two_seconds, 70, 60), 99);
        let mut stale = canvas(200, 100);
        assert_eq!(annotate(&mut stale, &seen, Micros(9_000_000)), 0);
        assert_eq!(annotate(&mut stale, &seen, Micros(i64::MIN)), 0);
        assert_eq!(painted(&mut stale, 0), 0);
    }

    #[test]
    fn boxes_are_scaled_to_a_smaller_canvas() {
        let mut canvas = canvas(100, 50);
        let seen = result(vec![track([20.0, 60.0, 120.0, 90.0], None)]);
        annotate(&mut canvas, &seen, Micros(1_000_000));
        assert_ne!(luma(&mut canvas, 10, 40), 99);
        assert_eq!(luma(&mut canvas, 62, 40), 99);
    }

    #[test]
    fn a_label_at_the_top_edge_is_inside_the_picture() {
        assert_eq!(label_corner(Rect { x0: 190, y0: 3, x1: 220, y1: 40 }, (60, 12), 200), (140, 3));
        assert_eq!(label_corner(Rect { x0: -4, y0: 50, x1: 9, y1: 60 }, (60, 12), 200), (0, 38));
    }

    #[test]
    fn labels_say_class_number_and_speed() {
        assert_eq!(label(&track([0.0; 4], None)), "car 12");
        assert_eq!(label(&track([0.0; 4], Some([0.1, 0.2]))), "car 12");
        assert_eq!(label(&track([0.0; 4], Some([30.0, 40.0]))), "car 12 50px/s");
        assert_eq!(label(&track([0.0; 4], Some([f32::NAN, 40.0]))), "car 12");
    }

    #[test]
    fn boxes_that_are_no_boxes_draw_nothing() {
        let nan = f32::NAN;
        for bad in [
            [nan, 1.0, 9.0, 9.0],
            [1.0, 1.0, f32::INFINITY, 9.0],
            [9.0, 9.0, 1.0, 1.0],
            [5.0, 5.0, 5.0, 50.0],
            [-50.0, 0.0, -1.0, 9.0],
            [300.0, 0.0, 310.0, 9.0],
        ] {
            let mut canvas = canvas(33, 17);
            assert_eq!(
                annotate(&mut canvas, &result(vec![track(bad, None)]), Micros(1_000_000)),
                0,
                "{bad:?}"
            );
            assert_eq!(painted(&mut canvas, 0), 0);
        }
    }

    proptest! {
        /// No number that a peer can send makes drawing panic, on any size of picture.
        #[test]
        fn any_numbers_are_survived(
            width in 1_u32..90, height in 1_u32..90, pts in any::<i64>(),
            bbox in any::<[f32; 4]>(), near in proptest::array::uniform4(-100.0_f32..200.0),
            velocity in any::<Option<[f32; 2]>>(), id in any::<u64>(), size in any::<[u32; 2]>(),
        ) {
            let mut canvas = canvas(width, height);
            let mut seen = result(vec![track(bbox, velocity), track(near, velocity), track(near, None)]);
            seen.tracks[0].track = id;
            annotate(&mut canvas, &seen, Micros(pts));
            annotate(&mut canvas, &seen, Micros(1_200_000));
            seen.size = size;
            annotate(&mut canvas, &seen, Micros(1_200_000));
        }
    }
}
