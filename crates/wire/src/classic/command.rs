//! What a client says: its pid once, then commands.

use super::frame::{Buffer, Cursor, DecodeError};
use super::{COMMAND_LEN_MAX, NODES_MAX, STATUS_FAILED, STATUS_INVALID_COMMAND};

const ALLOC: i32 = 1;
const FREE: i32 = 2;
const PRE_SEND: i32 = 4;
const RECV: i32 = 5;

/// One of the four operations. Every number is the client's claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give me a block.
    Alloc {
        /// Bytes.
        size: u32,
        /// Alignment of its offset.
        align: u32,
    },
    /// I drop one of my references.
    Free {
        /// Offset of the block.
        node: i64,
    },
    /// These blocks are on their way to somebody.
    PreSend {
        /// Offsets of the blocks, at most [`NODES_MAX`].
        nodes: Vec<i64>,
        /// The receiver.
        to_pid: i32,
    },
    /// I have got that transfer.
    Recv {
        /// Its number.
        bid: i64,
        /// How many blocks it has.
        count: u32,
        /// Who sent it.
        from_pid: i32,
    },
}

/// A command and the number that its answer will carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The caller's own.
    pub ctx: u64,
    /// What it wants, if that can be told.
    pub command: Result<Command, CommandError>,
}

/// Why a message that arrived whole is no command. The stream is in step: this is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not 1, 2, 4 or 5.
    #[error("{}", super::INVALID_COMMAND)]
    Unknown {
        /// The number.
        command: i32,
    },
    /// More or less data than the command has.
    #[error("command {command} with {len} bytes of data; it has {expected}")]
    Length {
        /// The number.
        command: i32,
        /// How many bytes came.
        len: usize,
        /// How many belong there.
        expected: usize,
    },
    /// The number of nodes and the length of the message contradict each other.
    #[error("pre-send of {count} nodes in {len} bytes of data; {count} nodes take {count} × 8 + 8")]
    Count {
        /// Nodes announced.
        count: u32,
        /// How many bytes came.
        len: usize,
    },
}

impl CommandError {
    /// The status of the answer.
    pub fn status(&self) -> i32 {
        match self {
            Self::Unknown { .. } => STATUS_INVALID_COMMAND,
            _ => STATUS_FAILED,
        }
    }
}

/// Why a command cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pre-send of {count} nodes; at most {NODES_MAX} fit one command, send them in several")]
pub struct EncodeError {
    /// How many there are.
    pub count: usize,
}

/// The bytes a client begins with.
pub fn client_hello(pid: i32) -> [u8; 4] {
    pid.to_le_bytes()
}

impl Command {
    /// Appends the whole message to `out`.
    ///
    /// # Errors
    /// [`EncodeError`], and nothing is appended.
    pub fn encode(&self, ctx: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut data = Vec::new();
        let command = match self {
            Self::Alloc { size, align } => {
                data.extend(size.to_le_bytes());
                data.extend(align.to_le_bytes());
                ALLOC
            }
            Self::Free { node } => {
                data.extend(node.to_le_bytes());
                FREE
            }
            Self::PreSend { nodes, to_pid } => {
                let too_many = EncodeError { count: nodes.len() };
                let count = u32::try_from(nodes.len()).map_err(|_| too_many.clone())?;
                if nodes.len() > NODES_MAX {
                    return Err(too_many);
                }
                data.extend(count.to_le_bytes());
                data.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
                data.extend(to_pid.to_le_bytes());
                PRE_SEND
            }
            Self::Recv { bid, count, from_pid } => {
                data.extend(bid.to_le_bytes());
                data.extend(count.to_le_bytes());
                data.extend(from_pid.to_le_bytes());
                RECV
            }
        };
        out.extend((data.len() as u32 + 12).to_le_bytes()); // at most COMMAND_LEN_MAX
        out.extend(ctx.to_le_bytes());
        out.extend(command.to_le_bytes());
        out.extend(data);
        Ok(())
    }

