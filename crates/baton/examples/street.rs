//! Something to look at: three processes that pass pictures on, until Ctrl-C.
//!
//! ```text
//!   camera ── 25 pictures/s ──▶ judge (takes its time) ──▶ viewer (reads, keeps the last one)
//! ```
//!     baton rmmt --listen un:///tmp/rmmt.sock --size 64MiB &
//!     cargo run -p baton --example street un:///tmp/rmmt.sock &
//!     baton top --connect un:///tmp/rmmt.sock

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use aits_frame::{HEADER_LEN, Header, Micros, PictureLayout, Sequence, StreamId};
use baton_client::{Client, ConnectOptions, Sender};

const WIDTH: u32 = 800;
const HEIGHT: u32 = 600;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [uri, "camera"] => camera(uri),
        [uri, "judge"] => judge(uri),
        [uri, "viewer"] => viewer(uri),
        [uri] => start_all(uri),
        _ => Err("say where the memory daemon listens: un://PATH".into()),
    }
}

/// The processes end with the pool, or with the terminal they were started from.
fn start_all(uri: &str) -> Result<(), Box<dyn Error>> {
    let myself = std::env::current_exe()?;
    let start = |role| Command::new(&myself).args([uri, role]).spawn();
    for mut child in [start("viewer")?, start("judge")?, start("camera")?] {
        child.wait()?;
    }
    Ok(())
}

/// Whoever receives there, as soon as he is there.
fn sender(client: &Client, inbox: &str) -> Result<Sender, Box<dyn Error>> {
    loop {
        match client.sender(inbox) {
            Err(baton_client::OpenError::NotFound { .. }) => std::thread::sleep(Duration::from_millis(50)),
            found => return Ok(found?),
        }
    }
}

fn camera(uri: &str) -> Result<(), Box<dyn Error>> {
    let (client, _inbox) = Client::connect(uri, ConnectOptions::new("camera"))?;
    let judge = sender(&client, "judge.frames")?;
    let layout = PictureLayout::tight(WIDTH, HEIGHT);
    for number in 0.. {
        let mut block = client.alloc(HEADER_LEN + layout.payload_len() as usize)?;
        paint(&mut block[HEADER_LEN..], &layout, number);
        let header = Header {
            stream: StreamId(1),
            sequence: Sequence(number),
            pts: Micros(number as i64 * 40_000),
            decoded_at: Micros::monotonic_now(),
            payload_len: layout.payload_len(),
            annotated: false,
            layout: Some(layout),
        };
        header.write_to(&mut block)?;
        judge.send_newest(block.freeze())?;
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}

/// A grey ramp with a bright car that drives along it.
fn paint(planes: &mut [u8], layout: &PictureLayout, number: u64) {
    planes.fill(128);
    let car = (number as usize * 8) % WIDTH as usize;
    for y in 0..HEIGHT as usize {
        let row = &mut planes[y * layout.strides[0] as usize..][..WIDTH as usize];
        for (x, luma) in row.iter_mut().enumerate() {
            let is_car = (280..320).contains(&y) && (car..car + 80).contains(&x);
            *luma = if is_car { 235 } else { 40 + (x * 100 / WIDTH as usize) as u8 };
        }
    }
}

fn judge(uri: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions::new("judge").inbox("judge.frames").read_only();
    let (client, mut inbox) = Client::connect(uri, options)?;
    let viewer = sender(&client, "viewer.frames")?;
    while let Some(delivery) = inbox.recv(None)? {
        std::thread::sleep(Duration::from_millis(15));
        viewer.send_newest(delivery.block)?;
    }
    Ok(())
}

fn viewer(uri: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions::new("viewer").inbox("viewer.frames").read_only();
    let (_client, mut inbox) = Client::connect(uri, options)?;
    let mut _shown = None;
    while let Some(delivery) = inbox.recv(None)? {
        _shown = Some(delivery.block);
    }
    Ok(())
}
