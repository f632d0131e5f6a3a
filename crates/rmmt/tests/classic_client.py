"""A classic client of the memory daemon, written from the protocol's description alone, with the standard library alone.

All integers are little-endian. Hello: the client sends i32 pid, the server a string (i32 length + bytes), the name of the
shared memory, and u32, its size in KiB. Then commands: i32 length, u64 ctx, i32 command, data; and answers: i32 length,
u64 ctx, i32 status, data. Status 0 is done; -1 and 1001 come with a string.

  1 alloc     u32 size, u32 align                   -> i64 node
  2 free      i64 node
  4 pre-send  u32 n, n x i64 node, i32 to_pid       -> i64 bid
  5 recv      i64 bid, u32 n, i32 from_pid

A node is the offset of the block from the start of the mapping.

usage: classic_client.py SCENARIO URI ...     (see the functions at the end)
"""

import mmap
import os
import socket
import struct
import sys

ALLOC, FREE, PRE_SEND, RECV = 1, 2, 4, 5


class Refused(Exception):
    def __init__(self, status, sentence):
        super().__init__(f"status {status}: {sentence}")
        self.status, self.sentence = status, sentence


class Client:
    def __init__(self, uri, pid=None):
        scheme, _, rest = uri.partition("://")
        if scheme == "un":
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(60)
            self.sock.connect(rest)
        else:
            host, _, port = rest.rpartition(":")
            self.sock = socket.create_connection((host, int(port)), timeout=60)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pid = os.getpid() if pid is None else pid
        self.ctx = 0
        self.sock.sendall(struct.pack("<i", self.pid))
        self.name = self.exactly(self.integer("<i")).decode()
        self.kib = self.integer("<I")

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError(f"the stream ended after {len(data)} of {count} bytes")
            data += piece
        return data

    def integer(self, form):
        return struct.unpack(form, self.exactly(struct.calcsize(form)))[0]

    def map(self):
        fd = os.open("/dev/shm" + self.name, os.O_RDWR)
        try:
            return mmap.mmap(fd, self.kib * 1024)
        finally:
            os.close(fd)

    def send(self, command, data):
        """Sends a command without waiting; its ctx."""
        self.ctx += 1
        body = struct.pack("<Qi", self.ctx, command) + data
        self.sock.sendall(struct.pack("<i", len(body)) + body)
        return self.ctx

    def answer(self):
        body = self.exactly(self.integer("<i"))
        ctx, status = struct.unpack_from("<Qi", body)
        return ctx, status, body[12:]

    def ask(self, command, data):
        sent = self.send(command, data)
        ctx, status, data = self.answer()
        if ctx != sent:
            sys.exit(f"sent command {sent}, got the answer to {ctx}")
        if status != 0:
            (length,) = struct.unpack_from("<i", data)
            if length != len(data) - 4:
                sys.exit(f"a string of {length} bytes in {data!r}")
            raise Refused(status, data[4:].decode())
        return data

    def alloc(self, size, align=0):
        return struct.unpack("<q", self.ask(ALLOC, struct.pack("<II", size, align)))[0]

    def free(self, node):
        if self.ask(FREE, struct.pack("<q", node)):
            sys.exit("an answer to free has no data")

    def pre_send(self, nodes, to_pid):
        data = struct.pack("<I", len(nodes)) + b"".join(struct.pack("<q", n) for n in nodes)
        return struct.unpack("<q", self.ask(PRE_SEND, data + struct.pack("<i", to_pid)))[0]

    def recv(self, bid, n, from_pid):
        if self.ask(RECV, struct.pack("<qIi", bid, n, from_pid)):
            sys.exit("an answer to recv has no data")


def refused(status, part, act):
    try:
        got = act()
    except Refused as error:
        if error.status != status or part not in error.sentence:
            sys.exit(f"refused with {error}, expected {status} and {part!r}")
    else:
        sys.exit(f"not refused ({part!r}): {got!r}")


def expect(got, expected):
    if got != expected:
        sys.exit(f"{got!r} instead of {expected!r}")


def session(uri, pid=None):
    """Everything the protocol has, over one address. Each refusal is followed by a command that works."""
    a = Client(uri, pid)
    memory = a.map()
    expect(len(memory), a.kib * 1024)
    for size, align in [(1, 0), (64, 64), (100, 4096), (5000, 4096), (1 << 20, 1)]:
        node = a.alloc(size, align)
        expect(node % max(align, 64), 0)
        memory[node : node + size] = bytes([size % 251]) * size
        expect(memory[node + size - 1], size % 251)
        a.free(node)
        refused(-1, "holds no block", lambda: a.free(node))
    # Two connections of one pid share what they hold.
    b = Client(uri, pid)
    expect((b.name, b.kib), (a.name, a.kib))
    node = a.alloc(64)
    b.free(node)
    refused(-1, "holds no block", lambda: a.free(node))
    # A transfer to oneself: two references, one each way, and duplicates count.
    node = a.alloc(64)
    bid = b.pre_send([node, node], b.pid)
    a.free(node)
    refused(-1, "holds no block", lambda: a.free(node))  # what is in flight is not held
    refused(-1, "2 blocks, not 1", lambda: a.recv(bid, 1, a.pid))
    refused(-1, "comes from pid", lambda: a.recv(bid, 2, a.pid + 1))
    refused(-1, "no transfer", lambda: a.recv(bid + 1, 2, a.pid))
    a.recv(bid, 2, a.pid)
    refused(-1, "no transfer", lambda: a.recv(bid, 2, a.pid))
    a.free(node)
    a.free(node)
    refused(-1, "holds no block", lambda: a.free(node))
    # What is refused.
    refused(-1, "0 bytes", lambda: a.alloc(0))
    refused(-1, "largest block", lambda: a.alloc(0xFFFFFFFF))
    for align in [3, 8192, 0x80000000]:
        refused(-1, "alignment", lambda: a.alloc(64, align))
    for command in [0, 3, 6, -1]:
        refused(1001, "invalid command id!", lambda: a.ask(command, b""))
    for node in [-1, -(2**63), 2**63 - 1, 1]:
        refused(-1, "holds no block", lambda: a.free(node))
        refused(-1, "holds no block", lambda: a.pre_send([node], a.pid))
    refused(-1, "no block", lambda: a.pre_send([], a.pid))
    node = a.alloc(64)
    for pid in [0, -1, 2**31 - 1, 4194304]:
        refused(-1, "no client has pid", lambda: a.pre_send([node], pid))
    # Exhausted, and usable again.
    held = []
    try:
        while True:
            held.append(a.alloc(1 << 20))
    except Refused as error:
        expect((error.status, error.sentence), (-1, "memory allocate failed!"))
    if not held:
        sys.exit("not one block")
    expect(len(set(held)), len(held))
    for node in held:
        b.free(node)
    a.free(a.alloc(1 << 20))
    # Many commands without waiting; the answers say which they belong to.
    asked = {a.send(ALLOC, struct.pack("<II", 64, 0)) for _ in range(1000)}
    nodes = {}
    for _ in range(1000):
        ctx, status, data = a.answer()
        expect(status, 0)
        nodes[ctx] = struct.unpack("<q", data)[0]
    expect((set(nodes), len(set(nodes.values()))), (asked, 1000))
    print("ok")


def hold(uri, pid=None):
    """Takes three blocks and waits to be killed."""
    a = Client(uri, pid)
    for _ in range(3):
        a.alloc(4096)
    print("holding", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    scenario, uri, *rest = sys.argv[1:]
    globals()[scenario](uri, *map(int, rest))
