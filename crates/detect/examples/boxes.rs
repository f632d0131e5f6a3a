//! Boxes of a raw video, one JSON line a frame: `boxes MODEL WIDTH HEIGHT < video.yuv`, with
//! `ffmpeg -i clip.mp4 -f rawvideo -pix_fmt yuv420p -` in front. For measuring a model by hand.

use std::{
    env,
    error::Error,
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use aits_detect::{Config, open};
use aits_frame::{HEADER_LEN, Header, Micros, Picture, PictureLayout, Sequence, StreamId};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, width, height, more @ ..] = arguments.as_slice() else {
        return Err("usage: boxes MODEL WIDTH HEIGHT [SCORE] < video.yuv".into());
    };
    let mut config = Config::new(model);
    config.confident = more.first().map(|s| s.parse()).transpose()?;
    let mut detector = open(&config)?;
    let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
    let mut layout = PictureLayout::tight(width, height);
    let half = width.div_ceil(2);
    let (luma, chroma) = (width * height, half * height.div_ceil(2));
    layout.strides = [width, half, half];
    layout.offsets = [0, luma, luma + chroma];
    let len = (luma + 2 * chroma) as usize;
    let mut block = vec![0; HEADER_LEN + len];
    let mut spent = Duration::ZERO;
    for sequence in 0.. {
        match std::io::stdin().lock().read_exact(&mut block[HEADER_LEN..]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                eprintln!("{:?}: {:?} a frame", detector.info(), spent / (sequence as u32).max(1));
                return Ok(());
            }
            other => other?,
        }
        let header = Header {
            stream: StreamId(1),
            sequence: Sequence(sequence),
            pts: Micros(0),
            decoded_at: Micros(0),
            payload_len: len as u64,
            annotated: false,
            layout: Some(layout),
        };
        header.write_to(&mut block)?;
        let start = Instant::now();
        let found = detector.detect(&Picture::parse(&block)?, None)?;
        spent += start.elapsed();
        let list: Vec<_> = found.iter().map(|d| (d.class, d.score, d.bbox)).collect();
        println!("{}", serde_json::to_string(&list)?);
    }
    Ok(())
}
