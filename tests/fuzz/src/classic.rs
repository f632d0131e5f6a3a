//! The classic protocol: any bytes, in any split, become commands; what they claim is then tried on a small real pool,
//! as the daemon does it for a client.

use std::cell::RefCell;

use baton_pool::{Admission, EndpointKind, EndpointRef, Lend, Pool, PoolConfig, Proxy};
use baton_wire::classic::{Answer, ClientDecoder, Command, FromClient, ServerDecoder, client_hello};

/// The client whose bytes these are, and one that it sends to.
struct House {
    pool: Pool,
    me: EndpointRef,
    other: EndpointRef,
    proxy: Proxy,
}

thread_local! {
    static HOUSE: RefCell<House> = RefCell::new(House::new());
}

impl House {
    fn new() -> Self {
        let config = PoolConfig {
            payload_bytes: 256 << 10,
            largest_block: 16 << 10,
            endpoints: 4,
            inbox_slots: 4,
            ..PoolConfig::default()
        };
        let (pool, _) = Pool::create(&config).expect("a small pool");
        let who = |name: &str| Admission {
            pid: 1,
            start_time: 1,
            name: name.into(),
            inbox: None,
            kind: EndpointKind::Classic,
            quota_bytes: 0,
        };
        let me = pool.admit(&who("me")).expect("room");
        let other = pool.admit(&who("other")).expect("room");
        let proxy = pool.proxy(me).expect("just admitted");
        Self { pool, me, other, proxy }
    }

    /// The client is gone: nothing of it may stay.
    fn end(self) {
        drop(self.proxy);
        self.pool.reap(self.me).expect("admitted");
        self.pool.reap(self.other).expect("admitted");
        let report = self.pool.audit_once();
        assert!(report.ok && report.in_use == 0, "{report:?}");
    }

    fn obey(&mut self, command: &Command) -> Option<i64> {
        match command {
            Command::Alloc { size, .. } => {
                let block = self.proxy.alloc(*size as usize).ok()?;
                let offset = self.proxy.offset(block).expect("a block lies somewhere");
                assert!(offset + self.proxy.capacity(block).expect("a size") <= 256 << 10, "out of the pool");
                i64::try_from(offset).ok()
            }
            Command::Free { node } => {
                let block = self.proxy.block_at(u64::try_from(*node).ok()?)?;
                self.proxy.release(block).ok().map(|()| 0)
            }
            Command::PreSend { nodes, .. } => {
                for node in nodes {
                    let block = self.proxy.block_at(u64::try_from(*node).ok()?)?;
                    let _ = self.pool.lend(self.me, block, self.other, Lend::InFlight);
                }
                Some(1)
            }
            Command::Recv { bid, .. } => {
                let block = self.proxy.block_at(bid.unsigned_abs())?;
                let accepted = self.pool.accept_in_flight(self.other, block).is_ok();
                let dropped = self.pool.drop_in_flight(self.other, block).is_ok();
                (accepted || dropped).then_some(0)
            }
        }
    }
}

pub fn run(data: &[u8]) {
    let Some((&split, data)) = data.split_first() else { return };
    HOUSE.with_borrow_mut(|house| {
        let mut decoder = ClientDecoder::default();
        let mut answers = Vec::new();
        'stream: for piece in data.chunks(usize::from(split).max(1)) {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(FromClient::Request(request))) => {
                        let number = request.command.as_ref().ok().and_then(|command| house.obey(command));
                        match number {
                            Some(number) => Answer::number(request.ctx, number),
                            None => Answer::failed(request.ctx, "no"),
                        }
                        .encode(&mut answers);
                    }
                    Ok(Some(FromClient::Hello { .. })) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
        // What the daemon answers, a client understands; and any bytes from a daemon are judged, too.
        let mut client = ServerDecoder::default();
        client.push(data);
        while let Ok(Some(_)) = client.next() {}
        std::mem::replace(house, House::new()).end();
    });
}

pub fn seeds() -> Vec<Vec<u8>> {
    let commands = [
        Command::Alloc { size: 3000, align: 64 },
        Command::Alloc { size: 64, align: 8 },
        Command::PreSend { nodes: vec![0, 4096], to_pid: 4711 },
        Command::Recv { bid: 1, count: 2, from_pid: 4711 },
        Command::Free { node: 0 },
        Command::Free { node: i64::MIN },
    ];
    let stream = |commands: &[Command]| {
        let mut bytes = client_hello(4711).to_vec();
        for (ctx, command) in commands.iter().enumerate() {
            command.encode(ctx as u64, &mut bytes).expect("short");
        }
        bytes
    };
    let mut seeds: Vec<Vec<u8>> = commands
        .iter()
        .map(|command| [&[255][..], &stream(std::slice::from_ref(command))].concat())
        .collect();
    seeds.push([&[5][..], &stream(&commands)].concat());
    // n = 2^32 - 1 in a pre-send, and a length below the shortest.
    let mut huge = stream(&commands[2..3]);
    huge[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    seeds.push([&[255][..], &huge].concat());
    seeds.push([&[1][..], &client_hello(-1), &3i32.to_le_bytes()].concat());
    seeds
}
