use aits_orders::{Pace, Sequence, SourceState, StreamsReply, TaskState, VasCounters, VasStream};

use super::*;

fn record(stream: u32) -> Record {
    Record {
        stream: StreamId(stream),
        id: format!("t{stream}"),
        url: "rtsp://u:p@cam/1".into(),
        pace: Pace::Realtime,
        repeat: false,
        detect_hz: 5.0,
        created_at: "2026-01-02T03:04:05Z".into(),
        intent: Intent::Run,
    }
}

fn told(stream: u32, state: SourceState) -> VasStream {
    VasStream {
        stream: StreamId(stream),
        url: String::new(),
        state,
        reason: (state == SourceState::Failed).then(|| "rtsp://u:p@cam/1 does not answer".into()),
        video: None,
        counters: VasCounters { decoded: 7, ..Default::default() },
    }
}

fn reply(streams: Vec<VasStream>) -> StreamsReply {
    StreamsReply { version: 1, streams }
}

fn opened(book: &mut Book) {
    for order in book.orders() {
        match order {
            VasOrder::Open(order) | VasOrder::Reopen(order) => book.opened(&order),
            VasOrder::Close(stream) => book.closed(stream),
        }
    }
}

fn state(book: &Book, stream: u32) -> TaskState {
    book.task(StreamId(stream), None).unwrap().state
}

#[test]
fn what_vas_complains_of_is_told_while_the_source_runs() {
    let mut book = Book::default();
    book.begin(record(1));
    opened(&mut book);
    let lost = Some("frames are lost: no free block".to_owned());
    let starving = VasStream { reason: lost.clone(), ..told(1, SourceState::Running) };
    book.vas_says(book.epoch(), &reply(vec![starving]));
    let task = book.task(StreamId(1), None).unwrap();
    assert_eq!((task.state, task.reason), (TaskState::Running, lost));
    book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Running)]));
    assert_eq!(book.task(StreamId(1), None).unwrap().reason, None);
}

#[test]
fn a_new_task_is_opened_once_and_runs() {
    let mut book = Book::default();
    book.begin(record(1));
    assert!(matches!(book.orders().as_slice(), [VasOrder::Open(order)] if order.url == "rtsp://u:p@cam/1"));
    opened(&mut book);
    assert_eq!(book.orders(), []);
    assert_eq!(state(&book, 1), TaskState::Starting);
    book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Running)]));
    let task = book.task(StreamId(1), None).unwrap();
    assert_eq!(
        (task.state, task.counters.vas.decoded, task.url.as_str()),
        (TaskState::Running, 7, "rtsp://***@cam/1")
    );
}

#[test]
fn an_answer_older_than_the_order_says_nothing_of_it() {
    let mut book = Book::default();
    let asked = book.epoch();
    book.begin(record(1));
    opened(&mut book);
    book.vas_says(asked, &reply(vec![]));
    assert_eq!(book.orders(), [], "it was asked before the opening");
    book.vas_says(book.epoch(), &reply(vec![]));
    assert!(matches!(book.orders().as_slice(), [VasOrder::Open(_)]), "a vas that restarted is told again");
}

#[test]
fn a_killed_vas_turns_running_into_starting_and_is_told_again() {
    let mut book = Book::default();
    book.begin(record(1));
    opened(&mut book);
    book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Running)]));
    book.vas_gone();
    assert_eq!(state(&book, 1), TaskState::Starting);
    book.vas_says(book.epoch(), &reply(vec![]));
    assert_eq!(book.orders().len(), 1);
}

#[test]
fn a_restarted_wmits_adopts_what_runs_and_does_not_play_again_what_has_ended() {
    let mut book = Book::new(vec![record(1), record(2), record(3)]);
    assert_eq!(book.orders(), [], "first it listens");
    let outcomes = book.vas_says(0, &reply(vec![told(1, SourceState::Running), told(2, SourceState::Ended)]));
    assert_eq!(outcomes, [(StreamId(2), Intent::Ended)]);
    book.finish(StreamId(2), Intent::Ended);
    let opens: Vec<StreamId> = book
        .orders()
        .into_iter()
        .map(|order| match order {
            VasOrder::Open(order) => order.stream,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opens, [StreamId(1), StreamId(3)]);
    opened(&mut book);
    book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Running), told(3, SourceState::Opening)]));
    assert_eq!(book.orders(), []);
    assert_eq!(state(&book, 2), TaskState::Ended);
}

#[test]
fn a_failure_is_told_without_credentials_and_is_final_until_the_next_start() {
    let mut book = Book::default();
    book.begin(record(1));
    opened(&mut book);
    let outcomes = book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Failed)]));
    let [(stream, intent)] = outcomes.try_into().unwrap();
    book.finish(stream, intent.clone());
    assert_eq!(book.task(stream, None).unwrap().reason.unwrap(), "rtsp://***@cam/1 does not answer");
    book.vas_says(book.epoch(), &reply(vec![]));
    assert_eq!(book.orders(), []);
    book.begin(Record { intent: Intent::Run, ..record(1) });
    assert!(matches!(book.orders().as_slice(), [VasOrder::Reopen(_)]), "the failed source is closed first");
}

#[test]
fn a_refusal_is_tried_once_more_after_closing() {
    let mut book = Book::default();
    book.begin(record(1));
    assert_eq!(book.refused(StreamId(1), "open with other parameters"), None);
    assert!(matches!(book.orders().as_slice(), [VasOrder::Reopen(_)]));
    assert_eq!(book.refused(StreamId(1), "no"), Some(Intent::Failed("no".into())));
}

#[test]
fn what_no_task_wants_is_closed() {
    let mut book = Book::default();
    book.begin(record(1));
    opened(&mut book);
    book.stop(StreamId(1), None);
    assert_eq!(book.orders(), [VasOrder::Close(StreamId(1))]);
    opened(&mut book);
    book.vas_says(book.epoch(), &reply(vec![told(1, SourceState::Running), told(9, SourceState::Running)]));
    assert_eq!(book.orders(), [VasOrder::Close(StreamId(1)), VasOrder::Close(StreamId(9))]);
}

#[test]
fn versions_of_results_rise_and_never_repeat() {
    let mut book = Book::default();
    book.begin(record(1));
    let result = FrameResult {
        stream: StreamId(1),
        sequence: Sequence(0),
        pts: Micros(0),
        decoded_at: Micros(1_000),
        finished_at: Micros(3_000),
        detect_ms: 2.0,
        size: [64, 64],
        tracks: vec![],
        counts: vec![],
        mean_speed_px_s: None,
        provisional: true,
    };
    let mut seen = vec![book.newest(StreamId(1)).unwrap().0];
    for _ in 0..3 {
        assert!(book.result(result.clone(), Micros(4_000)));
        seen.push(book.newest(StreamId(1)).unwrap().0);
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(book.task(StreamId(1), None).unwrap().latency.unwrap().p50_ms, 3.0);
    assert!(!book.result(FrameResult { stream: StreamId(7), ..result }, Micros(0)));
}
