"""The fast path under sanitizers: traps in the engine's own tests, and a process of its own under ASan and UBSan, attacked."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.jit.layout import DATA, RING_IN, TIMER, TX, Layout, make_layout

HERE = Path(__file__).parent
HOSTILE = HERE / "hostile"
HANDLERS = HERE.parent / "handlers"
PROTOCOLS = {
    "naughty": HANDLERS / "naughty.bpf.c",
    "udp": toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c",
    "toolbox": HANDLERS / "toolbox.bpf.c",
    "pools": HANDLERS / "pools.bpf.c",
}
SMALL_NUMBERS = "".join(f"\\{n}" for n in range(8))
# what the first byte of a datagram, and the first of a ring's entry, can tell a handler
ORDERS = {
    "naughty": ("evxpslqdgrtah", SMALL_NUMBERS),
    "udp": ("e", SMALL_NUMBERS),
    "toolbox": ("encCwo", "rhsxpEzZ"),
    "pools": ("e", "oooccswfFS"),
}
CONTEXTS = 4
# the time stamp counter under the name that gcc knows
GCC = ("gcc", "-std=gnu11", "-D__builtin_readcyclecounter=__builtin_ia32_rdtsc")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
ROUNDS = 10_000


@pytest.mark.fault(4)
@pytest.mark.fault(23)
def test_no_undefined_behaviour_in_what_fates_and_hostile_rings_exercise() -> None:
    tests = [str(HERE / name) for name in ("test_fates.py", "test_hostile_rings.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "CHAMELIO_SANITIZE": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"a trap shows as signal 4:\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"


# ---- the attacked process ------------------------------------------------------------------------------------------------


def _bytes(symbol: str, content: bytes) -> str:
    values = ",".join(map(str, content))
    return f"const unsigned char {symbol}[] __attribute__((aligned(64))) = {{{values}}};\n"


def glue(protocol: str, layout: Layout, hooks: set[str], *, hardening: bool) -> dict[str, str]:
    """What the joint compiler makes in IR, in C: the maps' descriptors, the build's constants, the way to the handlers."""
    feeds = {"ring": RING_IN, "tx": TX, "timer": TIMER}
    kinds = {m.kind for m in layout.maps}
    live = {h for h in hooks if h not in feeds or feeds[h] in kinds}
    source = '#include "protocol.h"\n#include "core.h"\n'
    source += f"const u32 cham_cfg_virtual = 1, cham_cfg_hardening = {int(hardening)}, cham_cfg_policy = 0;\n"
    for hook in ("rx", "ring", "tx", "timer"):
        source += f"const u32 cham_has_{hook} = {int(hook in live)};\nu64 cham_native_{hook}(struct chamelio_ctx *);\n"
        body = f"check_turn(turn); return cham_native_{hook}(&turn->ctx);" if hook in live else "(void)turn; return 0;"
        source += f"u64 cham_handler_{hook}(struct cham_turn *turn) {{ {body} }}\n"
    for hook, kind in feeds.items():
        fed = [m for m in layout.maps if m.kind == kind]
        source += _bytes(f"cham_feed_{hook}", fed[0].descriptor() if fed else bytes(64))
    for m in layout.maps:
        if m.kind != DATA:
            source += _bytes(f"cham_map_{m.name}", m.descriptor())
    source += _bytes("protocol_descriptors", b"".join(m.descriptor() for m in layout.maps))
    header = f"""#define PRIVATE_BYTES {layout.private_bytes}ul
