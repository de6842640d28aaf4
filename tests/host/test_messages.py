"""Frames: however the bytes are cut, the same frames come out, each with its own descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chamelio.messages import AsyncChannel, Channel, FrameReader, Refusal, close_all, decode, encode


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(st.text(), st.integers(-(2**53), 2**53), max_size=4), max_size=5), st.data())
def test_a_stream_cut_anywhere_gives_the_same_messages(messages: list[dict[str, int]], data: st.DataObject) -> None:
    stream = b"".join(map(encode, messages))
    reader = FrameReader()
    got = []
    while stream:
        size = data.draw(st.integers(1, reader.want))
        frame = reader.feed(stream[:size])
        stream = stream[size:]
        if frame is not None:
            got.append(decode(frame.payload))
    assert got == messages and reader.idle


def test_a_reader_never_asks_for_bytes_of_the_next_frame() -> None:
    reader = FrameReader()
    first, second = encode({"a": 1}), encode({"b": 2})
    taken = 0
    while (frame := reader.feed((first + second)[taken : taken + reader.want])) is None:
        taken += 4
    assert decode(frame.payload) == {"a": 1}


def test_a_frame_above_the_limit_is_refused_by_its_length_alone() -> None:
    with pytest.raises(Refusal, match="2000 bytes"):
        FrameReader(1000).feed((2000).to_bytes(4, "big"))


def test_descriptors_arrive_with_their_own_frame(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    files = [os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in "abc"]
    sender, receiver = Channel(ours, timeout=1), Channel(theirs, timeout=1)
    sender.send({"n": 0})
    sender.send({"n": 1}, files[:2])
    sender.send({"n": 2})
    sender.send({"n": 3}, files[2:])
    counts = []
    for _ in range(4):
        frame = receiver.receive()
        assert frame is not None
        counts.append([Path(f"/proc/self/fd/{fd}").readlink().name for fd in frame.fds])
        close_all(frame.fds)
    assert counts == [[], ["a", "b"], [], ["c"]]
    close_all(files)
    sender.close()
    assert receiver.receive() is None
    receiver.close()


def test_more_descriptors_than_wanted_are_counted_as_such_and_closed() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        before = sum(1 for _ in Path("/proc/self/fd").iterdir())
        channel = AsyncChannel(theirs, max_fds=2)
        socket.send_fds(ours, [encode({})], [0] * 9)
        frame = await channel.receive()
        assert frame is not None and frame.truncated and len(frame.fds) == 2
        close_all(frame.fds)
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
        channel.close()
        ours.close()

    asyncio.run(run())


def test_closing_a_channel_wakes_whoever_reads_from_it() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        channel = AsyncChannel(theirs)
        reading = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        channel.close()
        assert await asyncio.wait_for(reading, 1) is None
        ours.close()

    asyncio.run(run())


def test_a_call_to_somebody_who_hangs_up_is_a_refusal() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with Channel(ours, timeout=1) as channel, pytest.raises(Refusal) as refusal:
        channel.call("ping")
    assert refusal.value.code == "gone"


def test_a_call_to_somebody_who_is_silent_ends_in_time() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Channel(ours, timeout=0.05) as channel, pytest.raises(Refusal) as refusal:
        channel.call("ping")
    assert refusal.value.code == "timeout"
