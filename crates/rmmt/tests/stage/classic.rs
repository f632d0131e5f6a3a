//! A classic client in this process: its own connection, one command at a time unless told otherwise.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use baton_wire::classic::{Answer, Command, FromServer, ServerDecoder, ServerHello, client_hello};

use super::{Daemon, WATCHDOG};

trait Connection: Read + Write + Send {
    fn cut(&self, how: std::net::Shutdown) -> std::io::Result<()>;
}

impl Connection for TcpStream {
    fn cut(&self, how: std::net::Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
}

impl Connection for UnixStream {
    fn cut(&self, how: std::net::Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
}

/// A refusal: status and sentence.
pub type No = (i32, String);

pub struct Classic {
    stream: Box<dyn Connection>,
    decoder: ServerDecoder,
    ctx: u64,
    pub pid: i32,
    pub hello: ServerHello,
}

impl Classic {
    /// Over TCP, as whoever it says it is. `None` if the daemon closes the connection instead of greeting.
    pub fn try_ip(daemon: &Daemon, pid: i32) -> Option<Self> {
        let stream = TcpStream::connect(daemon.ip()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        Self::greet(Box::new(stream), pid)
    }

    #[track_caller]
    pub fn ip(daemon: &Daemon, pid: i32) -> Self {
        Self::try_ip(daemon, pid).unwrap_or_else(|| panic!("pid {pid} is not let in"))
    }

    /// Over the Unix socket.
    pub fn try_un(daemon: &Daemon, pid: i32) -> Option<Self> {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        Self::greet(Box::new(stream), pid)
    }

    /// Over the Unix socket, as this process.
    #[track_caller]
    pub fn un(daemon: &Daemon) -> Self {
        Self::try_un(daemon, std::process::id().cast_signed()).expect("this process is not let in")
    }

    fn greet(mut stream: Box<dyn Connection>, pid: i32) -> Option<Self> {
        stream.write_all(&client_hello(pid)).ok()?;
        let mut decoder = ServerDecoder::default();
        match Self::read(stream.as_mut(), &mut decoder)? {
            FromServer::Hello(hello) => Some(Self { stream, decoder, ctx: 0, pid, hello }),
            FromServer::Answer(answer) => panic!("{answer:?} before the greeting"),
        }
    }

    /// `None` at the end of the stream.
    fn read(stream: &mut dyn Connection, decoder: &mut ServerDecoder) -> Option<FromServer> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = decoder.next().unwrap() {
                return Some(message);
            }
            match stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => decoder.push(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Sends without waiting; the number that the answer will have.
    pub fn send(&mut self, command: &Command) -> u64 {
        self.ctx += 1;
        let mut bytes = Vec::new();
        command.encode(self.ctx, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
        self.ctx
    }

    /// Bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends no more, but reads on.
    pub fn half_close(&self) {
        self.stream.cut(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer; `None` at the end of the stream.
    pub fn answer(&mut self) -> Option<Answer> {
        match Self::read(self.stream.as_mut(), &mut self.decoder)? {
            FromServer::Answer(answer) => Some(answer),
            FromServer::Hello(hello) => panic!("{hello:?} in the middle"),
        }
    }

    #[track_caller]
    fn ask(&mut self, command: &Command) -> Result<Answer, No> {
        let ctx = self.send(command);
        let answer = self.answer().expect("the daemon hung up");
        assert_eq!(answer.ctx, ctx);
        match answer.status {
            0 => Ok(answer),
            status => Err((status, answer.sentence().expect("a refusal has a sentence"))),
        }
    }

    #[track_caller]
    pub fn alloc(&mut self, size: u32) -> Result<i64, No> {
        self.alloc_aligned(size, 0)
    }

    #[track_caller]
    pub fn alloc_aligned(&mut self, size: u32, align: u32) -> Result<i64, No> {
        self.ask(&Command::Alloc { size, align }).map(|answer| answer.as_number().unwrap())
    }

    #[track_caller]
    pub fn free(&mut self, node: i64) -> Result<(), No> {
        self.ask(&Command::Free { node }).map(|answer| assert!(answer.data.is_empty()))
    }

    #[track_caller]
    pub fn pre_send(&mut self, nodes: &[i64], to_pid: i32) -> Result<i64, No> {
        self.ask(&Command::PreSend { nodes: nodes.to_vec(), to_pid })
            .map(|answer| answer.as_number().unwrap())
    }

    #[track_caller]
    pub fn recv(&mut self, bid: i64, count: u32, from_pid: i32) -> Result<(), No> {
        self.ask(&Command::Recv { bid, count, from_pid }).map(|answer| assert!(answer.data.is_empty()))
    }

    fn memory(&self) -> File {
        File::options().read(true).write(true).open(format!("/dev/shm{}", self.hello.name)).unwrap()
    }

    /// Writes into a block. (Through the file: the same pages as through a mapping.)
    pub fn write(&self, node: i64, bytes: &[u8]) {
        self.memory().write_all_at(bytes, node.cast_unsigned()).unwrap();
    }

    pub fn bytes(&self, node: i64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory().read_exact_at(&mut bytes, node.cast_unsigned()).unwrap();
        bytes
    }
}
