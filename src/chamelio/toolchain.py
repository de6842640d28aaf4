"""C on demand: finds a clang, compiles to bitcode, BPF objects or shared libraries, and caches results by content.

A compiler is clang from the PATH or the `ziglang` package. Results lie in a cache directory, `build/` of a checkout
or `$XDG_CACHE_HOME/chamelio`, under a name that hashes the sources, every header beside them and the command line; so a
second run compiles nothing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INCLUDE = PACKAGE / "include"
FASTPATH = PACKAGE / "fastpath"

_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_HOST = ("-target", "x86_64-linux-gnu", "-std=gnu11", "-fno-strict-aliasing", "-fomit-frame-pointer", *_WARNINGS)


class BuildError(Exception):
    """A C file does not compile, or there is no compiler. The message carries the compiler's own words."""


@functools.cache
def cache_dir() -> Path:
    """Where compiled things are kept: `$CHAMELIO_CACHE`, `build/` of a checkout, or the user's cache directory."""
    chosen = os.environ.get("CHAMELIO_CACHE")
    checkout = PACKAGE.parent.parent
    if chosen:
        path = Path(chosen)
    elif (checkout / "pyproject.toml").exists():
        path = checkout / "build"
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "chamelio"
    path.mkdir(parents=True, exist_ok=True)
    return path


def cached(kind: str, key: Sequence[str | bytes], make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` returns for this key, from the cache when they are there. Writers race harmlessly."""
    digest = hashlib.sha256()
    for part in key:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    path = cache_dir() / kind / digest.hexdigest()[:40]
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    data = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
        f.write(data)
    Path(f.name).replace(path)
    return data


@functools.cache
def compiler() -> tuple[str, ...]:
    """The command that compiles C: clang from the PATH (`$CHAMELIO_CC` overrides), else the ziglang package."""
    chosen = os.environ.get("CHAMELIO_CC")
    if chosen:
        return tuple(chosen.split())
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc")
    clang = shutil.which("clang")
    if clang:
        return (clang,)
    raise BuildError("no C compiler: install the build extra (`pip install 'chamelio[build]'`) or put clang on the PATH")


def _headers_digest(directories: Sequence[Path]) -> bytes:
    digest = hashlib.sha256()
    for directory in directories:
        for header in sorted(directory.glob("*.h")):
            digest.update(header.name.encode() + b"\0" + header.read_bytes())
    return digest.digest()


def _compile(kind: str, sources: Sequence[Path], flags: Sequence[str], includes: Sequence[Path]) -> bytes:
    directories = [*includes, *{source.resolve().parent for source in sources}]
    command = [*compiler(), *flags, *(f"-I{directory}" for directory in includes)]
    key: list[str | bytes] = [" ".join([*compiler(), *flags]), _headers_digest(directories)]
    for source in sources:
        key += [source.name, source.read_bytes()]

    def run() -> bytes:
        environment = dict(os.environ)
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir() / "zig"))
        environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache_dir() / "zig"))
        with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
            output = Path(scratch) / "output"
            done = subprocess.run(
                [*command, *map(str, sources), "-o", str(output)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != 0 or not output.exists():
                names = ", ".join(source.name for source in sources)
                raise BuildError(f"{names} does not compile:\n{done.stderr.strip()}")
            return output.read_bytes()

    return cached(kind, key, run)


def _is_zig() -> bool:
    return "ziglang" in compiler() or compiler()[0].endswith("zig")


def sanitizing() -> bool:
    """Whether the fast path is compiled to trap on undefined behaviour: `$CHAMELIO_SANITIZE`, for tests."""
    return bool(os.environ.get("CHAMELIO_SANITIZE"))


def bitcode(source: Path, *, defines: Sequence[str] = (), includes: Sequence[Path] = (FASTPATH, INCLUDE)) -> bytes:
    """Host LLVM bitcode of one C file, optimised a first time at -O2. Raises BuildError."""
    flags: tuple[str, ...] = (*_HOST, "-O2", "-g0", "-fno-stack-protector", *(f"-D{d}" for d in defines), "-emit-llvm", "-c")
    if sanitizing():
        flags = (*flags, "-fsanitize=undefined", "-fsanitize-trap=undefined")
    elif _is_zig():
        flags = (*flags, "-fno-sanitize=all")
    return _compile("bitcode", [source], flags, includes)


def bpf_object(source: Path, *, cpu: str = "v4", optimise: str = "-O2", defines: Sequence[str] = ()) -> bytes:
    """A BPF object with BTF and line information, as `chamelio protocol build` makes it. Raises BuildError."""
    target = "bpfel-freestanding" if _is_zig() else "bpfel"
    # no jump tables: this clang makes indirect jumps of them, which RFC 9669 does not have
    flags: tuple[str, ...] = ("-target", target, f"-mcpu={cpu}", optimise, "-g", "-fno-jump-tables", *_WARNINGS)
    flags = (*flags, *(f"-D{d}" for d in defines), "-c")
    return _compile("bpf", [source], flags, [INCLUDE])


def shared_library(sources: Sequence[Path], *, flags: Sequence[str] = (), includes: Sequence[Path] = (FASTPATH, INCLUDE)) -> bytes:
    """A shared library for this host from C files. Raises BuildError."""
    return _compile("shared", sources, (*_HOST, "-O2", "-fPIC", "-shared", *flags), includes)


def executable(sources: Sequence[Path], *, flags: Sequence[str] = (), includes: Sequence[Path] = (FASTPATH, INCLUDE)) -> bytes:
    """A program for this host from C files. Raises BuildError."""
    return _compile("program", sources, (*_HOST, "-O2", *flags), includes)
