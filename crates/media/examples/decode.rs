//! Decodes a file or camera without a daemon, as fast as it goes, and says what it cost:
//!
//! ```sh
//! cargo run -p aits-media --example decode -- clip.mp4 first-frame.jpg
//! ```

use std::error::Error;
use std::time::Instant;

use aits_frame::{Picture, StreamId};
use aits_media::memory::HeapMemory;
use aits_media::pixels::I420;
use aits_media::{Next, Source, SourceOptions, jpeg};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name a video file or a URL")?;
    let mut snapshot = arguments.next();
    let memory = HeapMemory::new(64);
    let mut source = Source::open(&url, memory.clone(), SourceOptions::new(StreamId(1)))?;
    println!("{}: {:?}", source.url(), source.video());
    let (started, mut blocks_max) = (Instant::now(), 0);
    loop {
        match source.next()? {
            Next::Frame(_, block) => {
                blocks_max = blocks_max.max(memory.in_use());
                if let Some(path) = snapshot.take() {
                    let picture = Picture::parse(&block)?;
                    let began = Instant::now();
                    let file = jpeg::Encoder::new(80)?.encode_to_vec(&I420::from(&picture))?;
                    println!("{path}: {} bytes in {:?}", file.len(), began.elapsed());
                    std::fs::write(path, file)?;
                }
            }
            Next::NoBlock(why) => println!("{why}"),
            Next::Damaged => println!("a damaged packet"),
            Next::End => break,
        }
    }
    let counters = source.counters();
    println!("{counters:?}, at most {blocks_max} blocks at a time");
    println!("{:.2} ms a frame", started.elapsed().as_secs_f64() * 1e3 / counters.decoded.max(1) as f64);
    Ok(())
}
