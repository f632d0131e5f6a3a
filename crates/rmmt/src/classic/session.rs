//! One connection of a classic client.
//!
//! Commands are read as they come, many without waiting, and performed one after the other; the answers queue up in a
//! buffer that is written beside the reading. Bounds: one chunk of input, less than one command, [`ANSWERS_MAX`] and the
//! answers to one chunk. A client that half-closes gets its pending answers; one that takes nothing for [`FAREWELL`]
//! then does not.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use baton_address::Stream;
use baton_wire::classic::{ClientDecoder, DecodeError, FromClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::seat::{Caller, Seat};
use crate::daemon::House;
use crate::door::SNIFFED;

/// Unsent answers beyond which nothing more is read.
const ANSWERS_MAX: usize = 256 * 1024;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Commands performed before other connections get their turn. One that failed counts for as many: looking for memory
/// that is not there takes long.
const TURN: usize = 64;

/// For writing the last answers to a client that sends no more.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("end of stream")]
    Eof,
    #[error("{0}")]
    OutOfStep(#[from] DecodeError),
    #[error("its pid is another's")]
    PutOut,
    #[error("it does not take its last answers")]
    Deaf,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves a classic client to its end. `first` are the first bytes of its hello, `known` is called once when it is no
/// stranger any more.
pub(crate) async fn serve(
    house: Rc<House>,
    stream: Stream,
    caller: Caller,
    number: u64,
    first: [u8; SNIFFED],
    known: impl FnOnce(),
) {
    let claim = i32::from_le_bytes(first);
    let seat = match Seat::take(&house, claim, caller) {
        Ok(seat) => seat,
        Err(error) => {
            return tracing::warn!("rmmt: a classic client (connection {number}) is refused: {error}");
        }
    };
    known();
    tracing::info!("rmmt: classic client pid={} has connection {number}", seat.pid);
    let end = converse(&seat, stream).await;
    tracing::debug!("rmmt: connection {number} of classic pid={} ended: {end}", seat.pid);
}

async fn converse(seat: &Seat, stream: Stream) -> End {
    let mut answers = match seat.house.classic.greeting() {
        Ok(greeting) => greeting.encode(),
        Err(_) => return End::Eof, // cannot be: no seat without it
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut decoder = ClientDecoder::greeted();
    let mut chunk = vec![0; CHUNK];
    loop {
        let step = tokio::select! {
            read = reader.read(&mut chunk), if answers.len() < ANSWERS_MAX => match read {
                Ok(0) => Err(End::Eof),
                Ok(count) => {
                    decoder.push(chunk.get(..count).unwrap_or_default());
                    obey(seat, &mut decoder, &mut answers).await
                }
                Err(error) => Err(error.into()),
            },
            written = writer.write(&answers), if !answers.is_empty() => match written {
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => {
                    answers.drain(..count);
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            () = seat.house.classic.put_out.notified() => {
                if seat.is_taken() { Ok(()) } else { Err(End::PutOut) }
            }
        };
        let Err(end) = step else { continue };
        if matches!(end, End::Eof | End::OutOfStep(_)) {
            // What was asked before is answered.
            return match timeout(FAREWELL, writer.write_all(&answers)).await {
                Ok(Ok(())) => end,
                Ok(Err(error)) => error.into(),
                Err(_) => End::Deaf,
            };
        }
        return end;
    }
}

/// Performs every command that is there.
async fn obey(seat: &Seat, decoder: &mut ClientDecoder, answers: &mut Vec<u8>) -> Result<(), End> {
    let mut turn = 0;
    while let Some(message) = decoder.next()? {
        let FromClient::Request(request) = message else { continue };
        if !seat.is_taken() {
            return Err(End::PutOut);
        }
        let answer = super::perform(&seat.house, seat.pid, request);
        answer.encode(answers);
        turn += if answer.status == 0 { 1 } else { TURN };
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
