//! A client in another language, written from the protocol's description alone, works unchanged.

mod common;

use common::{Pingpong, Transport};
use std::process::Command;

#[test]
fn a_python_client_written_from_the_document_works() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let server = Pingpong::start(transport, 2);
        let output = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ping_client.py"))
            .arg(&server.uri)
            .output()
            .expect("this test needs python3");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.trim(), "ok 225", "{transport:?}");
    }
}
