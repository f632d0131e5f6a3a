//! Writes the seeds of every target to `fuzz/corpus/NAME`. What a fuzzer found worth keeping stays there.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in &baton_fuzz_targets::TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
