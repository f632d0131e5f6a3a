//! Pictures arrive in blocks: the right pixels, the right order, no copies, no block lost.

mod common;

use aits_frame::{ColorRange, HEADER_LEN, Micros, Sequence, StreamId};
use aits_media::memory::HeapMemory;
use aits_media::{Next, ReadError, Source, SourceOptions, StopFlag};
use common::{assert_pattern, clip, frame, frames, open, options, range};

/// Name, frames, size, whether FFmpeg writes it straight into blocks.
type Clip = (&'static str, usize, (u32, u32), bool);

const CLIPS: [Clip; 6] = [
    ("h264_bframes.mp4", 50, (320, 240), true),
    ("h265.mp4", 50, (320, 240), true),
    ("h264_322x182.mp4", 25, (322, 182), true),
    ("mjpeg_full_range.avi", 25, (320, 240), true),
    ("h264_422.mp4", 25, (320, 240), false),
    ("h264_10bit.mp4", 25, (320, 240), false),
];

#[test]
fn every_pixel_of_every_frame_is_right_and_in_order() {
    for (name, count, size, direct) in CLIPS {
        for threads in [1, 4] {
            let memory = HeapMemory::new(64);
            let path = clip(name);
            let options = SourceOptions { threads, ..options() };
            let mut source = Source::open(path.to_str().unwrap(), memory.clone(), options).unwrap();
            assert_eq!(source.video().fps, 25.0, "{name}");
            let mut number = 0;
            while let Some((header, block)) = frame(&mut source) {
                assert_eq!(header.stream, StreamId(3));
                assert_eq!(header.sequence, Sequence(number as u64), "{name}");
                assert_eq!(header.pts, Micros(40_000 * number as i64), "{name}");
                let layout = header.layout.unwrap();
                assert_eq!((layout.width, layout.height), size, "{name}");
                assert_pattern(&block, number, 3);
                number += 1;
            }
            assert_eq!(number, count, "{name}");
            let counters = source.counters();
            assert_eq!(counters.decoded, count as u64);
            assert_eq!(counters.copied, if direct { 0 } else { count as u64 }, "{name}");
            assert_eq!((counters.damaged, counters.pool_exhausted), (0, 0), "{name}");
            drop(source);
            assert_eq!(memory.in_use(), 0, "{name}: all blocks came back");
        }
    }
}

#[test]
fn strides_and_planes_are_aligned_for_vector_code() {
    let mut source = open("h264_322x182.mp4", &HeapMemory::new(64));
    let (header, block) = frame(&mut source).unwrap();
    let layout = header.layout.unwrap();
    assert!(layout.strides.iter().all(|stride| stride % 64 == 0));
    assert!(layout.offsets.iter().all(|offset| offset % 64 == 0));
    assert_eq!(block.as_ptr().addr() % 64, 0);
    assert_eq!(header.payload_len, (block.len() - HEADER_LEN) as u64);
}

#[test]
fn the_range_of_the_luma_is_told() {
    for (name, expected) in [("h265.mp4", ColorRange::Limited), ("mjpeg_full_range.avi", ColorRange::Full)] {
        let (_, block) = frame(&mut open(name, &HeapMemory::new(64))).unwrap();
        assert_eq!(range(&block), expected, "{name}");
    }
}

/// The decoder goes on reading pictures that were handed on: they must neither change nor come back too early.
#[test]
fn frames_that_are_kept_stay_as_they_are_while_the_decoder_goes_on() {
    let memory = HeapMemory::new(64);
    let mut source = open("h264_bframes.mp4", &memory);
    let kept = frames(&mut source);
    assert_eq!(kept.len(), 50);
    for (number, (_, block)) in kept.iter().enumerate() {
        assert_pattern(block, number, 3);
    }
    drop(source);
    assert_eq!(memory.in_use(), 50, "the decoder's own references are gone");
    drop(kept);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn the_decoder_is_a_holder_of_its_reference_pictures() {
    let memory = HeapMemory::new(64);
    let mut source = open("h264_bframes.mp4", &memory);
    for _ in 0..10 {
        drop(frame(&mut source));
    }
    assert!(memory.in_use() > 0, "frame 10 is coded from others");
    assert!(memory.in_use() <= 17, "{} blocks for one stream", memory.in_use());
}

#[test]
fn an_empty_pool_costs_frames_and_nothing_else() {
    let memory = HeapMemory::new(8);
    let mut source = open("h264_bframes.mp4", &memory);
    let mut kept = Vec::new();
    let mut missed = 0;
    // A reader that keeps everything: soon there is no block left.
    while missed < 3 {
        match source.next().unwrap() {
            Next::Frame(_, block) => kept.push(block),
            Next::NoBlock(why) => {
                assert!(why.to_string().contains("in use"), "{why}");
                missed += 1;
            }
            Next::Damaged => {}
            Next::End => panic!("50 frames do not fit into 8 blocks"),
        }
    }
    assert!(source.counters().pool_exhausted >= 3);
    // It lets go: from the next key frame on (25 and 50, after the rewind 0) every picture is right again.
    kept.clear();
    while !matches!(source.next().unwrap(), Next::End) {}
    source.rewind().unwrap();
    for number in 0..50 {
        let (_, block) = frame(&mut source).unwrap();
        assert_pattern(&block, number, 3);
    }
    drop(source);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn no_block_for_a_conversion_is_told_as_well() {
    let memory = HeapMemory::new(1);
    let mut source = open("h264_422.mp4", &memory);
    let (_, kept) = frame(&mut source).unwrap();
    assert!(matches!(source.next().unwrap(), Next::NoBlock(_)));
    drop(kept);
    assert!(frame(&mut source).is_some());
    assert_eq!(source.counters().pool_exhausted, 1);
}

#[test]
fn a_change_of_size_in_mid_stream_is_followed() {
    let memory = HeapMemory::new(64);
    let mut source = open("h264_changes_size.ts", &memory);
    let mut sizes = Vec::new();
    let mut last = Micros(-1);
    let mut of_size = 0;
    while let Some((header, block)) = frame(&mut source) {
        let layout = header.layout.unwrap();
        if sizes.last() != Some(&(layout.width, layout.height)) {
            sizes.push((layout.width, layout.height));
            of_size = 0;
        }
        assert_pattern(&block, of_size, 3);
        of_size += 1;
        assert!(header.pts > last, "the second part counts from 0 again in the file, not here");
        last = header.pts;
    }
    assert_eq!(sizes, [(320, 240), (176, 144)]);
    assert_eq!((source.video().width, source.video().height), (176, 144));
    assert_eq!(source.counters().copied, 0);
}

#[test]
fn loops_go_on_counting() {
    for (name, count, ..) in CLIPS.iter().copied().chain([("h264_changes_size.ts", 50, (0, 0), true)]) {
        let memory = HeapMemory::new(64);
        let mut source = open(name, &memory);
        let mut expected_pts = 0;
        for round in 0..3 {
            for number in 0..count {
                let (header, block) = frame(&mut source).unwrap_or_else(|| panic!("{name}, round {round}"));
                assert_eq!(header.sequence.0 as usize, round * count + number, "{name}");
                if name.ends_with("mp4") {
                    assert_eq!(header.pts, Micros(expected_pts), "{name}, round {round}, frame {number}");
                    assert_pattern(&block, number, 3);
                }
                assert!(header.pts.0 >= expected_pts, "{name}");
                expected_pts = header.pts.0 + 40_000;
            }
            assert!(frame(&mut source).is_none(), "{name}");
            source.rewind().unwrap();
        }
        drop(source);
        assert_eq!(memory.in_use(), 0, "{name}");
    }
}

#[test]
fn the_stop_flag_ends_a_source() {
    let stop = StopFlag::default();
    let options = SourceOptions { stop: stop.clone(), ..options() };
    let mut source = Source::open(clip("h265.mp4").to_str().unwrap(), HeapMemory::new(64), options).unwrap();
    assert!(matches!(source.next(), Ok(Next::Frame(..))));
    stop.stop();
    assert!(matches!(source.next(), Err(ReadError::Stopped { .. })));
}

/// A VP9 stream can order an old picture to be shown again (`show_existing_frame`): the same memory comes out a second
/// time. The block that was handed on must not get another header.
#[test]
fn a_picture_that_comes_out_twice_is_two_blocks() {
    // IVF: a header of 32 bytes, then frames of (length, time stamp, data).
    let whole = std::fs::read(clip("vp9.ivf")).unwrap();
    let mut doubled = whole[..32].to_vec();
    let mut rest = &whole[32..];
    let mut stamp = 0_u64;
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        // 0b10 frame marker, profile 0, show_existing_frame, reference 0: every frame of this clip refreshes it.
        for data in [&rest[12..12 + len], &[0b1000_1000]] {
            doubled.extend((data.len() as u32).to_le_bytes());
            doubled.extend(stamp.to_le_bytes());
            doubled.extend(data);
            stamp += 1;
        }
        rest = &rest[12 + len..];
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doubled.ivf");
    std::fs::write(&path, doubled).unwrap();
    let memory = HeapMemory::new(64);
    let mut source = common::open_path(&path, &memory).unwrap();
    let kept = frames(&mut source);
    assert_eq!(kept.len(), 20);
    for (number, (header, block)) in kept.iter().enumerate() {
        assert_pattern(block, number / 2, 4);
        assert_eq!(aits_frame::Header::parse(block).unwrap(), *header);
        assert_eq!(header.sequence.0 as usize, number);
    }
    assert_eq!(source.counters().copied, 10);
    drop((source, kept));
    assert_eq!(memory.in_use(), 0);
}
