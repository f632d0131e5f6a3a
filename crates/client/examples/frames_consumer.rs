//! Receives frames at `frames` and says what it saw, see `frames_producer`.

use baton_client::{Client, ConnectOptions};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("give the daemon's address: un://PATH")?;
    let options = ConnectOptions::new("frames_consumer").inbox("frames").read_only();
    let (_client, mut inbox) = Client::connect(&uri, options)?;
    let (mut frames, mut missed, mut next) = (0u64, 0, 0);
    while let Some(delivery) = inbox.recv(Some(Duration::from_secs(10)))? {
        let number = delivery.block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        (frames, missed, next) = (frames + 1, missed + number.saturating_sub(next), number + 1);
        if frames.is_multiple_of(25) {
            println!(
                "{frames} frames of {} bytes from endpoint {}, {missed} missed",
                delivery.block.len(),
                delivery.from
            );
        }
    } // dropped: the frame's memory is free again
    println!("nothing for ten seconds: {frames} frames, {missed} missed");
    Ok(())
}
