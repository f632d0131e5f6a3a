//! Every decoder of the attach protocol against anything a peer can send, and the protocol's golden bytes.

use baton_wire::attach::{
    Access, Answer, Attach, Attached, BLOCKS_PAGE_MAX, DecodeError, ErrorCode, Failure, HEADER_LEN, Header,
    Kind, MAGIC, Name, Opened, REQUEST_BODY_MAX, Request, Resume, VERSION,
};
use baton_wire::report::{BlockInfo, Holder, Member, MemberKind};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9._:/@-]{1,63}".prop_map(|s| s.parse().expect("made of legal characters"))
}

fn request() -> impl Strategy<Value = Request> {
    let access = prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite)];
    prop_oneof![
        (name(), proptest::option::of(name()), access, any::<u64>(), any::<u64>()).prop_map(
            |(name, inbox, access, start_time, token)| {
                Request::Attach(Attach { name, inbox, access, start_time, token })
            }
        ),
        any::<(u16, u32, u64)>().prop_map(|(endpoint, incarnation, token)| Request::Resume(Resume {
            endpoint,
            incarnation,
            token
        })),
        name().prop_map(|inbox| Request::OpenInbox { inbox }),
        Just(Request::Inboxes),
        Just(Request::Members),
        Just(Request::Pool),
        Just(Request::Audit),
        (any::<u32>(), prop::collection::vec(any::<u32>(), 0..20))
            .prop_map(|(pid, blocks)| Request::SendToPid { pid, blocks }),
        any::<i64>().prop_map(|bid| Request::Confirm { bid }),
        any::<(Option<u16>, u32, u32)>().prop_map(|(held_by, from, limit)| Request::Blocks {
            held_by,
            from,
            limit
        }),
        any::<u32>().prop_map(|block| Request::Borrow { block }),
        any::<u32>().prop_map(|block| Request::Return { block }),
        Just(Request::Bye),
    ]
}

