"""A compiler process that compiles nothing: objects are JSON that say what shall come out."""

from __future__ import annotations

import hashlib
import os
import socket
import sys

import msgspec

from chamelio.bpf.object import MapDef
from chamelio.jit.layout import make_layout
from chamelio.jit.pool import Built
from chamelio.messages import Channel, Refusal, decode, memfd

cache: dict[str, Built] = {}


def json_seconds(content: bytes) -> float:
    """The processor time that an object says its compilation takes."""
    return float(msgspec.json.decode(content).get("cpu_seconds", 0.0))


def build(content: bytes, options: dict[str, object]) -> Built:
    about = msgspec.json.decode(content)
    if about.get("die"):
        os._exit(1)
    if about.get("reject"):
        raise Refusal("rejected", "rx: read past the packet", "check the length first", verdicts=[{"code": "V102"}])
    maps = [
        MapDef(name, kind, 4, value_size, 16, {"flags": 1}, None, None, None, False)
        for name, kind, value_size in about.get("maps", [["values", 1, 8]])
    ]
    layout = make_layout(maps, 5)
    key = hashlib.sha256(content + msgspec.json.encode(options)).hexdigest()
    types = about.get("types", ["u64"] * len(maps))
    image = {
        "key": key,
        "mode": "joint",
        "objects": [b""],
        "layout": layout,
        "cold": [10, 0, 0, 0],
        "warm": [5, 0, 0, 0],
        "protocol_sha": key,
        "seconds": {},
        "instructions": 1,
    }
    seconds = {"verify": 0.25, "compile": 0.5}
    sha = hashlib.sha256(content).hexdigest()
    return Built(key, sha, "joint", layout, types, [10, 0, 0, 0], [5, 0, 0, 0], 1, seconds, msgspec.msgpack.encode(image))


def main() -> None:
    channel = Channel(socket.socket(fileno=int(sys.argv[-1])))
    while (frame := channel.receive()) is not None:
        request = decode(frame.payload)
        reply: dict[str, object] = {"id": request["id"]}
        built = None
        try:
            if "key" in request:
                built = cache.get(request["key"])
                reply["found"] = built is not None
            else:
                content = os.pread(frame.fds[0], 1 << 20, 0)
                before = set(cache)
                reply["cpu_seconds"] = json_seconds(content)
                built = build(content, request["options"])
                reply["cached"] = reply["found"] = built.key in before
                if built.key in before:
                    reply["cpu_seconds"] = 0.0
                elif not request.get("compile", True):
                    reply["cpu_seconds"], built = 0.0, None
                if built is not None:
                    cache[built.key] = built
        except Refusal as error:
            reply["error"] = error.describe()
        for fd in frame.fds:
            os.close(fd)
        fds = [memfd("built", msgspec.msgpack.encode(built))] if built is not None else []
        channel.send(reply, fds)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
