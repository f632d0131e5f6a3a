"""A client written from the protocol's description alone, with the standard library alone.

Wire protocol: u32 little-endian length + JSON body. Request {"in": "ping", "params": X}; response
{"out": "pong", "result": X}. A connection carries many requests one after the other; end of stream at a frame
boundary closes it quietly.

usage: ping_client.py ip://HOST:PORT | un://PATH
"""

import json
import socket
import struct
import sys


def connect(uri):
    scheme, _, rest = uri.partition("://")
    if scheme == "un":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(30)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def frame(params):
    body = json.dumps({"in": "ping", "params": params}).encode()
    return struct.pack("<I", len(body)) + body


def exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError(f"the stream ended after {len(data)} of {count} bytes")
        data += piece
    return data


def receive(sock):
    (length,) = struct.unpack("<I", exactly(sock, 4))
    return json.loads(exactly(sock, length))


def expect(sock, params):
    answer = receive(sock)
    if answer != {"out": "pong", "result": params}:
        sys.exit(f"sent {params!r}, got {answer!r}")


def main():
    values = [None, True, 0, -1, 2**53 + 1, 10**30, 1.5, "", "\u4ea4\u901a", "\U0001f697", [], {"a": [1, {"b": None}]}, "x" * 300000]
    sock = connect(sys.argv[1])
    for value in values:  # one after the other
        sock.sendall(frame(value))
        expect(sock, value)
    for value in values[:-1]:  # in pieces that fit no boundary
        data = frame(value)
        for start in range(0, len(data), 3):
            sock.sendall(data[start : start + 3])
        expect(sock, value)
    sock.sendall(b"".join(frame(n) for n in range(200)))  # without waiting
    for n in range(200):
        expect(sock, n)
    sock.shutdown(socket.SHUT_WR)  # the end, at a frame boundary
    if sock.recv(1) != b"":
        sys.exit("something came after the end")
    print("ok", 2 * len(values) - 1 + 200)


main()
