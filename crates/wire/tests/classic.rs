//! The classic protocol's golden bytes, taken from its description, and its decoders against anything a peer can send.

use baton_wire::classic::{
    Answer, COMMAND_LEN_MAX, ClientDecoder, Command, CommandError, DecodeError, FromClient, FromServer,
    INVALID_COMMAND, NO_MEMORY, NODES_MAX, PID_MAX, Request, STATUS_INVALID_COMMAND, ServerDecoder,
    ServerHello, client_hello,
};
use proptest::prelude::*;

/// `"01 02"` as bytes.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn encoded(command: &Command, ctx: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(ctx, &mut bytes).unwrap();
    bytes
}

/// Feeds the chunks and collects everything; the error that ended it, if one did.
fn from_client<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> (Vec<FromClient>, Option<DecodeError>) {
    let (mut decoder, mut found) = (ClientDecoder::default(), Vec::new());
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error.clone()), "an error is for ever");
                    return (found, Some(error));
                }
            }
        }
    }
    (found, None)
}

fn requests(bytes: &[u8]) -> Vec<Request> {
    let (found, error) = from_client([&client_hello(1)[..], bytes]);
    assert_eq!(error, None);
    found
        .into_iter()
        .filter_map(|m| if let FromClient::Request(request) = m { Some(request) } else { None })
        .collect()
}

#[test]
fn golden_hello() {
    assert_eq!(client_hello(4711).to_vec(), hex("67 12 00 00"));
    assert_eq!(client_hello(PID_MAX)[3], 0, "or it could be taken for an attached client");
    let hello = ServerHello { name: "/aits".into(), kib: 524_288 };
    let bytes = hex("05 00 00 00 2f 61 69 74 73 00 00 08 00");
    assert_eq!(hello.encode(), bytes);
    let mut decoder = ServerDecoder::default();
    decoder.push(&bytes);
    assert_eq!(decoder.next(), Ok(Some(FromServer::Hello(hello))));
}

#[test]
fn golden_commands() {
    let golden = [
        // i32 length, u64 ctx, i32 command, data
        (
            Command::Alloc { size: 3_110_400, align: 64 },
            "14 00 00 00  08 07 06 05 04 03 02 01  01 00 00 00  00 76 2f 00  40 00 00 00",
        ),
        (
            Command::Free { node: 4096 },
            "14 00 00 00  08 07 06 05 04 03 02 01  02 00 00 00  00 10 00 00 00 00 00 00",
        ),
        (
            Command::PreSend { nodes: vec![64, -1], to_pid: 4711 },
            "24 00 00 00  08 07 06 05 04 03 02 01  04 00 00 00  02 00 00 00 \
             40 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff  67 12 00 00",
        ),
        (
            Command::Recv { bid: 9, count: 2, from_pid: 4710 },
            "1c 00 00 00  08 07 06 05 04 03 02 01  05 00 00 00  09 00 00 00 00 00 00 00  02 00 00 00  66 12 00 00",
        ),
    ];
    for (command, bytes) in golden {
        let bytes = hex(bytes);
        assert_eq!(encoded(&command, 0x0102_0304_0506_0708), bytes);
        assert_eq!(requests(&bytes), [Request { ctx: 0x0102_0304_0506_0708, command: Ok(command) }]);
    }
}

#[test]
fn golden_answers() {
    let golden = [
        (
            Answer::number(7, 4096),
            "14 00 00 00  07 00 00 00 00 00 00 00  00 00 00 00  00 10 00 00 00 00 00 00",
        ),
        (Answer::done(7), "0c 00 00 00  07 00 00 00 00 00 00 00  00 00 00 00"),
        (
            Answer::failed(7, NO_MEMORY), // "memory allocate failed!"
            "27 00 00 00  07 00 00 00 00 00 00 00  ff ff ff ff  17 00 00 00 \
             6d 65 6d 6f 72 79 20 61 6c 6c 6f 63 61 74 65 20 66 61 69 6c 65 64 21",
        ),
        (
            Answer::refused(7, STATUS_INVALID_COMMAND, INVALID_COMMAND), // "invalid command id!"
            "23 00 00 00  07 00 00 00 00 00 00 00  e9 03 00 00  13 00 00 00 \
             69 6e 76 61 6c 69 64 20 63 6f 6d 6d 61 6e 64 20 69 64 21",
        ),
    ];
    for (answer, bytes) in golden {
        let (bytes, mut out) = (hex(bytes), Vec::new());
        answer.encode(&mut out);
        assert_eq!(out, bytes);
        let mut decoder = ServerDecoder::default();
        decoder.push(&ServerHello { name: String::new(), kib: 1 }.encode());
        decoder.push(&bytes);
        decoder.next().unwrap();
        assert_eq!(decoder.next(), Ok(Some(FromServer::Answer(answer))));
    }
    assert_eq!(Answer::number(7, -5).as_number(), Some(-5));
    assert_eq!(Answer::failed(7, NO_MEMORY).sentence().as_deref(), Some(NO_MEMORY));
    assert_eq!((Answer::done(7).as_number(), Answer::done(7).sentence()), (None, None));
}

