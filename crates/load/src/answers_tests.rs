use super::*;

fn plan() -> Plan {
    Plan::new("ip://127.0.0.1:1".parse().unwrap())
}

fn under_way(numbers: &[u64]) -> VecDeque<UnderWay> {
    numbers.iter().map(|number| request(*number)).collect()
}

fn request(number: u64) -> UnderWay {
    UnderWay { number, due: 0, sent: 0 }
}

fn pong(connection: usize, number: u64) -> Vec<u8> {
    format!(r#"{{"out":"pong","result":"{connection:06x}{number:010x}"}}"#).into_bytes()
}

#[test]
fn answers_in_order() {
    let mut judge = Judge::new(&plan());
    let mut pending = under_way(&[3, 5, 8]);
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 3), None), Found::Right(request(3)));
    // Written in another way it is the same answer.
    let spaced = br#"{ "result": "000001000000000\u0035", "out": "pong" }"#;
    assert_eq!(judge.judge(1, &mut pending, spaced, None), Found::Right(request(5)));
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 8), None), Found::Right(request(8)));
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 8), None), Found::Unasked);
}

#[test]
fn a_swapped_pair_is_out_of_order_and_an_answer_twice_is_unasked() {
    let mut judge = Judge::new(&plan());
    let mut pending = under_way(&[3, 5, 8]);
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 5), None), Found::OutOfOrder(request(5)));
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 5), None), Found::Unasked);
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 3), None), Found::Right(request(3)));
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 3), None), Found::Unasked);
    assert_eq!(pending, under_way(&[8]));
}

#[test]
fn what_belongs_to_somebody_else_is_wrong() {
    let mut judge = Judge::new(&plan());
    let bodies: [&[u8]; 6] = [
        &pong(2, 3),
        &pong(1, 4000),
        b"\xFF",
        b"{}",
        br#"{"out":"pong","result":null}"#,
        br#"{"out":"pang","result":"0000010000000003"}"#,
    ];
    for body in bodies {
        let mut pending = under_way(&[3, 5]);
        let found = judge.judge(1, &mut pending, body, None);
        assert_eq!(found, Found::Wrong(request(3)), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_refusal_carries_its_code() {
    let mut judge = Judge::new(&plan());
    let mut pending = under_way(&[3]);
    let body = br#"{"error":{"code":"busy","message":"too many"}}"#;
    let refused = |request| Found::Refused { request, code: "busy".into() };
    assert_eq!(judge.judge(1, &mut pending, body, None), refused(Some(request(3))));
    assert_eq!(judge.judge(1, &mut pending, body, None), refused(None));
}

#[test]
fn by_id_any_order_is_right() {
    let mut judge = Judge::new(&Plan { matching: Matching::Id, ..plan() });
    let mut pending = under_way(&[3, 5, 8]);
    let body = |id: u64, number: u64| {
        format!(r#"{{"out":"pong","id":{id},"result":"000001{number:010x}"}}"#).into_bytes()
    };
    assert_eq!(judge.judge(1, &mut pending, &body(5, 5), None), Found::Right(request(5)));
    assert_eq!(judge.judge(1, &mut pending, &body(5, 5), None), Found::Unasked);
    assert_eq!(judge.judge(1, &mut pending, &body(8, 3), None), Found::Wrong(request(8)));
    assert_eq!(judge.judge(1, &mut pending, &pong(1, 3), None), Found::Unasked, "without an id");
    assert_eq!(pending, under_way(&[3]));
}

#[test]
fn given_parameters_and_expected_results() {
    let params = Some(r#"{"us": 5}"#.to_owned());
    let mut judge =
        Judge::new(&Plan { params, expect: Expect::Value("5".into()), method: "burn".into(), ..plan() });
    let mut pending = under_way(&[1, 2]);
    let mut result = String::new();
    let right = br#"{"out":"burn","result": 5}"#;
    assert_eq!(judge.judge(0, &mut pending, right, Some(&mut result)), Found::Right(request(1)));
    assert_eq!(result, "5");
    let wrong = br#"{"out":"burn","result":6}"#;
    assert_eq!(judge.judge(0, &mut pending, wrong, None), Found::Wrong(request(2)));
}
