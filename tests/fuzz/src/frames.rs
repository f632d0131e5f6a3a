//! Framed JSON in any split: requests and replies of the services.

use baton_wire::json_frame::{Decoder, Reply, Request, encode};

const BODY_MAX: usize = 1 << 16;

pub fn run(data: &[u8]) {
    let Some((&split, data)) = data.split_first() else { return };
    let mut decoder = Decoder::new(BODY_MAX);
    let mut bodies = Vec::new();
    for piece in data.chunks(usize::from(split).max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => {
                    assert!(body.len() <= BODY_MAX, "a bound that is not kept");
                    let _ = (Request::parse(body).map(|r| r.params_text().len()), Reply::parse(body).is_ok());
                    bodies.push(body.to_vec());
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    // The split changes nothing.
    let mut whole = Decoder::new(BODY_MAX);
    whole.push(data);
    for body in bodies {
        assert_eq!(whole.next_body().ok().flatten(), Some(body.as_slice()));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let values = [
        serde_json::json!({"id": 1, "method": "task.create", "params": {"url": "rtsp://camera/1"}}),
        serde_json::json!({"id": 1, "result": {"state": "running"}}),
        serde_json::json!({"id": 2, "error": {"code": "not_found", "message": "no such task"}}),
        serde_json::json!({"id": 3, "method": "ping"}),
    ];
    let frames: Vec<Vec<u8>> = values.iter().map(|value| encode(value, BODY_MAX).expect("short")).collect();
    let with_split = |split: u8, bytes: &[u8]| [&[split], bytes].concat();
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| with_split(255, frame)).collect();
    seeds.push(with_split(3, &frames.concat()));
    seeds
}
