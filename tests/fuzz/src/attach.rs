//! The attach protocol: headers and bodies of both directions, as the daemon and the SDK read them.

use baton_wire::attach::{Access, Answer, Attach, Failure, HEADER_LEN, Header, Kind, Request, Resume};
use baton_wire::attach::{ErrorCode, Opened};

pub fn run(data: &[u8]) {
    for kind in [Kind::Request, Kind::Answer] {
        let mut rest = data;
        // A stream of messages, like a session reads them.
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let Ok(header) = Header::decode(head, kind) else { break };
            assert!(header.body_len <= kind.body_max(), "a bound that is not kept");
            let again = Header::decode(&header.encode(), kind).expect("what was accepted once");
            assert_eq!(again, header);
            let _ = header.check_version();
            let Some((body, after)) = after.split_at_checked(header.body_len) else { break };
            body_of(kind, body);
            rest = after;
        }
        body_of(kind, data);
    }
}

/// What decodes, encodes again to something that decodes to the same.
fn body_of(kind: Kind, body: &[u8]) {
    match kind {
        Kind::Request => {
            if let Ok(request) = Request::decode(body) {
                let bytes = request.encode(7).expect("a request that was read can be written");
                assert_eq!(Request::decode(&bytes[HEADER_LEN..]).expect("just written"), request);
            }
        }
        Kind::Answer => {
            if let Ok(answer) = Answer::decode(body)
                && let Ok(bytes) = answer.encode(7)
            {
                assert_eq!(Answer::decode(&bytes[HEADER_LEN..]).expect("just written"), answer);
                assert!(answer.fds() <= 3);
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let name = |text: &str| text.parse().expect("a name");
    let attach = Attach {
        name: name("camera-1"),
        inbox: Some(name("frames")),
        access: Access::ReadWrite,
        start_time: 123_456,
        token: u64::MAX,
    };
    let requests = [
        Request::Attach(attach),
        Request::Resume(Resume { endpoint: 7, incarnation: 3, token: 99 }),
        Request::OpenInbox { inbox: name("frames") },
        Request::Members,
        Request::Audit,
        Request::Bye,
    ];
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(|r| r.encode(1).expect("short")).collect();
    seeds.push(requests.iter().flat_map(|r| r.encode(2).expect("short")).collect());
    let answers = [
        Answer::Opened(Opened { endpoint: 9, incarnation: 1 }),
        Answer::Error(Failure::new(ErrorCode::Busy, "all endpoints are taken")),
        Answer::Bye,
    ];
    seeds.extend(answers.iter().map(|a| a.encode(1).expect("short")));
    seeds
}
