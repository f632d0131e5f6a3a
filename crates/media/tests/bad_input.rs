//! Bad input gives one sentence that says what to do; damaged input never more than lost frames.

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aits_media::memory::HeapMemory;
use aits_media::{Next, OpenError, Source, SourceOptions, StopFlag};
use common::{assert_pattern, clip, open_path, options};
use proptest::prelude::*;

fn refusal(path: &Path) -> OpenError {
    match open_path(path, &HeapMemory::new(64)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// A file with this content in a directory of its own.
fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn what_is_no_video_file_is_refused_with_its_own_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refusal(&dir.path().join("missing.mp4"));
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    assert!(missing.to_string().starts_with("there is no file "), "{missing}");

    assert!(matches!(refusal(dir.path()), OpenError::NotAFile { what: "a directory", .. }));

    let (_dir, text) = file("text.mp4", "this is a text, whatever its name says\n".repeat(50).as_bytes());
    let error = refusal(&text);
    assert!(matches!(error, OpenError::NotAVideo { .. }), "{error}");
    assert!(error.to_string().contains("does not contain a video"), "{error}");

    let (_dir, empty) = file("empty.mp4", b"");
    assert!(matches!(refusal(&empty), OpenError::Empty { .. }));
}

#[test]
fn a_pipe_is_refused_at_once_instead_of_waiting_for_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.mp4");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(refusal(&pipe), OpenError::NotAFile { what: "a pipe or socket", .. }));
}

#[test]
fn an_mp4_cut_off_before_its_index_is_named_as_that() {
    let whole = std::fs::read(clip("h265.mp4")).unwrap();
    let (_dir, cut) = file("cut.mp4", &whole[..whole.len() / 2]);
    let error = refusal(&cut);
    assert!(matches!(error, OpenError::NoIndex { .. }), "{error}");
    assert!(error.to_string().contains("moov"), "{error}");
}

#[test]
fn an_mp4_cut_in_the_middle_plays_what_is_there() {
    let whole = std::fs::read(clip("h264_bframes.mp4")).unwrap();
    let (_dir, cut) = file("cut.mp4", &whole[..whole.len() - 700]);
    let memory = HeapMemory::new(64);
    let mut source = open_path(&cut, &memory).unwrap();
    let mut good = 0;
    loop {
        match source.next() {
            Ok(Next::Frame(_, block)) => {
                if good < 20 {
                    assert_pattern(&block, good, 3);
                }
                good += 1;
            }
            Ok(Next::Damaged) => {}
            Ok(Next::End) => break,
            Ok(Next::NoBlock(why)) => panic!("{why}"),
            Err(error) => {
                assert!(error.to_string().contains("copy or record it again"), "{error}");
                break;
            }
        }
    }
    assert!((20..50).contains(&good), "{good} frames of 50");
    drop(source);
    assert_eq!(memory.in_use(), 0);
}

#[test]
fn a_codec_that_nobody_knows_is_named() {
    let mut bytes = std::fs::read(clip("h264_bframes.mp4")).unwrap();
    let at = bytes.windows(4).position(|four| four == b"avc1").unwrap();
    // The first is the brand in the header of the file, the last the sample entry.
    let last = bytes.windows(4).rposition(|four| four == b"avc1").unwrap();
    assert!(at < last);
    bytes[last..last + 4].copy_from_slice(b"zzzz");
    let (_dir, path) = file("unknown.mp4", &bytes);
    let error = refusal(&path);
    assert!(matches!(error, OpenError::UnsupportedCodec { .. }), "{error}");
    assert!(error.to_string().contains("convert it to H.264"), "{error}");
}

#[test]
fn sound_alone_is_no_video() {
    let samples = vec![0_u8; 16_000];
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + samples.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    wav.extend([8000_u32, 16_000].map(u32::to_le_bytes).concat());
    wav.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend((samples.len() as u32).to_le_bytes());
    wav.extend(samples);
    let (_dir, path) = file("sound.wav", &wav);
    let error = refusal(&path);
    assert!(matches!(error, OpenError::NoVideo { .. }), "{error}");
}

#[test]
fn a_path_with_a_colon_is_a_path() {
    let whole = std::fs::read(clip("h265.mp4")).unwrap();
    let (_dir, path) = file("rtsp:10:30.mp4", &whole);
    assert!(open_path(&path, &HeapMemory::new(64)).is_ok());
}

#[test]
fn a_host_that_refuses_is_named_without_the_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("rtsp://admin:hunter2@127.0.0.1:{closed}/ch1");
    let error = Source::open(&url, HeapMemory::new(1), options()).err().unwrap();
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("admin"), "{error}");
    assert!(error.to_string().contains(&format!("rtsp://***@127.0.0.1:{closed}/ch1")), "{error}");
}

