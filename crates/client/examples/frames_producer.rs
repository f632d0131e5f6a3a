//! Sends frames to whoever receives at `frames`: start `rmmt`, the consumer, then this.
//!
//! ```text
//! cargo run -p baton-client --example frames_producer -- un:///run/baton/rmmt.sock
//! ```

use baton_client::{Client, ConnectOptions, SendFailure, WhenFull};
use std::time::Duration;

const FRAME: usize = 1920 * 1080 * 3 / 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("give the daemon's address: un://PATH")?;
    let (client, _inbox) = Client::connect(&uri, ConnectOptions::new("frames_producer"))?;
    println!("waiting for somebody to receive at `frames`");
    let sender = client.sender_wait("frames", Duration::from_secs(60))?;
    for n in 0..250u64 {
        let mut frame = client.alloc_wait(FRAME, Duration::from_secs(1))?;
        frame[..8].copy_from_slice(&n.to_le_bytes()); // a camera would fill it
        match sender.send_with(frame.freeze(), WhenFull::DropOldest) {
            Ok(sent) if sent.replaced > 0 => println!("frame {n} replaced an older one"),
            Ok(_) => {}
            Err(error) if error.reason == SendFailure::Gone => {
                println!("the consumer has left");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}
