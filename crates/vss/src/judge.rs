//! From a block to a result: everything that the judging thread knows.
//!
//! ```text
//!  stream:  unknown ──frame──▶ Scene ──later frame──▶ Scene (goes on)
//!                                │ ──frame that was decoded earlier──▶ refused: a newer one was judged before
//!                                │ ──earlier or equal number──▶ new Scene: vas opened the stream again
//!                                └ ──forget, or 256 newer streams──▶ unknown
//! ```
//!
//! A stream that begins again (its sequence or time goes back: vas was restarted) is another recording: nothing says how
//! much time passed between, so tracks *and* counts begin at zero, as for a new stream.

use std::{collections::HashMap, time::Instant};

use aits_detect::{DetectError, Detector};
use aits_frame::{HeaderError, Picture};
use aits_orders::{FORGET_ALL, FrameResult, Micros, Sequence, StreamId};
use aits_traffic::{Observation, Scene, Settings};

/// Streams whose tracks are kept at a time; of more, the one that was longest without a frame is forgotten.
const STREAMS: usize = 256;

/// Why a block gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The bytes are not a picture.
    #[error(transparent)]
    Block(#[from] HeaderError),
    /// A newer frame of the stream was judged before: tracks do not go back in time.
    #[error("frame {} of stream {stream} comes after a newer one", sequence.0)]
    Late { stream: StreamId, sequence: Sequence },
    /// The detector failed.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// The judge of all streams of this process.
pub(crate) struct Judge {
    detector: Box<dyn Detector>,
    settings: Settings,
    streams: HashMap<StreamId, Stream>,
    /// Counts frames, to know which stream is the stalest.
    turn: u64,
}

struct Stream {
    scene: Scene,
    sequence: Sequence,
    pts: Micros,
    decoded_at: Micros,
    turn: u64,
}

impl Judge {
    pub fn new(detector: Box<dyn Detector>) -> Self {
        let settings = Settings { sure: detector.info().confident, ..Settings::default() };
        Self { detector, settings, streams: HashMap::new(), turn: 0 }
    }

    /// Judges the picture in a block.
    pub fn judge(&mut self, block: &[u8]) -> Result<FrameResult, Refused> {
        let picture = Picture::parse(block)?;
        let header = *picture.header();
        // What claims to come from the future must not make everything after it late.
        let decoded_at = header.decoded_at.min(Micros::monotonic_now());
        let newer = |last: &Stream| (last.decoded_at, last.sequence) >= (decoded_at, header.sequence);
        if self.streams.get(&header.stream).is_some_and(newer) {
            return Err(Refused::Late { stream: header.stream, sequence: header.sequence });
        }
        let start = Instant::now();
        let found = self.detector.detect(&picture, None)?;
        let detect_ms = start.elapsed().as_secs_f32() * 1e3;
        let found: Vec<Observation> =
            found.iter().map(|d| Observation { class: d.class, score: d.score, bbox: d.bbox }).collect();

        self.turn += 1;
        let turn = self.turn;
        self.make_room(header.stream);
        let fresh = || Stream {
            scene: Scene::new(self.settings),
            sequence: header.sequence,
            pts: header.pts,
            decoded_at,
            turn,
        };
        let stream = self.streams.entry(header.stream).or_insert_with(fresh);
        if stream.turn != turn && (header.sequence <= stream.sequence || header.pts <= stream.pts) {
            tracing::info!(
                "stream {} begins again (frame {} at {:.1} s after frame {} at {:.1} s): tracks and counts begin at zero",
                header.stream,
                header.sequence.0,
                header.pts.seconds(),
                stream.sequence.0,
                stream.pts.seconds()
            );
            *stream = fresh();
        }
        (stream.sequence, stream.pts, stream.turn) = (header.sequence, header.pts, turn);
        stream.decoded_at = decoded_at;
        let verdict = stream.scene.judge(header.pts, &found).unwrap_or_else(|error| {
            // Cannot be: an earlier frame has just made a new scene. Should it be, the frame shows nothing.
            tracing::error!("stream {}: {error}", header.stream);
            Scene::new(self.settings).judge(header.pts, &[]).unwrap_or_default()
        });
        if verdict.dropped > 0 {
            tracing::warn!("stream {}: {} detections made no sense", header.stream, verdict.dropped);
        }
        let layout = picture.layout();
        Ok(FrameResult {
            stream: header.stream,
            sequence: header.sequence,
            pts: header.pts,
            decoded_at: header.decoded_at,
            finished_at: Micros::monotonic_now(),
            detect_ms,
            size: [layout.width, layout.height],
            tracks: verdict.tracks,
            counts: verdict.counts,
            mean_speed_px_s: verdict.mean_speed_px_s,
            provisional: true,
        })
    }

    /// Forgets tracks and counts of a stream, or of all.
    pub fn forget(&mut self, stream: StreamId) {
        if stream == FORGET_ALL {
            self.streams.clear();
        } else {
            self.streams.remove(&stream);
        }
    }

    fn make_room(&mut self, stream: StreamId) {
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&stream) {
            let stalest = self.streams.iter().min_by_key(|(_, s)| s.turn).map(|(id, _)| *id);
            stalest.map(|id| self.streams.remove(&id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use aits_detect::{BBox, Detection, Head, ModelInfo, ObjectClass, Rect};
    use aits_frame::{HEADER_LEN, Header, PictureLayout};

    use super::*;

    /// Sees a car where the picture is bright: a detector without a model.
    struct Bright(ModelInfo);

    impl Detector for Bright {
        fn detect(
            &mut self,
            picture: &Picture<'_>,
            region: Option<Rect>,
        ) -> Result<Vec<Detection>, DetectError> {
            assert_eq!(region, None);
            let plane = picture.plane(0);
            let bright = (0..plane.width).find(|&x| plane.row(plane.height / 2)[x] > 200);
            let car = |x: usize| Detection {
                class: ObjectClass::Car,
                score: 0.9,
                bbox: BBox { x1: x as f32, y1: 8.0, x2: x as f32 + 16.0, y2: 16.0 },
            };
            Ok(bright.map(car).into_iter().collect())
        }

        fn info(&self) -> &ModelInfo {
            &self.0
        }
    }

    fn judge() -> Judge {
        let info = ModelInfo { file: "none".into(), head: Head::NanoDet, input: [64, 32], confident: 0.5 };
        Judge::new(Box::new(Bright(info)))
    }

    /// A frame with a car at `x`, decoded later than all before.
    fn frame(stream: u32, sequence: u64, x: usize) -> Vec<u8> {
        static CLOCK: AtomicI64 = AtomicI64::new(1);
        frame_at(stream, sequence, x, CLOCK.fetch_add(1, Relaxed))
    }

    fn frame_at(stream: u32, sequence: u64, x: usize, decoded_at: i64) -> Vec<u8> {
        let layout = PictureLayout::tight(320, 24);
        let mut block = vec![0; HEADER_LEN + layout.payload_len() as usize];
        for y in 0..24 {
            block[HEADER_LEN + y * layout.strides[0] as usize + x] = 255;
        }
        let header = Header {
            stream: StreamId(stream),
            sequence: Sequence(sequence),
            pts: Micros(sequence as i64 * 40_000),
            decoded_at: Micros(decoded_at),
            payload_len: layout.payload_len(),
            annotated: false,
            layout: Some(layout),
        };
        header.write_to(&mut block).unwrap();
        block
    }

    fn total(result: &FrameResult) -> u64 {
        result.counts.iter().map(|c| c.total).sum()
    }

    #[test]
    fn each_stream_has_its_own_tracks() {
        let mut judge = judge();
        for n in 0..5 {
            let block = frame(1, n * 5, 10 + 4 * n as usize);
            let decoded_at = Header::parse(&block).unwrap().decoded_at;
            let first = judge.judge(&block).unwrap();
            let second = judge.judge(&frame(2, n * 5, 200)).unwrap();
            assert_eq!((first.stream, first.sequence, first.size), (StreamId(1), Sequence(n * 5), [320, 24]));
            assert_eq!((first.tracks[0].track, second.tracks[0].track), (1, 1));
            assert_eq!((first.decoded_at, first.provisional), (decoded_at, true));
            assert_eq!(total(&first), u64::from(n > 0));
        }
        judge.forget(StreamId(1));
        assert_eq!(total(&judge.judge(&frame(1, 30, 30)).unwrap()), 0);
        assert_eq!(total(&judge.judge(&frame(2, 30, 200)).unwrap()), 1);
        judge.forget(FORGET_ALL);
        assert_eq!(total(&judge.judge(&frame(2, 35, 200)).unwrap()), 0);
    }

    #[test]
    fn a_stream_that_begins_again_is_counted_from_zero() {
        let mut judge = judge();
        for n in 10..14 {
            judge.judge(&frame(1, n * 5, 100)).unwrap();
        }
        let again = judge.judge(&frame(1, 0, 100)).unwrap();
        assert_eq!((again.tracks[0].track, again.tracks[0].velocity, total(&again)), (1, None, 0));
        let next = judge.judge(&frame(1, 5, 100)).unwrap();
        assert_eq!((next.tracks[0].track, total(&next)), (1, 1));
        // The same number twice, decoded later, is a beginning, too, and no panic.
        assert_eq!(total(&judge.judge(&frame(1, 5, 100)).unwrap()), 0);
    }

    #[test]
    fn a_frame_that_a_newer_one_has_overtaken_changes_nothing() {
        let mut judge = judge();
        for n in 1..4 {
            judge.judge(&frame_at(1, n * 5, 100, 10 * n as i64)).unwrap();
        }
        for (sequence, decoded_at) in [(10, 20), (15, 30), (99, 29)] {
            let late = judge.judge(&frame_at(1, sequence, 100, decoded_at));
            assert!(matches!(late, Err(Refused::Late { .. })), "{sequence}");
        }
        let next = judge.judge(&frame_at(1, 20, 100, 40)).unwrap();
        assert_eq!((next.tracks[0].track, total(&next)), (1, 1), "the track goes on");
        judge.judge(&frame_at(1, 25, 100, i64::MAX)).unwrap();
        judge.judge(&frame_at(1, 30, 100, i64::MAX)).expect("a claim from the future makes nothing late");
    }

    #[test]
    fn a_bad_block_is_refused_and_changes_nothing() {
        let mut judge = judge();
        for n in 0..3 {
            judge.judge(&frame(1, n * 5, 100)).unwrap();
        }
        let mut bad = frame(1, 20, 100);
        bad[0] ^= 1;
        assert!(matches!(judge.judge(&bad), Err(Refused::Block(HeaderError::NotAFrame))));
        assert!(matches!(judge.judge(&[]), Err(Refused::Block(HeaderError::TooShort { .. }))));
        assert!(judge.judge(&frame(1, 20, 100)[..500]).is_err());
        let good = judge.judge(&frame(1, 20, 104)).unwrap();
        assert_eq!((good.tracks[0].track, total(&good)), (1, 1));
    }

    #[test]
    fn streams_beyond_the_bound_push_out_the_stalest() {
        let mut judge = judge();
        for stream in 0..STREAMS as u32 {
            judge.judge(&frame(stream + 1, 0, 100)).unwrap();
        }
        judge.judge(&frame(1, 5, 100)).unwrap();
        judge.judge(&frame(9999, 0, 100)).unwrap();
        assert_eq!(judge.streams.len(), STREAMS);
        assert!(judge.streams.contains_key(&StreamId(1)) && !judge.streams.contains_key(&StreamId(2)));
    }
}
