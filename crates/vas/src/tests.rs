//! Desk and player together, on heap memory and an inbox made of a channel.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aits_frame::{Header, StreamId};
use aits_media::memory::{HeapBlock, HeapMemory};
use aits_orders::{OpenStream, Pace, SourceState, VasStream};

use crate::desk::{Desk, Refusal};
use crate::outlet::{Dropped, Outlet};
use crate::player;

/// An inbox with room for everything, or one that refuses.
struct TestInbox {
    frames: Sender<(Header, HeapBlock)>,
    refuse: Arc<Mutex<Option<Dropped>>>,
}

impl Outlet<HeapBlock> for TestInbox {
    fn publish(&self, block: HeapBlock) -> Result<u32, Dropped> {
        if let Some(why) = *self.refuse.lock().unwrap() {
            return Err(why);
        }
        let header = Header::parse(&block).unwrap();
        // A test that has heard enough hangs up.
        self.frames.send((header, block)).map_err(|_| Dropped::NoReceiver)?;
        // Full at every hand-over, as far as the counters can tell.
        Ok(1)
    }
}

struct House {
    desk: Arc<Desk>,
    frames: Receiver<(Header, HeapBlock)>,
    refuse: Arc<Mutex<Option<Dropped>>>,
    memory: HeapMemory,
}

fn house(blocks: usize) -> House {
    let (sender, frames) = channel();
    let (refuse, memory) = (Arc::<Mutex<Option<Dropped>>>::default(), HeapMemory::new(blocks));
    let (refusing, heap) = (Arc::clone(&refuse), memory.clone());
    let sender = Mutex::new(sender);
    let desk = Desk::new(move |stream| {
        let outlet = TestInbox { frames: sender.lock().unwrap().clone(), refuse: Arc::clone(&refusing) };
        assert_eq!(player::play(stream, heap.clone(), &outlet, 1), None);
    });
    House { desk: Arc::new(desk), frames, refuse, memory }
}

impl Drop for House {
    fn drop(&mut self) {
        self.desk.close_all();
    }
}

fn clip(name: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../media/tests/data");
    data.join(name).to_str().unwrap().to_owned()
}

fn order(stream: u32, url: String) -> OpenStream {
    OpenStream { stream: StreamId(stream), url, pace: Pace::Fast, repeat: false, inbox: "test".into() }
}

/// Waits, change by change, until a stream is as wanted.
fn wait_for(desk: &Desk, stream: u32, wanted: impl Fn(&VasStream) -> bool) -> VasStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut seen = 0;
        loop {
            let reply = desk.told_after(seen, Duration::from_secs(60)).await;
            assert_ne!(reply.version, seen, "nothing changes any more: {reply:?}");
            seen = reply.version;
            if let Some(told) = reply.streams.into_iter().find(|told| told.stream.0 == stream && wanted(told))
            {
                return told;
            }
        }
    })
}

fn balanced(told: &VasStream) -> bool {
    let c = told.counters;
    c.decoded == c.published + c.no_receiver + c.inbox_full
}

#[test]
fn a_file_is_opened_read_to_its_end_and_told_of() {
    let house = house(64);
    assert_eq!(house.desk.open(order(1, clip("h264_bframes.mp4"))), Ok(false));
    let told = wait_for(&house.desk, 1, |told| told.state == SourceState::Ended);
    assert_eq!((told.counters.decoded, told.counters.published, told.counters.copied), (50, 50, 0));
    let video = told.video.unwrap();
    assert_eq!((video.codec.as_str(), video.width, video.height, video.fps), ("h264", 320, 240, 25.0));
    let sequence: Vec<u64> = house.frames.try_iter().map(|(header, _)| header.sequence.0).collect();
    assert_eq!(sequence, (0..50).collect::<Vec<_>>());
    assert!(house.desk.wait_for_players(Duration::from_secs(60)));
    assert_eq!(house.memory.in_use(), 0);
}

