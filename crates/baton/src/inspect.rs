//! `baton inspect`: one block from all sides.
//!
//! ```text
//!   attach read-only ─▶ snapshot (a holder while it copies) ─▶ frame header? ─▶ text or JSON; PNG, raw bytes
//! ```
//! The bytes are another process' claims: the frame header is checked before anything is believed, and what does not
//! parse is shown as plain bytes.

mod picture;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aits_frame::{ColorRange, HEADER_LEN, Header, HeaderError, Jpeg, Kind, Micros, Picture};
use baton_client::{BlockInfo, Client, ConnectOptions, Holder, Snapshot};
use serde::Serialize;

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::show;

/// What `baton inspect --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    info: BlockInfo,
    /// Names of the holders, by endpoint.
    names: BTreeMap<u16, String>,
    /// What its header says, if it carries a frame.
    frame: Option<FrameReport>,
    /// The first bytes, if asked for.
    hex: Option<String>,
}

/// A frame header in plain numbers.
#[derive(Debug, Serialize)]
struct FrameReport {
    /// `picture` or `jpeg`.
    kind: &'static str,
    width: Option<u32>,
    height: Option<u32>,
    /// `limited` or `full`.
    range: Option<&'static str>,
    stream: u32,
    sequence: u64,
    pts_us: i64,
    /// Since the decoder had it.
    age_us: i64,
    payload_len: u64,
    /// Whether boxes are drawn into it.
    annotated: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let options = ConnectOptions::new("baton-inspect").read_only().timeout(Duration::ZERO);
    let (client, _inbox) = Client::connect(&args.query.connect, options)?;
    let Snapshot { info, bytes } = client.snapshot(args.block)?;
    let all = show::names(&client.members()?);
    drop((client, _inbox)); // no member any more: what follows may take its time

    let names =
        info.holders.iter().filter_map(|h| Some((h.endpoint, all.get(&h.endpoint)?.clone()))).collect();
    let header = Header::parse(&bytes);
    let hex = args.hex.map(|count| &bytes[..count.min(bytes.len())]);
    let report = Report {
        info,
        names,
        frame: header.ok().map(frame),
        hex: hex.map(|bytes| bytes.iter().map(byte).collect()),
    };
    let text = if args.query.json {
        show::json(&report)?
    } else {
        let dump = hex.map(dump).unwrap_or_default();
        text(&report, header.err()) + &dump
    };
    let is_stdout = |path: &Option<std::path::PathBuf>| path.as_deref() == Some(Path::new("-"));
    if is_stdout(&args.png) || is_stdout(&args.raw) {
        eprint!("{text}"); // standard output is for the bytes
    } else {
        show::print(&text);
    }
    if let Some(path) = &args.png {
        let picture = Picture::parse(&bytes).map_err(|error| Failure::NoPicture {
            block: args.block,
            reason: match Jpeg::parse(&bytes) {
                Ok(_) => format!("it is a JPEG file already, behind a header of {HEADER_LEN} bytes"),
                Err(_) => error.to_string(),
            },
        })?;
        let failed = |source| Failure::Png { path: path.clone(), source };
        write(path, |out| picture::write_png(&picture, out).map_err(failed))?;
    }
    if let Some(path) = &args.raw {
        write(path, |out| {
            out.write_all(&bytes).map_err(|source| Failure::File { path: path.clone(), source })
        })?;
    }
    Ok(())
}

fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    let mut out: Box<dyn Write> = if path == Path::new("-") {
        Box::new(std::io::stdout().lock())
    } else {
        Box::new(File::create(path).map_err(failed)?)
    };
    fill(&mut out)?;
    out.flush().map_err(failed)
}

fn frame(header: Header) -> FrameReport {
    let layout = header.layout;
    FrameReport {
        kind: match header.kind() {
            Kind::Picture => "picture",
            Kind::Jpeg => "jpeg",
        },
        width: layout.map(|l| l.width),
        height: layout.map(|l| l.height),
        range: layout.map(|l| match l.range {
            ColorRange::Limited => "limited",
            ColorRange::Full => "full",
        }),
        stream: header.stream.0,
        sequence: header.sequence.0,
        pts_us: header.pts.0,
        age_us: Micros::monotonic_now().0.saturating_sub(header.decoded_at.0),
        payload_len: header.payload_len,
        annotated: header.annotated,
    }
}

fn text(report: &Report, no_frame: Option<HeaderError>) -> String {
    let info = &report.info;
    let of = |inbox| -> Vec<Holder> { info.holders.iter().filter(|h| h.inbox == inbox).copied().collect() };
    let (held, unread) = (of(false), of(true));
    let mut text = format!(
        "block {}, generation {}: {} bytes used of {}\n",
        info.block,
        info.generation,
        info.len,
        show::bytes(info.class_bytes)
    );
    for (title, those) in [("held by", &held), ("waits in the inbox of", &unread)] {
        if !those.is_empty() {
            text += &format!("{title} {}\n", show::holders(those, &report.names));
        }
    }
    if let ([_], []) = (held.as_slice(), unread.as_slice()) {
        text +=
            "only one process has it: it may still be written to, or be a spare block with old contents\n";
    }
    match &report.frame {
        Some(frame) => text += &frame_text(frame),
        None => {
            let reason = no_frame.map_or(String::new(), |error| format!(": {error}"));
            text += &format!("no frame{reason}\n");
        }
    }
    text
}

fn frame_text(frame: &FrameReport) -> String {
    let what = match (frame.width, frame.height, frame.range) {
        (Some(width), Some(height), Some(range)) => {
            format!("picture of {width}x{height} pixels, I420, {range} range")
        }
        _ => format!("JPEG file of {} bytes", frame.payload_len),
    };
    let annotated = if frame.annotated { ", with boxes drawn in" } else { "" };
    format!(
        "{what}{annotated}\nstream {}, frame {}, shown at {:.3} s, decoded {:.3} s ago\n",
        frame.stream,
        frame.sequence,
        frame.pts_us as f64 / 1e6,
        frame.age_us as f64 / 1e6
    )
}

fn byte(byte: &u8) -> String {
    format!("{byte:02x}")
}

/// Sixteen bytes a line: offset, numbers, letters.
fn dump(bytes: &[u8]) -> String {
    let line = |(at, bytes): (usize, &[u8])| {
        let numbers: Vec<_> = bytes.iter().map(byte).collect();
        let letters: String = bytes
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        format!("{:08x}  {:<47}  {letters}\n", at * 16, numbers.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_numbers_and_letters() {
        let mut bytes = b"AITF\x01\x00 ~".to_vec();
        bytes.extend([255; 9]);
        let text = dump(&bytes);
        assert_eq!(
            text,
            "00000000  41 49 54 46 01 00 20 7e ff ff ff ff ff ff ff ff  AITF.. ~........\n\
             00000010  ff                                               .\n"
        );
        assert_eq!(dump(&[]), "");
    }
}
