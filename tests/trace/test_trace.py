"""A trace says what the engine does: the same checks, the same packets, within the proven cost. What is no input is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.bpf.object import Object, load_object
from chamelio.cli import main
from chamelio.engine.catalogue import drops
from chamelio.engine.ports.pcap import block, file_header, packet_block
from chamelio.tenant.folder import new_folder, read_object
from chamelio.trace import Scene, Start, Trace, trace
from chamelio.trace.packets import check_input, check_output, drop_texts, read_pcapng
from chamelio.trace.values import parse, show
from chamelio.verify import verify_program
from engine.test_fates import GOOD, HANDLER_SAYS, MALFORMED
from virtual import HANDLERS, PEER_MAC, Net, Tenant, ipv4, udp

A, B = "10.0.0.1", "10.0.0.2"


def handlers(name: str) -> Object:
    return load_object(toolchain.bpf_object(HANDLERS / f"{name}.bpf.c"), name)


def run(obj: Object, start: Start, scene: Scene | None = None) -> Trace:
    program = next(p for p in obj.programs if p.section == f"chamelio/{start.hook}")
    done = trace(obj, program, scene or Scene(obj), start)
    verdict = verify_program(obj, program)
    assert verdict.verdict == "accept" and done.cycles <= verdict.cost_warm
    return done


# ---- held against the engine --------------------------------------------------------------------------------------------


# A trace knows neither the provider's own protocols nor other tenants, and no routes.
INPUT = [m for m in MALFORMED if m[3] not in ("not_our_mac", "icmp_ignored", "arp_malformed") and m[0].split()[0] != "ARP"]
INPUT = [m for m in INPUT if m[0] != "source is another tenant's"]
OUTPUT = [h for h in HANDLER_SAYS if h[3] != "tx_no_route"]


@pytest.mark.parametrize(("what", "how", "where", "reason"), INPUT, ids=[m[0] for m in INPUT])
def test_the_checks_of_input_are_those_of_the_engine(what: str, how: dict[str, Any], where: str, reason: str) -> None:
    ethernet = bytes(12) + how.get("ethertype", 0x0800).to_bytes(2, "big")
    checks = check_input(ethernet, how["packet"], A, 17, (0, 65535))
    assert [c.drop for c in checks if c.drop] == [reason] and checks[-1].drop == reason
    assert all(c.drop is None for c in check_input(None, GOOD, A, 17, (0, 65535)))


@pytest.mark.parametrize(("what", "order", "argument", "reason"), OUTPUT, ids=[h[0] for h in OUTPUT])
def test_what_the_engine_makes_of_a_verdict_is_said(what: str, order: str, argument: int, reason: str) -> None:
    packet = udp(Net.PEER, A, order.encode() + bytes(3) + argument.to_bytes(4, "little"))
    done = run(handlers("naughty"), Start("rx", packet))
    if done.verdict == "transmit":
        assert done.packet is not None
        assert check_output(done.packet, A, 17).drop == reason
    else:
        assert reason in done.verdict_text


@pytest.mark.parametrize(("order", "argument"), [("e", 0), ("e", 1), ("e", 2), ("e", 3), ("n", 0), ("c", 26), ("o", 0), ("?", 0)])
def test_packets_that_leave_are_those_that_the_engine_sends(order: str, argument: int) -> None:
    packet = udp(Net.PEER, A, order.encode() + bytes(3) + argument.to_bytes(4, "little"))
    with Net() as net:
        tenant = Tenant(net.host, A, handlers="toolbox")
        results = tenant.ring("results", 0)
        net.run()
        net.send(packet)
        sent, told = net.run(), results.take()
    done = run(handlers("toolbox"), Start("rx", packet))
    leaves = [*done.emitted, *([done.packet] if done.verdict == "transmit" and done.packet else [])]
    if order == "c":  # the provider completes it
        sent, leaves = ([p[:26] + p[28:] for p in packets] for packets in (sent, leaves))
    assert leaves == sent
    assert [p["bytes"][:16] for p in done.pushed] == [
        b"".join((r[0].to_bytes(4, "little"), r[1].to_bytes(4, "little"), r[2].to_bytes(8, "little"))) for r in told
    ]


def test_pools_give_what_the_engine_gives() -> None:
    dice = random.Random(5)
    orders = [
        (dice.choice("oocsfFSw"), dice.choice([0, 1, 2, 63, 64]), dice.choice([0, 1, 64, 100, 1000, 1024, 1025, 40, 7]))
        for _ in range(120)
    ]
    keeps = [dice.choice([0, 0, 16, 40, 64, 1000, 5 << 32 | 30]) for _ in orders]
    with Net() as net:
        tenant = Tenant(net.host, A, handlers="pools")
        asks, results = tenant.ring("orders", 0), tenant.ring("results", 0)
        net.run()
        expected = []
        for (what, id_, size), keep in zip(orders, keeps, strict=True):
            asks.put(ord(what), id_, size, keep)
            net.run(20_000)
            expected += [r[2] for r in results.take()]
    obj = handlers("pools")
    scene, told = Scene(obj), []
    for (what, id_, size), keep in zip(orders, keeps, strict=True):
        entry = b"".join(
            (ord(what).to_bytes(4, "little"), id_.to_bytes(4, "little"), size.to_bytes(8, "little"), keep.to_bytes(8, "little"))
        )
        told += [int.from_bytes(p["bytes"][8:16], "little") for p in run(obj, Start("ring", entry=entry), scene).pushed]
    assert told == expected and len(set(told)) > 4


def test_the_reasons_that_are_named_are_in_the_catalogue() -> None:
    assert drop_texts() == {d.name: d.text for d in drops()}


# ---- what is recorded ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder("hello", tmp_path)


def hello(kind: int, context: int = 0, sequence: int = 0) -> bytes:
    words = b"".join(n.to_bytes(4, "little") for n in (kind, context, sequence, 0))
    return ipv4(B, A, words + (1000).to_bytes(8, "little"), 253)


def load(folder: Path) -> Object:
    return load_object(read_object(folder / "hello.bpf.c"), "hello")


def texts(done: Trace, kind: str) -> list[str]:
    return [e.text for line in done.lines for e in line.events if e.kind == kind]


def test_a_request_is_turned_round_and_counted(folder: Path) -> None:
    obj = load(folder)
    scene = Scene(obj)
    done = run(obj, Start("rx", hello(0)), scene)
    assert done.verdict == "transmit"
    assert texts(done, "call") == ["cham_lookup(totals, key 0) -> hit, totals[0] = {answered: 0, ignored: 0, muted: 0}"]
    assert "totals[0].answered := 1 (was 0)" in texts(done, "write")
    assert "packet[12:16] (src) := 10.0.0.1 (was 10.0.0.2)" in texts(done, "write")
    assert "0 == 0: yes (totals[0].muted)" in texts(done, "branch")
    again = run(obj, Start("rx", hello(0)), scene)  # maps last
    assert "totals[0].answered := 2 (was 1)" in texts(again, "write")


def test_a_reply_is_pushed_with_the_fields_of_its_type(folder: Path) -> None:
    done = run(load(folder), Start("rx", hello(1, 3, 7), now=5000))
    assert done.verdict == "done" and [(p["ring"], p["context"]) for p in done.pushed] == [("replies", 3)]
    assert done.pushed[0]["entry"] == "{from: 10.0.0.2, sequence: 7, took: 4000}"
    nobody = run(load(folder), Start("rx", hello(1, 99)))
    assert nobody.verdict == "error" and "reason 4" in nobody.verdict_text
    assert texts(nobody, "call")[-1].endswith("-> -EINVAL (no such context, or its ring is damaged)")


def test_an_id_that_is_due_goes_on_from_when_it_was_due() -> None:
    done = run(handlers("toolbox"), Start("tx", id=5))
    assert [(d["map"], d["id"], d["in_ns"]) for d in done.due] == [("paced", 5, 100_000)]


def test_every_cycle_belongs_to_a_line(folder: Path) -> None:
    done = run(load(folder), Start("rx", hello(0)))
    assert sum(line.cycles for line in done.lines) == done.cycles > 0
    assert all(line.file in ("hello.bpf.c", "chamelio.h") and line.line for line in done.lines)


def test_a_handler_that_does_what_none_may_do_ends_in_a_fault_at_its_line(tmp_path: Path) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text('#include "chamelio.h"\nCHAM_HANDLER(rx)\n{\n    u8 *p = ctx->data;\n    return p[40];\n}\n')
    obj = load_object(read_object(source), "bad")
    done = trace(obj, obj.programs[0], Scene(obj), Start("rx", bytes(20)))
    assert done.verdict == "fault" and "where nothing is mapped" in done.verdict_text
    assert done.lines[-1].line == 5


# ---- values -------------------------------------------------------------------------------------------------------------


def test_values_are_read_and_shown_by_their_types() -> None:
    obj = load_object(toolchain.bpf_object(toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"))
    types = Scene(obj).types
    index, key, value = types.state("table[address=10.0.0.9,port=7,local_port=9]=socket=3")
    assert (obj.maps[index].name, key.hex(), value.hex()) == ("table", "0a00000900070009", "03000000")
    assert show(key, types.keys[index]) == "{address: 10.0.0.9, port: 7 (big-endian), local_port: 9 (big-endian)}"
    assert parse("hex:0a00000900070009", types.keys[index], 8, "") == key
    states = types.index("states")
    assert parse("", types.values[states], 4, "") == parse("connected=0", types.values[states], 4, "") == bytes(4)


# ---- captures -----------------------------------------------------------------------------------------------------------


def capture(packets: list[bytes]) -> bytes:
    return file_header("w0", 65535) + b"".join(packet_block(1000 + i, 1, len(p), p) for i, p in enumerate(packets))


def test_packets_of_a_capture_are_found_by_number() -> None:
    frames = [PEER_MAC + PEER_MAC + b"\x08\x00" + hello(0, sequence=i) for i in range(3)]
    data = capture(frames) + block(5, bytes(12))
    assert read_pcapng(data, "x") == [(1, f) for f in frames]
    assert len(read_pcapng(data[: len(data) - 40], "x")) == 2, "what was cut off is left out"


# ---- the command --------------------------------------------------------------------------------------------------------


Cham = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cham(capsys: pytest.CaptureFixture[str], folder: Path) -> Cham:
    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["trace", str(folder), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_command_tells_the_story_of_a_packet(cham: Cham, tmp_path: Path) -> None:
    file = tmp_path / "w.pcapng"
    file.write_bytes(capture([PEER_MAC * 2 + b"\x08\x06" + bytes(28), PEER_MAC * 2 + b"\x08\x00" + hello(0)]))
    code, _, err = cham("--packet", str(file))
    assert code == 2 and "packet 1 is ARP" in err and "IPv4 packets of" in err
    code, out, _ = cham("--packet", f"{file}:2", "--map-state", "totals[0]=muted=1,ignored=4", "--address", A)
    assert code == 0
    for words in (
        "IPv4 10.0.0.2 -> 10.0.0.1, protocol 253",
        "demux IP protocol 253",
        "totals[0].ignored := 5 (was 4)",
        "verdict   finished with the packet",
        "the proven bound is",
    ):
        assert words in out


def test_the_command_in_json(cham: Cham) -> None:
    code, out, _ = cham("--packet", hello(7).hex(), "-o", "json")
    about = json.loads(out)
    assert code == 0 and about["verdict"] == "error" and about["result"] == 3 | 3 << 8
    assert about["cycles"] <= about["bound_warm"] <= about["bound_cold"] and about["accepted"]
    assert all(c["drop"] is None for c in about["checks"])


def test_a_packet_that_the_provider_would_drop_is_said_to_be_dropped(cham: Cham) -> None:
    _, out, _ = cham("--packet", ipv4(B, A, bytes(24), 253, checksum=1).hex())
    assert "the packet ends here as bad_ip_checksum" in out and "runs all the same" in out


def test_a_ring_entry_is_given_by_its_fields(cham: Cham) -> None:
    code, out, _ = cham("--entry", "from=10.0.0.1,to=10.0.0.2,sequence=9", "--id", "3", "--address", A)
    assert code == 0 and "sends     IPv4 10.0.0.1 -> 10.0.0.2" in out and "entry.sequence = 9" in out
    _, out, _ = cham("--entry", "from=10.9.9.9,to=10.0.0.2", "--address", A)
    assert "tx_spoofed_source" in out


def test_a_refused_handler_is_run_and_said_to_be_refused(cham: Cham, folder: Path) -> None:
    source = folder / "hello.bpf.c"
    source.write_text(source.read_text().replace("    if (!t)\n        return CHAM_DONE;\n", ""))
    code, out, _ = cham("--packet", hello(0).hex())
    assert code == 3 and "error[V108]" in out and "there is no proven bound" in out and "verdict   transmit" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to trace"),
        (["--packet", "zz"], "No such file"),
        (["--packet", "450"], "half a byte"),
        (["--packet", "00" * 2100], "the engine's longest"),
        (["--packet", "none.pcapng:3"], "No such file"),
        (["--packet", f"{__file__}:1"], "not a pcapng file"),
        (["--hook", "tx"], "no handler for tx"),
        (["--hook", "ring"], "starts with an entry"),
        (["--hook", "ring", "--packet", "45", "--entry", "0"], "starts without a packet"),
        (["--hook", "rx"], "starts with a packet"),
        (["--entry", "from=1.2.3.400"], "not an address"),
        (["--entry", "nobody=1"], "no field 'nobody'"),
        (["--entry", "hex:00"], "16 are needed"),
        (["--entry", "sequence=99999999999"], "does not fit"),
        (["--packet", "45", "--map-state", "totals"], "not NAME[KEY]=VALUE"),
        (["--packet", "45", "--map-state", "total[0]=muted=1"], "no map 'total'"),
        (["--packet", "45", "--map-state", "totals[9]=muted=1"], "no place for this key"),
        (["--packet", "45", "--map-state", "replies[0]=sequence=1"], "kind ring_out"),
    ],
)
def test_what_is_no_input_is_refused_with_the_reason(cham: Cham, words: list[str], message: str) -> None:
    code, out, err = cham(*words)
    assert code == 2 and message in err and not out
    assert "Traceback" not in err
