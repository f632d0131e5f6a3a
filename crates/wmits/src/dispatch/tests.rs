use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const STREAM: StreamId = StreamId(1);
/// 25 frames per second, in microseconds.
const FRAME: i64 = 40_000;

fn stamp(n: u64, decoded_at: Micros) -> Stamp {
    Stamp { sequence: Sequence(n), pts: Micros(n as i64 * FRAME), decoded_at }
}

/// A dispatch of one stream, and vss inboxes that are as deep as the test lets them be.
struct Bench {
    dispatch: Dispatch<u64>,
    /// Frames with the vss, oldest first.
    inbox: VecDeque<u64>,
    refuse: bool,
    shared: Vec<u64>,
    judged: Vec<u64>,
    now: Micros,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let mut dispatch = Dispatch::new(1);
        dispatch.open(STREAM, 25.0);
        Self {
            dispatch,
            inbox: VecDeque::new(),
            refuse: false,
            shared: Vec::new(),
            judged: Vec::new(),
            now: Micros(0),
            next: 0,
        }
    }

    fn act(&mut self, actions: Vec<Action<u64>>) {
        for action in actions {
            match action {
                Action::Judge { stream, frame, .. } if self.refuse => self.dispatch.not_sent(stream, frame),
                Action::Judge { stream, frame, .. } => {
                    self.inbox.push_back(frame.block);
                    self.judged.push(frame.block);
                    self.dispatch.sent(stream);
                }
                Action::Share { block, .. } => self.shared.push(block),
                Action::Forget { .. } => {}
            }
        }
    }

    fn frame(&mut self) {
        let n = self.next;
        self.next += 1;
        self.now = Micros(self.now.0 + FRAME);
        let actions = self.dispatch.frame(STREAM, stamp(n, self.now), n, self.now);
        self.act(actions);
    }

    /// A frame of this number that was decoded at `at` arrives now.
    fn overtaken(&mut self, n: u64, at: Micros) {
        let actions = self.dispatch.frame(STREAM, stamp(n, at), n, self.now);
        self.act(actions);
    }

    fn result(&mut self) {
        if let Some(done) = self.inbox.pop_front() {
            let actions = self.dispatch.result(STREAM, Sequence(done), self.now);
            self.act(actions);
        }
    }

    fn routed(&self) -> Routed {
        self.dispatch.routed(STREAM).expect("the stream is open")
    }

    fn pending(&self) -> u64 {
        u64::from(self.dispatch.streams[&STREAM].pending.is_some())
    }
}

#[test]
fn while_the_vss_is_busy_the_newest_frame_wins() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.frame();
    }
    assert_eq!(bench.judged, [0, 1], "two credits");
    bench.result();
    assert_eq!(bench.judged, [0, 1, 9], "the pending frame is the newest one");
    let routed = bench.routed();
    assert_eq!((routed.received, routed.due, routed.judged, routed.replaced), (10, 10, 3, 7));
}

/// A vss that judges one frame while every one of twenty streams brings one.
#[test]
fn many_streams_share_a_slow_vss_evenly_and_none_of_their_frames_grows_old() {
    const STREAMS: u32 = 20;
    let mut dispatch = Dispatch::<u64>::new(1);
    (1..=STREAMS).for_each(|stream| drop(dispatch.open(StreamId(stream), 25.0)));
    let mut inbox = VecDeque::new();
    for n in 0..200_u64 {
        let now = Micros(n as i64 * FRAME);
        let judged = inbox.pop_front();
        let mut actions = judged.map_or_else(Vec::new, |(stream, judged)| {
            // Two in the inbox, and one that was due when the first of them was taken.
            assert!(n - judged <= CREDITS as u64 + 1, "frame {judged} was judged when frame {n} was due");
            dispatch.result(stream, Sequence(judged), now)
        });
        actions
            .extend((1..=STREAMS).flat_map(|stream| dispatch.frame(StreamId(stream), stamp(n, now), n, now)));
        for action in actions {
            let Action::Judge { stream, frame, .. } = action else { continue };
            dispatch.sent(stream);
            inbox.push_back((stream, frame.block));
        }
        assert!(inbox.len() <= CREDITS);
    }
    let judged: Vec<u64> = (1..=STREAMS).map(|s| dispatch.routed(StreamId(s)).unwrap().judged).collect();
    assert!(judged.iter().all(|judged| (9..=11).contains(judged)), "{judged:?}");
}

