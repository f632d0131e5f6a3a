//! Tests of the frame codec.

use super::*;
use proptest::prelude::*;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    /// Whatever the pieces, the same bodies come out, in order, and nothing stays behind.
    #[test]
    fn any_split_gives_the_same_bodies(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
        cuts in prop::collection::vec(1_usize..64, 1..40),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        let mut decoder = Decoder::new(1 << 16);
        let (mut at, mut found) = (0, Vec::new());
        for cut in cuts.iter().cycle() {
            if at == stream.len() { break; }
            let end = stream.len().min(at + cut);
            decoder.push(&stream[at..end]);
            at = end;
            while let Some(body) = decoder.next_body().unwrap() { found.push(body.to_vec()); }
        }
        prop_assert_eq!(found, bodies);
        prop_assert!(decoder.is_at_boundary());
    }

    /// A hostile stream never panics, never makes the decoder reserve what did not arrive, and a refusal is final.
    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30)) {
        let mut decoder = Decoder::new(64);
        let (mut pushed, mut lost) = (0, false);
        for piece in &pieces {
            decoder.push(piece);
            pushed += piece.len();
            loop {
                match decoder.next_body() {
                    Ok(Some(body)) => { prop_assert!(!lost && body.len() <= 64); let _ = (Request::parse(body).is_ok(), Reply::parse(body).is_ok()); }
                    Ok(None) => { prop_assert!(!lost); break }
                    Err(error) => { prop_assert!(error.len > 64); lost = true; break }
                }
            }
            prop_assert!(decoder.buffer.capacity() <= 2 * pushed.max(32));
        }
    }

    /// What was pushed and not given out can be carried to another decoder, which goes on where this one stopped.
    #[test]
    fn unread_bytes_carry_over(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8), taken in 0_usize..8) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        let mut first = Decoder::new(64);
        first.push(&stream[..stream.len() - 1]);
        let taken = taken.min(bodies.len() - 1);
        for body in &bodies[..taken] { prop_assert_eq!(first.next_body().unwrap(), Some(&body[..])); }
        let mut second = Decoder::new(64);
        second.push(&first.into_unread());
        second.push(&stream[stream.len() - 1..]);
        for body in &bodies[taken..] { prop_assert_eq!(second.next_body().unwrap(), Some(&body[..])); }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_body_and_for_good() {
    let mut decoder = Decoder::new(DEFAULT_MAX_BODY);
    decoder.push(&u32::MAX.to_le_bytes());
    assert_eq!(decoder.next_body(), Err(TooLarge { len: u32::MAX as usize, max: DEFAULT_MAX_BODY }));
    decoder.push(&frame(b"null"));
    assert!(decoder.next_body().is_err());
    assert!(decoder.buffer.capacity() < 100);
}

#[test]
fn the_limit_itself_is_allowed_both_ways() {
    let frame = encode(&"x".repeat(8), 10).unwrap();
    let mut decoder = Decoder::new(10);
    decoder.push(&frame);
    assert_eq!(decoder.next_body().unwrap().unwrap(), b"\"xxxxxxxx\"");
    assert!(matches!(encode(&"x".repeat(9), 10), Err(EncodeError::TooLarge(TooLarge { len: 11, max: 10 }))));
}

#[test]
fn the_bytes_are_those_of_the_document() {
    let request = encode(&RequestOut::plain("ping", &7), 100).unwrap();
    assert_eq!(request, b"\x18\0\0\0{\"in\":\"ping\",\"params\":7}");
    let answer = encode(&ResultOut { out: "pong", result: &7, id: None, more: false }, 100).unwrap();
    assert_eq!(answer, b"\x19\0\0\0{\"out\":\"pong\",\"result\":7}");
}

#[test]
fn requests_are_read_and_numbers_keep_their_digits() {
    let request =
        Request::parse(br#" {"params":[12345678901234567890123,1e400], "more":{}, "in":"p\u0069ng"} "#)
            .unwrap();
    assert_eq!((&*request.method, request.params_text()), ("ping", "[12345678901234567890123,1e400]"));
    assert_eq!(Request::parse(br#"{"in":"x"}"#).unwrap().params_text(), "null");
    assert_eq!(Request::parse(br#"{"in":"x","params":null}"#).unwrap().params_text(), "null");
}

#[test]
fn an_id_comes_back_as_it_was_written() {
    for id in ["0", "-7", "1e3", "\"a\"", "12345678901234567890123"] {
        let body = format!(r#"{{"in":"x","id":{id},"notify":true}}"#);
        let request = Request::parse(body.as_bytes()).unwrap();
        assert_eq!((request.id.unwrap().get(), request.notify), (id, true));
        let frame = encode(&ResultOut { out: "x", result: &1, id: request.id, more: true }, 100).unwrap();
        let answer = Answer::parse(&frame[PREFIX_LEN..]).unwrap();
        assert_eq!((answer.id.unwrap().get(), answer.more), (id, true));
    }
    let absent = Request::parse(br#"{"in":"x","id":null}"#).unwrap();
    assert!(absent.id.is_none() && !absent.notify);
    let long = format!("\"{}\"", "x".repeat(MAX_ID - 1));
    for id in ["true", "[1]", "{}", &long] {
        let body = format!(r#"{{"in":"x","id":{id}}}"#);
        assert_eq!(Request::parse(body.as_bytes()).unwrap_err().code(), "bad_request", "{id}");
        assert!(Request::id_of(body.as_bytes()).is_none());
    }
    assert_eq!(Request::id_of(br#"{"in":7,"id":"a"}"#).unwrap().get(), "\"a\"");
}

#[test]
fn each_bad_body_has_its_code() {
    let code = |body: &[u8]| Request::parse(body).unwrap_err().code();
    assert_eq!(code(b"{\"in\":\"\xff\"}"), "bad_utf8");
    for body in [&b""[..], b"{", b"nope", b"{\"in\":\"x\"} 1", b"{'in':1}"] {
        assert_eq!(code(body), "bad_json", "{body:?}");
    }
    for body in [&b"1"[..], b"{}", b"[]", b"null", br#"{"in":1}"#, br#"{"in":"a","in":"b"}"#] {
        assert_eq!(code(body), "bad_request", "{body:?}");
    }
    assert_eq!(code("[".repeat(100_000).as_bytes()), "too_deep");
    assert!(!is_too_deep(&format!("\"{}\\\"[[\"", "[".repeat(1000))));
}

#[test]
fn answers_are_read() {
    assert!(matches!(
        Reply::parse(br#"{"out":"pong","result":[1]}"#),
        Ok(Reply::Result { result: "[1]", .. })
    ));
    let Ok(Reply::Error(error)) = Reply::parse(br#"{"error":{"code":"failed","message":"no"}}"#) else {
        panic!()
    };
    assert_eq!((&*error.code, &*error.message), ("failed", "no"));
    assert!(matches!(Reply::parse(b"{}"), Err(BodyError::BadShape { .. })));
}
