//! From nothing to the first message: connect, open an inbox, allocate 64 B, send, receive. Pages warm up meanwhile.

use std::time::Duration;

use baton_client::{Client, ConnectOptions};

use crate::baton::{Daemon, settle};
use crate::cases::{Bench, Found};
use crate::error::{Error, step};
use crate::link::PATIENCE;
use crate::machine::{Core, now};
use crate::report::{Row, Target};

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::Any);
    let daemon = Daemon::start(&bench.cores, "512MiB", &[])?;
    let mut figures = Vec::new();
    for number in 0..=bench.rounds() {
        let name = format!("attach-{number}");
        let start = now();
        let options = ConnectOptions::new(&name).inbox(&name);
        let (client, mut inbox) = step("attach", Client::connect(daemon.uri(), options))?;
        let sender = step("open the inbox", client.sender(&name))?;
        step("send", sender.send(step("allocate", client.alloc(64))?.freeze()))?;
        let delivery = step("receive", inbox.recv(Some(PATIENCE)))?;
        let took = (now() - start) as f64;
        if delivery.is_none() {
            return Err(Error::new("receive", "nothing came within 20 s"));
        }
        if number > 0 {
            figures.push(took);
        }
        settle(); // the warm-up of this member must not run beside the next one's attachment
        std::thread::sleep(Duration::from_millis(1));
    }
    let head = ("attach", "attach to a 512 MiB pool … first 64 B received".to_owned(), "ns");
    let rows = Row::alone(head, &figures, Target::AtMost(2e6)).into_iter().collect();
    Ok(Found { rows, ..Found::default() })
}