#[test]
fn a_killed_vss_costs_its_frames_and_nothing_else() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.frame();
    }
    bench.dispatch.vss_down(0, bench.now);
    bench.refuse = true;
    bench.inbox.clear();
    bench.frame();
    assert_eq!(bench.judged, [0, 1]);
    bench.refuse = false;
    let actions = bench.dispatch.vss_up(0, true, bench.now);
    bench.act(actions);
    assert_eq!(bench.judged, [0, 1, 4], "judging goes on with the newest frame");
}

#[test]
fn a_frame_without_result_gives_its_credit_back_after_a_while() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.frame();
    }
    let actions = bench.dispatch.tick(Micros(bench.now.0 + CREDIT_TIMEOUT.0 - FRAME * 3));
    assert!(actions.is_empty());
    let actions = bench.dispatch.tick(Micros(bench.now.0 + CREDIT_TIMEOUT.0));
    bench.act(actions);
    assert_eq!(bench.judged, [0, 1, 2]);
}

#[test]
fn a_source_that_begins_anew_frees_the_credits() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.frame();
    }
    bench.next = 0;
    bench.frame();
    assert_eq!(bench.judged, [0, 1, 0]);
    assert_eq!(bench.routed().replaced, 1);
}

/// An inbox that overflows hands out 4, 1, 2, 3: the newest message has the place of the oldest one.
#[test]
fn an_overtaken_frame_is_dropped_and_a_source_that_begins_anew_is_not() {
    let mut bench = Bench::new();
    let until = Micros(i64::MAX);
    bench.dispatch.watch(STREAM, "preview", until, bench.now).unwrap().unwrap();
    bench.next = 4;
    bench.frame();
    for n in 1..=3 {
        bench.overtaken(n, Micros(bench.now.0 - (4 - n as i64) * FRAME));
    }
    bench.overtaken(4, bench.now);
    bench.frame();
    assert_eq!((bench.judged.as_slice(), bench.shared.as_slice()), ([4, 5].as_slice(), [4, 5].as_slice()));
    assert_eq!(bench.dispatch.streams[&STREAM].newest.as_ref().map(|frame| frame.block), Some(5));
    assert_eq!((bench.routed().received, bench.routed().late), (6, 4));

    // Another vas: numbers begin at 0, the clock does not. What its predecessor had sent is late, whatever its number.
    let before = bench.now;
    bench.next = 0;
    bench.frame();
    bench.overtaken(6, before);
    bench.frame();
    assert_eq!(bench.shared, [4, 5, 0, 1]);
    assert_eq!((bench.routed().received, bench.routed().late), (9, 5));
}

#[test]
fn a_frame_that_claims_to_come_from_the_future_makes_no_later_one_late() {
    let mut bench = Bench::new();
    bench.overtaken(0, Micros(i64::MAX));
    bench.next = 1;
    bench.frame();
    assert_eq!((bench.judged.as_slice(), bench.routed().late), ([0, 1].as_slice(), 0));
}

#[test]
fn streams_spread_over_the_instances_and_leave_one_that_stays_away() {
    let mut dispatch = Dispatch::<u64>::new(2);
    for stream in 1..=3 {
        dispatch.open(StreamId(stream), 5.0);
    }
    let assigned: Vec<usize> = dispatch.streams.values().map(|entry| entry.vss).collect();
    assert_eq!(assigned, [0, 1, 0]);
    dispatch.vss_down(0, Micros(0));
    let to = |dispatch: &mut Dispatch<u64>, now: i64, sequence: u64| {
        let actions = dispatch.frame(
            StreamId(1),
            Stamp { pts: Micros(now), ..stamp(sequence, Micros(now)) },
            sequence,
            Micros(now),
        );
        actions.into_iter().find_map(|action| match action {
            Action::Judge { vss, .. } => Some(vss),
            _ => None,
        })
    };
    assert_eq!(to(&mut dispatch, 1, 0), None, "it waits for the restart");
    dispatch.tick(REASSIGN_AFTER);
    assert_eq!(to(&mut dispatch, REASSIGN_AFTER.0, 1), Some(1));
}

