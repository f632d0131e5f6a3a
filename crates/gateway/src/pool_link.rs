//! This worker's place in the pool: joins it, receives JPEGs, joins again when it was put out.

use std::sync::Arc;
use std::time::Duration;

use baton_client::{Client, ConnectOptions, Inbox};
use tokio::sync::Semaphore;

use crate::Door;
use crate::feeds::{MAX_BLOCKS, Picture};

/// Pause between two attempts to join.
const RETRY: Duration = Duration::from_millis(200);

/// Keeps the link until the process ends.
pub async fn keep(uri: String, door: Door) {
    // The same complaint is made once, not five times a second.
    let mut complaint = String::new();
    loop {
        let options = ConnectOptions::new("gateway-worker")
            .inbox(door.feeds().inbox())
            .read_only()
            .timeout(Duration::from_secs(2));
        let uri = uri.clone();
        match tokio::task::spawn_blocking(move || Client::connect(&uri, options)).await {
            Ok(Ok((client, frames))) => {
                complaint.clear();
                door.set_pool(Some(client));
                receive(&door, frames).await;
                door.set_pool(None);
            }
            Ok(Err(error)) if error.to_string() == complaint => {}
            Ok(Err(error)) => {
                complaint = error.to_string();
                tracing::warn!("no live pictures: {complaint}");
            }
            Err(error) => tracing::error!("joining the pool panicked: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn receive(door: &Door, mut frames: Inbox) {
    let places = Arc::new(Semaphore::new(MAX_BLOCKS));
    loop {
        match frames.recv_async().await.map(|delivery| Picture::from_block(delivery.block, &places)) {
            Ok(Ok(picture)) => door.feeds().picture_arrived(picture),
            Ok(Err(error)) => tracing::warn!("dropped a block that is no JPEG: {error}"),
            Err(error) => {
                tracing::warn!("{error}");
                return;
            }
        }
    }
}
