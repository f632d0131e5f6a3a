//! The page in a real browser: headless Chromium, driven by Playwright (`tests/browser/run.mjs` has the checks).

use std::process::Command;
use std::time::Duration;

use baton_tests::{Options, System, cache_dir, wait_until};

#[test]
fn the_page_works_in_chromium_and_comes_back_after_a_kill() {
    let system = System::start(&Options::looped(cache_dir().join("clips/road-cars-truck.mp4")));
    let (client, _inbox) = system.attach();
    let master = system.process("gateway").expect("the gateway runs");
    let worker = wait_until("a gateway worker is attached to the pool", Duration::from_secs(60), || {
        let mut members = system.members(&client).into_iter();
        members.find(|member| member.name.starts_with("gateway") && member.pid != master)
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/run.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(system.url()).args(["--kill-pid", &worker.pid.to_string()]);
    let output = node.output().expect("node is there after set-up");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    assert!(output.status.success(), "{}", output.status);
}