#[test]
fn a_watcher_gets_the_newest_frame_at_once_and_then_each_until_its_time_is_over() {
    let mut bench = Bench::new();
    bench.frame();
    let until = Micros(bench.now.0 + 2 * FRAME);
    let (newest, actions) = bench.dispatch.watch(STREAM, "preview", until, bench.now).unwrap().unwrap();
    bench.act(actions);
    assert_eq!((newest, bench.shared.as_slice()), (Some(Sequence(0)), [0].as_slice()));
    for _ in 0..5 {
        bench.frame();
    }
    assert_eq!(bench.shared, [0, 1]);
    assert!(bench.dispatch.watch(StreamId(9), "preview", until, bench.now).is_none());
}

#[test]
fn frames_of_no_stream_are_counted_and_dropped() {
    let mut dispatch = Dispatch::<u64>::new(1);
    assert!(dispatch.frame(StreamId(5), stamp(0, Micros(0)), 0, Micros(0)).is_empty());
    assert_eq!(dispatch.strays(), 1);
}

#[derive(Clone, Debug)]
enum Event {
    Frame,
    Overtaken,
    Result,
    Refuse(bool),
    VssDies,
    VssComes,
    SourceBeginsAnew,
    Tick(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Frame),
        2 => Just(Event::Overtaken),
        5 => Just(Event::Result),
        1 => any::<bool>().prop_map(Event::Refuse),
        1 => Just(Event::VssDies),
        1 => Just(Event::VssComes),
        1 => Just(Event::SourceBeginsAnew),
        1 => (0..4_000_000_i64).prop_map(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens in whatever order: the counters add up, at most CREDITS frames are taken to be with the vss, a
    /// pending frame is never older than one that is with the vss, and order is kept.
    #[test]
    fn counters_add_up_and_the_newest_wins(events in proptest::collection::vec(event(), 1..200)) {
        let mut bench = Bench::new();
        for event in events {
            match event {
                Event::Frame => bench.frame(),
                Event::Overtaken => {
                    if let Some(last) = bench.dispatch.streams[&STREAM].last {
                        bench.overtaken(bench.next, Micros(last.decoded_at.0 - 1));
                    }
                }
                Event::Result => bench.result(),
                Event::Refuse(refuse) => bench.refuse = refuse,
                Event::VssDies => {
                    bench.inbox.clear();
                    bench.dispatch.vss_down(0, bench.now);
                }
                Event::VssComes => {
                    let actions = bench.dispatch.vss_up(0, true, bench.now);
                    bench.act(actions);
                }
                Event::SourceBeginsAnew => {
                    bench.next = 0;
                    bench.judged.clear();
                    bench.frame();
                }
                Event::Tick(later) => {
                    bench.now = Micros(bench.now.0 + later);
                    let actions = bench.dispatch.tick(bench.now);
                    bench.act(actions);
                }
            }
            let routed = bench.routed();
            prop_assert_eq!(routed.due, routed.judged + routed.replaced + bench.pending());
            prop_assert!(routed.received >= routed.due && routed.judged >= routed.results);
            let entry = &bench.dispatch.streams[&STREAM];
            prop_assert!(entry.in_flight.len() <= CREDITS);
            if bench.next > 0 {
                let newest = entry.newest.as_ref().map(|frame| frame.block);
                prop_assert_eq!(newest, Some(bench.next - 1));
                if let (Some(pending), Some(flight)) = (&entry.pending, entry.in_flight.back()) {
                    prop_assert!(pending.sequence > flight.sequence);
                }
            }
            prop_assert!(bench.judged.is_sorted(), "{:?}", bench.judged);
        }
    }
}