#[test]
fn what_cannot_be_opened_is_failed_with_its_sentence_and_disturbs_nobody() {
    let house = house(64);
    house.desk.open(OpenStream { repeat: true, ..order(1, clip("h265.mp4")) }).unwrap();
    house.desk.open(order(2, "/no/such/file.mp4".into())).unwrap();
    house.desk.open(order(3, clip("README.md"))).unwrap();
    let told = wait_for(&house.desk, 2, |told| told.state == SourceState::Failed);
    assert!(told.reason.unwrap().starts_with("there is no file /no/such/file.mp4;"));
    let told = wait_for(&house.desk, 3, |told| told.state == SourceState::Failed);
    assert!(told.reason.unwrap().contains("does not contain a video"));
    let (header, _) = house.frames.iter().find(|(header, _)| header.sequence.0 > 120).unwrap();
    assert_eq!(header.stream, StreamId(1));
    assert_eq!(wait_for(&house.desk, 1, |_| true).state, SourceState::Running);
}

#[test]
fn a_repeated_file_goes_on_counting_until_it_is_closed() {
    let house = house(64);
    house.desk.open(OpenStream { repeat: true, ..order(1, clip("h264_bframes.mp4")) }).unwrap();
    let mut last = None;
    for (header, _) in house.frames.iter().take(170) {
        if let Some((sequence, pts)) = last {
            assert_eq!((header.sequence.0, header.pts.0), (sequence + 1, pts + 40_000));
        }
        last = Some((header.sequence.0, header.pts.0));
    }
    house.desk.close(StreamId(1));
    // What was published before the closing is there; nothing follows.
    let before = house.frames.try_iter().count();
    assert_eq!(house.frames.try_iter().count(), 0, "after {before}");
    assert!(house.desk.told().streams.is_empty());
    house.desk.close(StreamId(1));
}

#[test]
fn opening_twice_changes_nothing_and_another_url_replaces() {
    let house = house(64);
    let looped = OpenStream { repeat: true, ..order(1, clip("h264_bframes.mp4")) };
    assert_eq!(house.desk.open(looped.clone()), Ok(false));
    house.frames.iter().nth(10).unwrap();
    assert_eq!(house.desk.open(looped), Ok(true));
    assert_eq!(house.frames.iter().next().unwrap().0.sequence.0, 11, "the same player goes on");
    let other = order(1, clip("h264_322x182.mp4"));
    assert_eq!(house.desk.open(other.clone()), Ok(false));
    let told = wait_for(&house.desk, 1, |told| told.state == SourceState::Ended);
    assert_eq!((told.video.unwrap().width, told.counters.decoded), (322, 25));
    let widths: Vec<u32> = house.frames.try_iter().map(|(header, _)| header.layout.unwrap().width).collect();
    let switch = widths.iter().position(|width| *width == 322).unwrap();
    assert!(
        widths[switch..].iter().all(|width| *width == 322),
        "no frame of the old source after the new one's"
    );
    assert_eq!(house.desk.open(other), Ok(false), "what has ended is played again");
}

#[test]
fn frames_that_nobody_takes_are_counted_where_they_belong() {
    let house = house(64);
    *house.refuse.lock().unwrap() = Some(Dropped::NoReceiver);
    house.desk.open(order(1, clip("h264_bframes.mp4"))).unwrap();
    let told = wait_for(&house.desk, 1, |told| told.state == SourceState::Ended);
    assert_eq!((told.counters.no_receiver, told.counters.published), (50, 0));
    assert!(balanced(&told));
    *house.refuse.lock().unwrap() = Some(Dropped::InboxFull);
    house.desk.open(order(2, clip("h264_bframes.mp4"))).unwrap();
    let told = wait_for(&house.desk, 2, |told| told.state == SourceState::Ended);
    assert_eq!((told.counters.inbox_full, told.counters.published), (50, 0));
    assert!(balanced(&told));
}