    fn decode(command: i32, data: &[u8]) -> Result<Self, CommandError> {
        let expected = match command {
            ALLOC | FREE => 8,
            RECV => 16,
            PRE_SEND => return Self::decode_pre_send(data),
            _ => return Err(CommandError::Unknown { command }),
        };
        let wrong = CommandError::Length { command, len: data.len(), expected };
        if data.len() != expected {
            return Err(wrong);
        }
        Self::decode_fixed(command, Cursor(data)).ok_or(wrong)
    }

    /// The commands whose data always has the same length.
    fn decode_fixed(command: i32, mut data: Cursor<'_>) -> Option<Self> {
        Some(match command {
            ALLOC => Self::Alloc { size: data.u32()?, align: data.u32()? },
            FREE => Self::Free { node: data.i64()? },
            _ => Self::Recv { bid: data.i64()?, count: data.u32()?, from_pid: data.i32()? },
        })
    }

    /// The announced number is compared with the length that is really there before anything of that size is made.
    fn decode_pre_send(data: &[u8]) -> Result<Self, CommandError> {
        let len = data.len();
        let mut data = Cursor(data);
        let count = data.u32().ok_or(CommandError::Length { command: PRE_SEND, len, expected: 8 })?;
        let wrong = CommandError::Count { count, len };
        if u64::from(count) * 8 + 8 != len as u64 {
            return Err(wrong);
        }
        let nodes = data.bytes(len - 8).ok_or(wrong.clone())?;
        let nodes = nodes.as_chunks().0.iter().map(|node| i64::from_le_bytes(*node)).collect();
        Ok(Self::PreSend { nodes, to_pid: data.i32().ok_or(wrong)? })
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// First of all: the pid it says it has.
    Hello {
        /// Any number.
        pid: i32,
    },
    /// Then commands.
    Request(Request),
}

/// The daemon's end: bytes in any split to messages.
///
/// ```
/// use baton_wire::classic::{ClientDecoder, Command, FromClient, client_hello};
/// let mut bytes = client_hello(4711).to_vec();
/// Command::Free { node: 64 }.encode(7, &mut bytes)?;
/// let mut decoder = ClientDecoder::default();
/// let mut messages = Vec::new();
/// for byte in bytes {
///     decoder.push(&[byte]);
///     messages.extend(decoder.next()?);
/// }
/// assert_eq!(messages[0], FromClient::Hello { pid: 4711 });
/// assert!(matches!(&messages[1], FromClient::Request(request) if request.ctx == 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct ClientDecoder {
    buffer: Buffer,
    greeted: bool,
}

impl ClientDecoder {
    /// For a stream whose hello was read already.
    pub fn greeted() -> Self {
        Self { buffer: Buffer::default(), greeted: true }
    }

    /// Takes what has arrived. Call [`ClientDecoder::next`] until it says `None` before the next push: then less than
    /// one message is kept.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// The next complete message.
    ///
    /// # Errors
    /// [`DecodeError`], again at every later call.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None, and says why it cannot")]
    pub fn next(&mut self) -> Result<Option<FromClient>, DecodeError> {
        if !self.greeted {
            let Some(pid) = Cursor(self.buffer.rest()).i32() else { return Ok(None) };
            self.buffer.take(4);
            self.greeted = true;
            return Ok(Some(FromClient::Hello { pid }));
        }
        let Some(message) = self.buffer.message(COMMAND_LEN_MAX)? else { return Ok(None) };
        let mut body = Cursor(message);
        // A message has at least these twelve bytes.
        let (Some(ctx), Some(command)) = (body.u64(), body.i32()) else { return Ok(None) };
        let command = Command::decode(command, body.0);
        let len = message.len();
        self.buffer.take(4 + len);
        Ok(Some(FromClient::Request(Request { ctx, command })))
    }
}
