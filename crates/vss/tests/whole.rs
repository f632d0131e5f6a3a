//! A real vss process on a real pool: frames in, results out, killed and started again.
//!
//! The model is a small one made here that sees a truck where the picture is white; the memory daemon and the service are
//! this very program, started with other arguments.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use aits_frame::{HEADER_LEN, Header, PictureLayout};
use aits_orders::{
    ForgetStream, FrameResult, Micros, ObjectClass, RunDir, Sequence, StreamId, VssInfo, VssResultsQuery,
    VssResultsReply, inbox, method,
};
use aits_tfjs2onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use baton_client::{Client, ConnectOptions, Sender};
use baton_testkit::{WATCHDOG, kill, until};
use clap::Parser;
use prost::Message;

#[derive(Parser)]
enum Role {
    Rmmt(baton_rmmt::Args),
    Vss(aits_vss::Args),
}

fn main() -> ExitCode {
    if env::args().nth(1).is_some_and(|role| role == "rmmt" || role == "vss") {
        return match Role::parse() {
            Role::Rmmt(args) => baton_rmmt::run(args),
            Role::Vss(args) => aits_vss::run(args),
        };
    }
    for (name, test) in [
        ("frames_become_results", frames_become_results as fn()),
        ("a_model_that_is_none_ends_it_with_a_sentence", a_model_that_is_none_ends_it_with_a_sentence),
    ] {
        eprintln!("test {name} ...");
        test();
        eprintln!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A process that ends with this test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program has a file"));
        Self(command.args(arguments).stdin(Stdio::null()).spawn().expect("this program can be started"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ONNX Runtime library.
fn library() -> String {
    let path = env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).unwrap_or_else(|| {
        let cache = env::var_os("AITS_CACHE").map(PathBuf::from);
        let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/aits"));
        cache.or(home).expect("HOME is set").join("runtime/libonnxruntime.so")
    });
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, which installs it", path.display());
    path.to_str().expect("the path is text").to_owned()
}

/// YOLOX-shaped, input 96x64: a truck at 24…56 x 16…32, as sure as the picture is bright.
fn model(path: &Path) {
    let shape = [1_i64, 126, 85];
    let row = (96 + 6 + 2) * 85;
    let mut constant = vec![0.0; 126 * 85];
    let mut factor = vec![0.0; 126 * 85];
    constant[row..row + 4].copy_from_slice(&[0.5, 0.5, 2_f32.ln(), 0.0]);
    constant[row + 5 + 7] = 1.0;
    factor[row + 4] = 1.0 / 255.0;
    let node = |op: &str, input: &[&str], output: &str, attribute| NodeProto {
        input: input.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        name: output.into(),
        op_type: op.into(),
        attribute,
    };
    let graph = GraphProto {
        name: "white".into(),
        node: vec![
            node("ReduceMean", &["picture"], "mean", vec![AttributeProto::int("keepdims", 0)]),
            node("Mul", &["factor", "mean"], "scaled", vec![]),
            node("Add", &["constant", "scaled"], "boxes", vec![]),
        ],
        initializer: vec![
            TensorProto::floats("constant", &shape, &constant),
            TensorProto::floats("factor", &shape, &factor),
        ],
        input: vec![ValueInfoProto::floats("picture", &[1, 3, 64, 96])],
        output: vec![ValueInfoProto::floats("boxes", &shape)],
    };
    std::fs::write(path, ModelProto::new(graph).encode_to_vec()).expect("the model can be written");
}

struct System {
    runtime: tokio::runtime::Runtime,
    rpc: baton_rpc::Client,
    pool: Client,
    frames: Sender,
    process: u64,
    after: u64,
}

impl System {
    fn send(&self, sequence: u64, luma: u8) {
        let layout = PictureLayout::tight(192, 128);
        let len = HEADER_LEN + layout.payload_len() as usize;
        let mut block = self.pool.alloc(len).expect("the pool has room");
        block[..len].fill(128);
        block[HEADER_LEN..][..layout.offsets[1] as usize].fill(luma);
        let header = Header {
            stream: StreamId(7),
            sequence: Sequence(sequence),
            pts: Micros(sequence as i64 * 40_000),
            decoded_at: Micros::monotonic_now(),
            payload_len: layout.payload_len(),
            annotated: false,
            layout: Some(layout),
        };
        header.write_to(&mut block).expect("the header fits");
        self.frames.send(block.freeze()).expect("the inbox has room");
    }

    /// The next result.
    fn next(&mut self) -> FrameResult {
        let query = VssResultsQuery { process: self.process, after: self.after, wait_ms: 10_000 };
        let reply = self.runtime.block_on(self.rpc.call(method::VSS_RESULTS, &query));
        let mut reply: VssResultsReply = reply.expect("the vss answers");
        assert_eq!((reply.results.len(), reply.lost), (1, 0), "one result was waited for");
        (self.process, self.after) = (reply.process, reply.next);
        reply.results.remove(0)
    }

    fn info(&self) -> VssInfo {
        self.runtime.block_on(self.rpc.call(method::VSS_INFO, &())).expect("the vss answers")
    }

    fn forget(&self) {
        let order = ForgetStream { stream: StreamId(7) };
        self.runtime.block_on(self.rpc.call::<_, ()>(method::VSS_FORGET, &order)).expect("the vss answers");
    }

    /// Every block is accounted for, nothing waits in an inbox, and the members there are have no more than their spare
    /// blocks (a few stay with whoever freed them, for its next allocation).
    fn balances(&self) {
        until("a pool that balances", || {
            let report = self.pool.audit().expect("the daemon answers");
            let held: u64 =
                self.pool.members().expect("the daemon answers").iter().map(|m| m.blocks_held).sum();
            (report.ok && report.queued == 0 && held == report.held && held < 64).then_some(())
        });
    }
}

fn trucks(result: &FrameResult) -> u64 {
    result.counts.iter().find(|c| c.class == ObjectClass::Truck).expect("every class is counted").total
}

fn frames_become_results() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = RunDir::new(dir.path());
    let path = dir.path().join("white.onnx");
    model(&path);
    let library = library();
    let _rmmt = Process::start(&["rmmt", "--listen", &run.uri("rmmt"), "--size", "64MiB"]);
    let arguments = [
        "vss",
        "--run",
        dir.path().to_str().expect("the path is text"),
        "--index",
        "3",
        "--model",
        path.to_str().expect("the path is text"),
        "--runtime",
        &library,
    ];
    let mut vss = Process::start(&arguments);

    let options = ConnectOptions::new("test").timeout(WATCHDOG);
    let (pool, _inbox) = Client::connect(&run.uri("rmmt"), options).expect("the daemon comes up");
    let sender = || until("the vss in the pool", || pool.sender(&inbox::vss_frames(3)).ok());
    let mut system = System {
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        rpc: baton_rpc::Client::new(run.uri("vss-3")),
        frames: sender(),
        pool: pool.clone(),
        process: 0,
        after: 0,
    };
    until("the vss at its socket", || {
        system.runtime.block_on(system.rpc.call::<_, VssInfo>(method::VSS_INFO, &())).ok()
    });
    let info = system.info();
    assert_eq!((info.model.as_str(), info.head.as_str(), info.input), ("white.onnx", "yolox", [96, 64]));

    for n in 0..4 {
        system.send(n * 5, 235);
        let result = system.next();
        assert_eq!((result.stream, result.sequence, result.size), (StreamId(7), Sequence(n * 5), [192, 128]));
        assert_eq!((result.tracks.len(), result.tracks[0].track), (1, 1), "{result:?}");
        assert_eq!(result.tracks[0].class, ObjectClass::Truck);
        let bbox = <[f32; 4]>::from(result.tracks[0].bbox);
        assert!(bbox.iter().zip([48.0, 32.0, 112.0, 64.0]).all(|(a, b)| (a - b).abs() < 0.5), "{bbox:?}");
        assert_eq!(trucks(&result), u64::from(n > 0));
        assert!(result.provisional && result.finished_at >= result.decoded_at);
    }
    system.send(20, 16);
    assert_eq!(system.next().tracks, []);
    system.balances();

    // A block that is no frame is refused; the next frame is judged as if it had not been there.
    let garbage = system.pool.alloc(4096).expect("the pool has room");
    system.frames.send(garbage.freeze()).expect("the inbox has room");
    system.send(25, 235);
    let result = system.next();
    assert_eq!((result.tracks[0].track, trucks(&result)), (1, 1));
    let info = system.info();
    assert_eq!((info.processed, info.refused), (6, 1));

    system.forget();
    system.send(30, 235);
    assert_eq!(trucks(&system.next()), 0);

    // Killed with frames in its inbox and perhaps in its hands: nothing is lost.
    for n in 7..12 {
        system.send(n * 5, 235);
    }
    vss.0.kill().expect("it can be killed");
    vss.0.wait().expect("it can be waited for");
    system.balances();
    vss = Process::start(&arguments);
    until("the vss at its socket", || {
        system.runtime.block_on(system.rpc.call::<_, VssInfo>(method::VSS_INFO, &())).ok()
    });
    // Its socket is there, so the name is its own by now.
    system.frames = sender();
    system.send(60, 235);
    let before = system.process;
    let result = system.next();
    assert_ne!(system.process, before, "another process, another identity");
    assert_eq!((result.sequence, result.tracks[0].track, trucks(&result)), (Sequence(60), 1, 0));
    system.balances();

    terminate(&vss);
    let status = vss.0.wait().expect("it can be waited for");
    assert!(status.success(), "ended with {status}");
    assert!(!run.socket("vss-3").exists(), "the socket is left behind");
}

fn terminate(process: &Process) {
    kill(process.0.id(), rustix::process::Signal::TERM);
}

fn a_model_that_is_none_ends_it_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("letter.onnx");
    std::fs::write(&path, "Dear reader,").expect("the file can be written");
    let missing = dir.path().join("none.onnx");
    for (model, words) in [(&path, "is not an ONNX model"), (&missing, "cargo xtask setup")] {
        // There is no memory daemon: a bad model is found before it is needed.
        let output = Command::new(env::current_exe().expect("this program has a file"))
            .args(["vss", "--run"])
            .arg(dir.path())
            .arg("--model")
            .arg(model)
            .args(["--runtime", &library()])
            .output()
            .expect("this program can be started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("vss-0: ") && last.contains(words), "{stderr}");
    }
}
