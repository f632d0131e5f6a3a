//! The fuzz targets on stable Rust: every input of the committed corpus, and a bounded run of mutations of it.
//! FUZZ_RUNS=n for more, SEED=n to repeat.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use baton_fuzz_targets::{Random, TARGETS, Target, mutate};

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A hang is a failure, however slow the machine.
fn watched(f: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        f();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(300)) {
        Err(RecvTimeoutError::Timeout) => panic!("an input does not come back"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn the_corpus_holds_at_least_what_the_encoders_write() {
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= (target.seeds)().len(), "{}: run the example `corpus` again", target.name);
    }
}

#[test]
fn the_corpus_and_mutations_of_it() {
    let full = std::env::var_os("BATON_FULL").is_some();
    let runs = number("FUZZ_RUNS", if full { 200_000 } else { 6_000 });
    let seed = number("SEED", u64::from(std::process::id()));
    println!("SEED={seed}");
    for target in &TARGETS {
        watched(move || {
            let corpus = corpus(target);
            corpus.iter().for_each(|input| (target.run)(input));
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            for _ in 0..runs {
                let mut input = corpus[random.below(corpus.len())].clone();
                mutate(&mut input, &corpus[random.below(corpus.len())], &mut random);
                let shown = input.clone();
                if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
                    println!("{} SEED={seed}: {shown:?}", target.name);
                    std::panic::resume_unwind(panic);
                }
            }
            println!("{}: {} inputs of the corpus, {runs} mutations", target.name, corpus.len());
        });
    }
}