fn split(bytes: &[u8]) -> (&[u8; HEADER_LEN], &[u8]) {
    bytes.split_first_chunk().expect("an encoder writes a whole header")
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(request in request(), serial: u32) {
        let bytes = request.encode(serial).unwrap();
        let (head, body) = split(&bytes);
        let header = Header::decode(head, Kind::Request).unwrap();
        prop_assert_eq!(header, Header { version: VERSION, kind: Kind::Request, serial, body_len: body.len() });
        prop_assert_eq!(Request::decode(body).unwrap(), request);
    }

    #[test]
    fn any_header_is_refused_or_within_its_limit(bytes: [u8; HEADER_LEN], with_magic: bool, kind in 0u8..4) {
        let mut bytes = bytes;
        if with_magic {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[6..8].copy_from_slice(&[kind, 0]);
        }
        for expected in [Kind::Request, Kind::Answer] {
            if let Ok(header) = Header::decode(&bytes, expected) {
                prop_assert_eq!(&bytes[..4], &MAGIC);
                prop_assert!(header.body_len <= expected.body_max());
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn any_body_is_refused_or_a_message_that_encodes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = Request::decode(&body) {
            prop_assert!(request.encode(0).is_ok());
        }
        if let Ok(answer) = Answer::decode(&body) {
            prop_assert!(answer.encode(0).is_ok());
        }
    }

    /// Closer to the real thing than random bytes: a good message with a few bytes changed, or its end missing.
    #[test]
    fn damaged_messages_do_no_harm(
        request in request(), hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6), cut: u16,
    ) {
        let mut bytes = request.encode(1).unwrap();
        for (at, value) in hits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        let body = &bytes[HEADER_LEN..];
        let body = &body[..body.len() - usize::from(cut) % (body.len() + 1)];
        let _ = Header::decode(split(&bytes).0, Kind::Request);
        if let Ok(Request::Attach(attach)) = Request::decode(body) {
            prop_assert!(attach.name.as_str().is_ascii());
        }
    }

    #[test]
    fn names_are_printable_or_refused(text in ".{0,80}") {
        match text.parse::<Name>() {
            Ok(name) => {
                prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= 63);
                prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic()));
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    /// A classic client's hello is its pid as an `i32`: the two protocols are told apart by the first four bytes.
    #[test]
    fn no_pid_looks_like_the_magic(pid in 1i32..=(1 << 22)) {
        prop_assert_ne!(pid.to_le_bytes(), MAGIC);
        prop_assert_ne!(MAGIC[3], pid.to_le_bytes()[3]);
    }
}

#[test]
fn golden_bytes() {
    let request = Request::Attach(Attach {
        name: "vas".parse().unwrap(),
        inbox: Some("vas.in".parse().unwrap()),
        access: Access::ReadWrite,
        start_time: 7,
        token: 9,
    });
    let bytes = request.encode(258).unwrap();
    let (head, body) = split(&bytes);
    assert_eq!(head, b"BAT\xA1\x01\x00\x01\x00\x02\x01\x00\x00\x5c\x00\x00\x00");
    assert_eq!(
        std::str::from_utf8(body).unwrap(),
        r#"{"op":"attach","name":"vas","inbox":"vas.in","access":"read_write","start_time":7,"token":9}"#
    );
    for (answer, json) in [
        (
            Answer::Attached(Attached { endpoint: 3, incarnation: 1 }),
            r#"{"answer":"attached","endpoint":3,"incarnation":1}"#,
        ),
        (
            Answer::Opened(Opened { endpoint: 3, incarnation: 1 }),
            r#"{"answer":"opened","endpoint":3,"incarnation":1}"#,
        ),
        (Answer::Bye, r#"{"answer":"bye"}"#),
        (
            Answer::Error(Failure::new(ErrorCode::NotFound, "no")),
            r#"{"answer":"error","code":"not_found","message":"no"}"#,
        ),
    ] {
        let bytes = answer.encode(0).unwrap();
        assert_eq!(std::str::from_utf8(split(&bytes).1).unwrap(), json);
        assert_eq!(Answer::decode(json.as_bytes()).unwrap(), answer);
    }
}

#[test]
fn codes_are_spelled_as_serde_spells_them() {
    for code in [
        ErrorCode::Version,
        ErrorCode::BadRequest,
        ErrorCode::Denied,
        ErrorCode::NotYou,
        ErrorCode::InboxTaken,
        ErrorCode::NotFound,
        ErrorCode::NotAttached,
        ErrorCode::UnknownEndpoint,
        ErrorCode::Busy,
        ErrorCode::Internal,
    ] {
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
    }
    let newer: ErrorCode = serde_json::from_str("\"from_the_future\"").unwrap();
    assert_eq!(newer, ErrorCode::Unknown);
}

#[test]
fn another_version_can_still_be_read_and_refused() {
    let mut bytes = Request::Bye.encode(5).unwrap();
    bytes[4] = 99;
    let header = Header::decode(split(&bytes).0, Kind::Request).unwrap();
    assert_eq!(header.serial, 5);
    assert!(matches!(header.check_version(), Err(DecodeError::Version { found: 99 })));
}

#[test]
fn a_long_body_is_refused_before_it_is_read() {
    let header = Header { version: VERSION, kind: Kind::Request, serial: 0, body_len: REQUEST_BODY_MAX + 1 };
    assert!(matches!(Header::decode(&header.encode(), Kind::Request), Err(DecodeError::TooLong { .. })));
}

#[test]
fn as_many_blocks_as_are_allowed_fit_a_request() {
    let blocks = vec![0xff_ffff; baton_wire::attach::SEND_TO_PID_MAX];
    Request::SendToPid { pid: u32::MAX, blocks }.encode(1).unwrap();
}

#[test]
fn the_fullest_page_of_blocks_fits_an_answer() {
    let holder = Holder { endpoint: 2047, inbox: false };
    let row = BlockInfo {
        block: 0xff_ffff,
        generation: u16::MAX,
        len: u64::MAX,
        class_bytes: u64::MAX,
        holders: vec![holder; 8],
    };
    let page = Answer::Blocks { blocks: vec![row; BLOCKS_PAGE_MAX as usize], next: Some(u32::MAX) };
    let bytes = page.encode(1).unwrap();
    assert_eq!(Answer::decode(&bytes[HEADER_LEN..]).unwrap(), page);
}

#[test]
fn rows_of_an_older_daemon_are_read() {
    let row = r#"{"endpoint":1,"incarnation":0,"pid":2,"uid":3,"name":"a","inbox":null,"read_only":false,
        "connected":true,"receiving":true,"blocks_held":4,"bytes_held":5,"queued":6}"#;
    let member: Member = serde_json::from_str(row).unwrap();
    assert_eq!((member.queued, member.kind, member.sent), (6, MemberKind::Attached, 0));
    let kind: MemberKind = serde_json::from_str("\"of the future\"").unwrap();
    assert_eq!(kind, MemberKind::Unknown);
}