#[test]
fn a_full_pool_costs_frames_and_the_stream_goes_on() {
    let house = house(6);
    house.desk.open(OpenStream { repeat: true, ..order(1, clip("h264_bframes.mp4")) }).unwrap();
    // The test keeps what it gets until nothing is left; then it lets go.
    let mut kept: Vec<_> = house.frames.iter().take(3).collect();
    while house.desk.told().streams[0].counters.pool_exhausted == 0 {
        kept.extend(house.frames.recv_timeout(Duration::from_millis(20)));
    }
    let last = kept.last().map(|(header, _)| header.sequence.0).unwrap();
    drop(kept);
    assert!(house.frames.iter().any(|(header, _)| header.sequence.0 > last + 100));
    assert!(balanced(&house.desk.told().streams[0]));
}

#[test]
fn a_full_pool_is_told_while_it_lasts_and_is_not_the_files_fault() {
    let house = house(6);
    let order = OpenStream { repeat: true, pace: Pace::Realtime, ..order(1, clip("h264_bframes.mp4")) };
    house.desk.open(order).unwrap();
    let told = || house.desk.told().streams.remove(0);
    // Everything is kept, for longer than the clip: it is read to its end without one picture.
    let mut kept = Vec::new();
    while told().counters.pool_exhausted < 120 && told().state != SourceState::Failed {
        kept.extend(house.frames.recv_timeout(Duration::from_millis(20)));
    }
    let starving = told();
    assert_eq!(starving.state, SourceState::Running, "{:?}", starving.reason);
    assert!(starving.reason.unwrap().starts_with("frames are lost: "));
    drop(kept);
    while told().reason.is_some() {
        drop(house.frames.recv().unwrap());
    }
    let told = told();
    assert!(balanced(&told));
    assert_eq!(told.counters.revoked, told.counters.published, "each hand-over revoked one");
}

#[test]
fn a_camera_that_does_not_answer_is_closed_at_once() {
    let house = house(4);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://admin:hunter2@{}/ch1", silent.local_addr().unwrap());
    house.desk.open(order(1, url)).unwrap();
    let _connection = silent.accept().unwrap();
    let told = house.desk.told().streams.remove(0);
    assert_eq!(told.state, SourceState::Opening);
    assert!(!told.url.contains("hunter2"), "{}", told.url);
    house.desk.close_all();
    assert!(house.desk.wait_for_players(Duration::from_secs(60)));
}

#[test]
fn orders_without_sense_are_refused() {
    let house = house(4);
    assert!(matches!(house.desk.open(order(1, " ".into())), Err(Refusal::Order(_))));
    let nowhere = OpenStream { inbox: String::new(), ..order(1, clip("h265.mp4")) };
    assert!(matches!(house.desk.open(nowhere), Err(Refusal::Order(_))));
    assert!(house.desk.told().streams.is_empty());
}

#[test]
fn a_file_at_its_own_pace_takes_its_own_time() {
    let house = house(64);
    let started = std::time::Instant::now();
    house.desk.open(OpenStream { pace: Pace::Realtime, ..order(1, clip("h264_322x182.mp4")) }).unwrap();
    wait_for(&house.desk, 1, |told| told.state == SourceState::Ended);
    // 25 frames: 24 intervals of 40 ms. A loaded machine takes longer, none is faster.
    assert!(started.elapsed() >= Duration::from_millis(24 * 40 - 5), "{:?}", started.elapsed());
}

/// Between the first state and the last, waiting callers hear of each change.
#[test]
fn a_question_waits_for_news_and_no_longer_than_it_wants() {
    let house = house(64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let quiet = house.desk.told();
    let reply = runtime.block_on(house.desk.told_after(quiet.version, Duration::from_millis(30)));
    assert_eq!(reply, quiet);
    let desk = Arc::clone(&house.desk);
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(desk.told_after(quiet.version, Duration::from_secs(60)))
    });
    house.desk.open(order(5, clip("h265.mp4"))).unwrap();
    let reply = asking.join().unwrap();
    assert_eq!(reply.streams[0].stream, StreamId(5));
}