#[test]
fn what_is_no_command_is_answered_and_the_next_one_is_read() {
    let message = |command: i32, data: &[u8]| {
        let len = (data.len() as u32 + 12).to_le_bytes();
        [&len[..], &5u64.to_le_bytes(), &command.to_le_bytes(), data].concat()
    };
    let count = |count: u32, rest: usize| [&count.to_le_bytes()[..], &vec![0; rest]].concat();
    for (command, data, status) in [
        (0, vec![], 1001),
        (3, vec![0; 8], 1001), // not described
        (6, vec![0; 8], 1001),
        (i32::MIN, vec![], 1001),
        (1, vec![0; 7], -1),
        (1, vec![0; 9], -1),
        (2, vec![], -1),
        (5, vec![0; 12], -1),
        (4, vec![], -1),
        (4, vec![0; 3], -1),
        (4, count(u32::MAX, 4), -1),
        (4, count(1 << 29, 4), -1), // × 8 is 0 in 32 bits
        (4, count(2, 12), -1),
        (4, count(1, 13), -1),
        (4, count(0, 0), -1),
    ] {
        let bytes = [message(command, &data), encoded(&Command::Free { node: 1 }, 6)].concat();
        let found = requests(&bytes);
        let error = found[0].command.as_ref().unwrap_err();
        assert_eq!((found[0].ctx, error.status()), (5, status), "{command} {data:?}: {error}");
        assert_eq!(found[1].command, Ok(Command::Free { node: 1 }));
    }
}

#[test]
fn a_length_that_no_command_has_ends_it_at_once() {
    for len in [i32::MIN, -1, 0, 11, COMMAND_LEN_MAX as i32 + 1, i32::MAX] {
        let (_, error) = from_client([&client_hello(1)[..], &len.to_le_bytes()]);
        assert_eq!(error, Some(DecodeError::Length { len, max: COMMAND_LEN_MAX }));
    }
    let full = Command::PreSend { nodes: vec![1; NODES_MAX], to_pid: 1 };
    assert_eq!(requests(&encoded(&full, 1))[0].command, Ok(full));
    let over = Command::PreSend { nodes: vec![1; NODES_MAX + 1], to_pid: 1 };
    assert!(over.encode(1, &mut Vec::new()).unwrap_err().to_string().contains("8189"));
}

#[test]
fn a_long_sentence_is_cut_between_letters() {
    let answer = Answer::failed(1, &"ü".repeat(4000));
    assert_eq!(answer.sentence().unwrap().len(), 1024);
    let long = ServerHello { name: "x".repeat(300), kib: 1 }.encode();
    assert_eq!(long.len(), 8 + 255);
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(size, align)| Command::Alloc { size, align }),
        any::<i64>().prop_map(|node| Command::Free { node }),
        (prop::collection::vec(any::<i64>(), 0..40), any::<i32>())
            .prop_map(|(nodes, to_pid)| Command::PreSend { nodes, to_pid }),
        any::<(i64, u32, i32)>().prop_map(|(bid, count, from_pid)| Command::Recv { bid, count, from_pid }),
    ]
}

/// The bytes cut at `cuts`.
fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn commands_survive_any_split(
        pid: i32,
        commands in prop::collection::vec((any::<u64>(), command()), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut bytes = client_hello(pid).to_vec();
        for (ctx, command) in &commands {
            command.encode(*ctx, &mut bytes).unwrap();
        }
        let (found, error) = from_client(pieces(&bytes, &cuts));
        let expected: Vec<_> = std::iter::once(FromClient::Hello { pid })
            .chain(commands.into_iter().map(|(ctx, command)| FromClient::Request(Request { ctx, command: Ok(command) })))
            .collect();
        prop_assert_eq!((found, error), (expected, None));
    }

    #[test]
    fn any_bytes_give_the_same_in_every_split_and_never_panic(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>(), 1 => 1..30u8], 0..400),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let whole = from_client([&bytes[..]]);
        prop_assert_eq!(from_client(pieces(&bytes, &cuts)), whole);
        let mut decoder = ServerDecoder::default();
        for piece in pieces(&bytes, &cuts) {
            decoder.push(piece);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn a_message_of_right_length_with_any_data_is_answered(command in -2..8i32, data in prop::collection::vec(any::<u8>(), 0..64)) {
        let len = (data.len() as u32 + 12).to_le_bytes();
        let bytes = [&len[..], &9u64.to_le_bytes(), &command.to_le_bytes(), &data].concat();
        let found = requests(&bytes);
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found[0].ctx, 9);
        match &found[0].command {
            Ok(parsed) => prop_assert_eq!(encoded(parsed, 9), bytes),
            Err(CommandError::Unknown { command: c }) => prop_assert!(*c == command && ![1, 2, 4, 5].contains(c)),
            Err(error) => prop_assert_eq!(error.status(), -1),
        }
    }
}