#define REGION_BYTES {layout.region_bytes()}u
#define RAW_RINGS {layout.punt}u
#define N_MAPS {len(layout.maps)}u
#define CONTEXTS {layout.contexts}u
#define IP_PROTOCOL 17
#define ADDRESS 0x0100000au /* 10.0.0.1 in packet byte order */
#define PEER 0x0900000au
#define RX_ORDERS "{ORDERS[protocol][0]}"
#define RING_ORDERS "{ORDERS[protocol][1]}"
struct cham_turn;
void check_turn(const struct cham_turn *turn);
extern const unsigned char protocol_descriptors[];
#define protocol_maps ((const struct cham_map *)protocol_descriptors)
"""
    return {"protocol.c": source, "protocol.h": header}


def build(directory: Path, protocol: str, command: tuple[str, ...], *, hardening: bool = True) -> Path:
    """The fast path, a protocol compiled natively, and the driver, as one program."""
    source = PROTOCOLS[protocol]
    obj = load_object(toolchain.bpf_object(source))
    layout = make_layout(obj.maps, CONTEXTS)
    for name, text in glue(
        protocol, layout, {p.section.removeprefix("chamelio/") for p in obj.programs}, hardening=hardening
    ).items():
        (directory / name).write_text(text)
    fastpath = [p for p in sorted(toolchain.FASTPATH.glob("*.c")) if p.name != "abi.c"]
    includes = [f"-I{d}" for d in (directory, HOSTILE, toolchain.FASTPATH, toolchain.INCLUDE, source.parent)]
    native = directory / "native.o"
    program = directory / "driver"
    for arguments in (
        ["-DCHAM_NATIVE", "-Wno-attributes", "-c", str(source), "-o", str(native)],
        ["-include", str(HOSTILE / "frames.h"), *map(str, fastpath), str(HOSTILE / "driver.c"), str(directory / "protocol.c"),
         str(native), "-pthread", "-o", str(program)],
    ):  # fmt: skip
        done = subprocess.run([*command, *includes, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return program


@functools.cache
def missing_sanitizers() -> str:
    """Why there is no ASan here; empty: there is one, and it finds what it should."""
    if not shutil.which("gcc"):
        return "there is no gcc on the PATH"
    with tempfile.TemporaryDirectory() as directory:
        probe = Path(directory) / "probe.c"
        probe.write_text(
            "#include <stdlib.h>\nint main(int n, char **v) { char *volatile p = malloc(8); (void)v; return p[8 * n]; }\n"
        )
        built = subprocess.run([*GCC, *SANITIZERS, str(probe), "-o", f"{directory}/probe"], capture_output=True, check=False)
        if built.returncode:
            return f"gcc cannot link ASan and UBSan: {built.stderr.decode().strip().splitlines()[-1]}"
        ran = subprocess.run([f"{directory}/probe"], capture_output=True, check=False)
        if b"heap-buffer-overflow" not in ran.stderr:
            return "ASan does not run here"
    return ""


def cached_program(protocol: str, kind: str, command: tuple[str, ...]) -> Path:
    """A built driver, by the content of everything that goes into it."""
    digest = hashlib.sha256(repr((kind, command, CONTEXTS, Path(__file__).read_bytes())).encode())
    for directory in (toolchain.FASTPATH, toolchain.INCLUDE, HOSTILE, PROTOCOLS[protocol].parent):
        for path in sorted(directory.glob("*.[ch]")):
            digest.update(path.read_bytes())
    path = toolchain.cache_dir() / "hostile" / f"{protocol}-{kind}-{digest.hexdigest()[:24]}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            build(Path(directory), protocol, command).replace(path)
    return path


@pytest.fixture(scope="session", params=list(PROTOCOLS))
def sanitized(request: Any) -> Path:
    """The program under ASan and UBSan."""
    if missing_sanitizers():
        pytest.skip(missing_sanitizers())
    return cached_program(request.param, "asan", (*GCC, *SANITIZERS))


def attack(program: Path, how: str, seed: int, rounds: int = ROUNDS) -> dict[str, int]:
    done = subprocess.run([str(program), how, str(seed), str(rounds)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{how} {seed} {rounds}: {done.stderr[:6000]}"
    return dict(json.loads(done.stdout))


def reached(*reports: dict[str, int]) -> bool:
    """The attack got everywhere: a fuzzer that stops at the first check proves nothing."""
    parts = ("received", "handled", "transmitted", "injected", "entries", "damaged", "attachments", "arp", "icmp", "punted")
    return all(sum(report[part] for report in reports) for part in parts)


@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(6)
@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_frames_rings_and_indices_are_clean_under_asan_and_ubsan(sanitized: Path, seed: int) -> None:
    assert reached(attack(sanitized, "random", seed))


def test_two_cores_that_take_turns_are_clean_under_asan_and_ubsan(sanitized: Path) -> None:
    report = attack(sanitized, "cores", 4)
    assert reached(report) and report["handed_over"]


@pytest.mark.fault(5)
def test_memory_that_changes_while_it_is_read_is_clean_under_asan_and_ubsan(sanitized: Path) -> None:
    assert attack(sanitized, "flip", 3)["damaged"] > 0


@pytest.mark.fault(23)
def test_frames_that_end_with_the_memory_are_never_read_beyond() -> None:
    """For any compiler: each frame lies at the end of a page, the next page cannot be touched."""
    zig = ("-fsanitize=undefined", "-fsanitize-trap=undefined", "-fno-sanitize=alignment")
    program = cached_program("naughty", "guard", (*toolchain.compiler(), "-std=gnu11", "-O1", "-g", *zig))
    report = attack(program, "guard", 5, 60_000)
    assert report["handled"] and report["arp"] and report["icmp"]


@pytest.mark.long
@pytest.mark.fault(4)
@pytest.mark.fault(5)
@pytest.mark.parametrize("seed", range(10, 30))
def test_long_attacks_are_clean_under_asan_and_ubsan(sanitized: Path, seed: int) -> None:
    assert reached(attack(sanitized, "random", seed, 100_000))
    attack(sanitized, "flip", seed, 100_000)
    assert reached(attack(sanitized, "cores", seed, 100_000))