#[test]
fn a_host_that_says_nothing_is_given_up() {
    // It accepts (the kernel does), but never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://u:p@{}/ch1", silent.local_addr().unwrap());
    let options = SourceOptions { open_timeout: Duration::from_millis(300), ..options() };
    let error = Source::open(&url, HeapMemory::new(1), options).err().unwrap();
    assert!(matches!(error, OpenError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[test]
fn a_host_that_speaks_something_else_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/ch1", other.local_addr().unwrap());
    let opener = std::thread::spawn(move || Source::open(&url, HeapMemory::new(1), options()).err());
    drop(other.accept().unwrap());
    let error = opener.join().unwrap().unwrap();
    assert!(matches!(error, OpenError::NotAStream { .. }), "{error:?}");
}

#[test]
fn opening_can_be_stopped_from_elsewhere() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/ch1", silent.local_addr().unwrap());
    let stop = StopFlag::default();
    let options = SourceOptions { open_timeout: Duration::from_secs(600), stop: stop.clone(), ..options() };
    let opener = std::thread::spawn(move || Source::open(&url, HeapMemory::new(1), options).err());
    let connection = silent.accept().unwrap();
    stop.stop();
    let error = opener.join().unwrap().unwrap();
    assert!(matches!(error, OpenError::Stopped { .. }), "{error:?}");
    drop(connection);
}

#[test]
fn a_scheme_that_nobody_knows_is_named() {
    let error = Source::open("gopher9://host/x", HeapMemory::new(1), options()).err().unwrap();
    assert!(matches!(error, OpenError::UnknownScheme { .. }), "{error:?}");
}

#[test]
fn only_files_and_cameras_are_opened_whatever_ffmpeg_can_open() {
    let path = clip("h264_changes_size.ts");
    let path = path.to_str().unwrap();
    for url in [
        format!("cache:file://{path}"),
        format!("async:file://{path}"),
        format!("subfile,,start,0,end,100000,,:file://{path}"),
        format!("crypto+file://{path}"),
        format!("concat:file://{path}|file://{path}"),
        "pipe://0".into(),
        "ftp://host/x".into(),
        "HTTP+file://host/x".into(),
    ] {
        let error = Source::open(&url, HeapMemory::new(64), options()).err();
        assert!(matches!(error, Some(OpenError::UnknownScheme { .. })), "{url}: {error:?}");
        let sentence = error.unwrap().to_string();
        assert!(sentence.contains("rtsp://") && sentence.contains("file://"), "{sentence}");
    }
    assert!(Source::open(&format!("file://{path}"), HeapMemory::new(64), options()).is_ok());
    // Without `://` it is a path, however it begins.
    let data = Source::open("data:video/mp2t;base64,AAAA", HeapMemory::new(64), options()).err();
    assert!(matches!(data, Some(OpenError::Missing { .. })), "{data:?}");
}

#[test]
fn a_playlist_may_name_files_and_no_other_protocol() {
    let video = clip("h264_changes_size.ts");
    let playlist =
        |segment: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{segment}\n#EXT-X-ENDLIST\n");
    let (dir, good) = file("good.m3u8", playlist("part.ts").as_bytes());
    std::fs::copy(&video, dir.path().join("part.ts")).unwrap();
    open_path(&good, &HeapMemory::new(64)).unwrap();
    // The same video, in the address of the segment itself.
    let base64 = std::process::Command::new("base64").arg("-w0").arg(&video).output().unwrap();
    assert!(base64.status.success());
    let data = format!("data:video/mp2t;base64,{}", String::from_utf8(base64.stdout).unwrap());
    let (_dir, bad) = file("bad.m3u8", playlist(&data).as_bytes());
    refusal(&bad);
}

/// Reads a file to its end, whatever comes; answers how many frames there were.
fn read_through(path: &Path, memory: &HeapMemory) -> usize {
    let Ok(mut source) = open_path(path, memory) else { return 0 };
    let mut frames = 0;
    // Damage can make a short file claim any number of frames, but each step reads something.
    for _ in 0..2000 {
        match source.next() {
            Ok(Next::Frame(header, block)) => {
                assert!(
                    aits_frame::Picture::parse(&block).is_ok(),
                    "what is handed on is a picture: {header:?}"
                );
                frames += 1;
            }
            Ok(Next::NoBlock(_) | Next::Damaged) => {}
            Ok(Next::End) | Err(_) => break,
        }
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Flipped bytes, in the index or in the pictures: frames, refusals or sentences, never a crash, and no block lost.
    #[test]
    fn damaged_files_lose_frames_and_nothing_else(
        name in prop::sample::select(vec![
            "h264_bframes.mp4", "h265.mp4", "h264_422.mp4", "h264_changes_size.ts", "mjpeg_full_range.avi",
        ]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(clip(name)).unwrap();
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        let (_dir, path) = file(name, &bytes);
        let memory = HeapMemory::new(40);
        read_through(&path, &memory);
        prop_assert_eq!(memory.in_use(), 0);
    }
}

/// The property above is worth something only if undamaged files do play in it.
#[test]
fn the_reader_of_damaged_files_reads_whole_ones() {
    assert_eq!(read_through(&clip("h264_bframes.mp4"), &HeapMemory::new(40)), 50);
}
