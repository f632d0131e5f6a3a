//! What the daemon says: name and size of the memory once, then answers.

use super::frame::{Buffer, Cursor, DecodeError};
use super::{ANSWER_LEN_MAX, NAME_LEN_MAX, STATUS_DONE, STATUS_FAILED};

/// Longest sentence in an answer; a longer one is cut.
const SENTENCE_LEN_MAX: usize = 1024;

/// The daemon's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello {
    /// What to give to `shm_open`.
    pub name: String,
    /// Size of the pool in KiB.
    pub kib: u32,
}

impl ServerHello {
    /// The whole message. A name longer than the kernel's limit is cut, which cannot happen to one that exists.
    pub fn encode(&self) -> Vec<u8> {
        let name = cut(&self.name, NAME_LEN_MAX);
        let mut out = text(name);
        out.extend(self.kib.to_le_bytes());
        out
    }
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The command's.
    pub ctx: u64,
    /// 0: done.
    pub status: i32,
    /// A number, a string or nothing: the status and the command tell which.
    pub data: Vec<u8>,
}

impl Answer {
    /// Done, nothing to say.
    pub fn done(ctx: u64) -> Self {
        Self { ctx, status: STATUS_DONE, data: Vec::new() }
    }

    /// Done: a node or the number of a transfer.
    pub fn number(ctx: u64, number: i64) -> Self {
        Self { ctx, status: STATUS_DONE, data: number.to_le_bytes().to_vec() }
    }

    /// Not done, and why.
    pub fn failed(ctx: u64, sentence: &str) -> Self {
        Self::refused(ctx, STATUS_FAILED, sentence)
    }

    /// Not done for a reason with a status of its own.
    pub fn refused(ctx: u64, status: i32, sentence: &str) -> Self {
        Self { ctx, status, data: text(cut(sentence, SENTENCE_LEN_MAX)) }
    }

    /// The number in an answer that has one.
    pub fn as_number(&self) -> Option<i64> {
        let data: [u8; 8] = self.data.as_slice().try_into().ok()?;
        (self.status == STATUS_DONE).then(|| i64::from_le_bytes(data))
    }

    /// The sentence of a refusal.
    pub fn sentence(&self) -> Option<String> {
        let (len, text) = self.data.split_first_chunk()?;
        let whole = usize::try_from(i32::from_le_bytes(*len)).ok()? == text.len();
        (self.status != STATUS_DONE && whole).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// Appends the whole message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.data.len() as u32 + 12).to_le_bytes()); // constructors keep it short
        out.extend(self.ctx.to_le_bytes());
        out.extend(self.status.to_le_bytes());
        out.extend(&self.data);
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u32).to_le_bytes().to_vec(); // cut before
    out.extend(text.as_bytes());
    out
}

fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// What the daemon sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// First of all.
    Hello(ServerHello),
    /// Then answers.
    Answer(Answer),
}

/// A client's end: bytes in any split to messages.
#[derive(Debug, Default)]
pub struct ServerDecoder {
    buffer: Buffer,
    greeted: bool,
}

impl ServerDecoder {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// The next complete message.
    ///
    /// # Errors
    /// [`DecodeError`], again at every later call.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None, and says why it cannot")]
    pub fn next(&mut self) -> Result<Option<FromServer>, DecodeError> {
        if !self.greeted {
            return Ok(self.hello()?.map(FromServer::Hello));
        }
        let Some(message) = self.buffer.message(ANSWER_LEN_MAX)? else { return Ok(None) };
        let mut body = Cursor(message);
        let (Some(ctx), Some(status)) = (body.u64(), body.i32()) else { return Ok(None) };
        let answer = Answer { ctx, status, data: body.0.to_vec() };
        let len = message.len();
        self.buffer.take(4 + len);
        Ok(Some(FromServer::Answer(answer)))
    }

    fn hello(&mut self) -> Result<Option<ServerHello>, DecodeError> {
        let mut bytes = Cursor(self.buffer.rest());
        let Some(len) = bytes.i32() else { return Ok(None) };
        let error = DecodeError::Text { len, max: NAME_LEN_MAX };
        let count = usize::try_from(len).ok().filter(|count| *count <= NAME_LEN_MAX).ok_or(error)?;
        let (Some(name), Some(kib)) = (bytes.bytes(count), bytes.u32()) else { return Ok(None) };
        let hello = ServerHello { name: String::from_utf8_lossy(name).into_owned(), kib };
        self.buffer.take(8 + count);
        self.greeted = true;
        Ok(Some(hello))
    }
}
