"""Migrating to a version whose maps differ: what a tenant's new agent does before it serves.

    # protocol.toml
    migrate = "migrate:migrate"        # module:function in the folder

    def migrate(m: Migration) -> None:
        m.copy("conns")                                    # fields of the same name, as many rows as both have
        new, old = m.new("conns"), m.old("conns")          # NumPy arrays: writable, read-only
        new["cwnd"] = old["window"] * 1448
        for row in np.flatnonzero(old["open"]):            # what is keyed or timed: by the new version's own ring hook
            m.request(OPEN, int(row), int(old["peer"][row]))

While it runs the old version is paused: packets wait in its backlog (256 for each core), more are dropped and counted; there is a
time limit. **Carried over without doing anything**: every array, hash, bytes, tx and timer map that is the same in both versions,
private or shared, with keys, deadlines and contents. **What `migrate` can carry over**: shared values and byte buffers of maps that
differ, and whatever the ring hook can build from them. **What cannot be carried over**: private values of maps that differ (nobody
but the old handlers can read them), entries that are in rings, packets that the slow path was given and has not answered, global
variables, and applications' contexts: applications are disconnected and connect again. An exception leaves the old version running.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from chamelio.bpf.object import load_object
from chamelio.jit.layout import BYTES, RING_IN, Layout
from chamelio.messages import Refusal
from chamelio.tenant.folder import Manifest
from chamelio.tenant.region import Array, Region, value_types

PATIENCE_S = 1.0  # for the engine to take an entry
_TOKEN = re.compile(
    r"(?P<name>\w+):|(?P<open>\{)|(?P<close>\}(?P<size>\d+))|\[(?P<n>\d+)\]|@(?P<at>\d+)|\([^)]*\)| |(?P<scalar>[<>|=]\w+)"
)


def type_of_text(text: str) -> np.dtype[Any]:
    """The dtype that the compiler has spelled out, e.g. `{seq:<u4@0 owner:<u8[2]@8(slow)}24`. Raises ValueError."""
    found, end = _parse(text, 0)
    if end != len(text):
        raise ValueError(f"{text[end:]!r} does not belong to a type")
    return found


def _parse(text: str, at: int) -> tuple[np.dtype[Any], int]:
    token = _token(text, at)
    at = token.end()
    if token["scalar"]:
        found: Any = np.dtype(token["scalar"])
    elif token["open"]:
        names, formats, offsets = [], [], []
        while not (token := _token(text, at))["close"]:
            if token["name"]:
                names.append(token["name"])
                form, at = _parse(text, token.end())
                formats.append(form)
            elif token["at"]:
                offsets.append(int(token["at"]))
                at = token.end()
            else:
                at = token.end()  # tags, blanks
        at = token.end()
        form_: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": int(token["size"])}
        found = np.dtype(form_)
    else:
        raise ValueError(f"{text[token.start() :]!r} is no type")
    shape = []
    while at < len(text) and (token := _token(text, at))["n"]:
        shape.append(int(token["n"]))
        at = token.end()
    return (np.dtype((found, tuple(shape))) if shape else found), at


def _token(text: str, at: int) -> re.Match[str]:
    token = _TOKEN.match(text, at)
    if token is None:
        raise ValueError(f"{text[at:]!r} is no type")
    return token


class Migration:
    """From one version's maps to another's. `carried`: maps that have been copied already, whole; `cores`: of the engine."""

    def __init__(self, old: Region, new: Region, carried: frozenset[str]) -> None:
        self._old, self._new, self.carried, self.cores = old, new, carried, new.cores
        inbound = next((m.name for m in new.layout.maps if m.kind == RING_IN), None)
        self._requests = [new.producer(inbound, 0, core) for core in range(self.cores)] if inbound else []

    @staticmethod
    def _rows(region: Region, name: str, *, writable: bool) -> Array:
        m = region.maps.get(name)
        if m is not None and m.kind == BYTES and m.key_size:
            raise KeyError(f"map {name} is a pool: where its buffers lie is the engine's to know")
        if m is not None and m.kind == BYTES:
            rows: Array = region.buffers(name)
        else:
            values = region.values(name)
            assert m is not None and m.shared is not None
            rows = np.ndarray(values.shape, values.dtype, region.content, m.shared, values.strides)
        rows.flags.writeable = writable
        return rows

    def old(self, name: str) -> Array:
        """Values or buffers of a shared map of the old version, read-only. KeyError if there is none."""
        return self._rows(self._old, name, writable=False)

    def new(self, name: str) -> Array:
        """Values or buffers of a shared map of the new version: all fields are ours until it runs. KeyError if there is none."""
        return self._rows(self._new, name, writable=True)

    def copy(self, name: str, source: str | None = None) -> None:
        """Copy what both versions of a map have: fields of the same name, as many rows as there are in both, numbers converted."""
        new, old = self.new(name), self.old(source or name)
        rows = min(len(new), len(old))
        if new.dtype.names and old.dtype.names:
            for field in set(new.dtype.names) & set(old.dtype.names):
                new[field][:rows] = old[field][:rows]
        elif new.ndim == old.ndim == 2:  # buffers
            width = min(new.shape[1], old.shape[1])
            new[:rows, :width] = old[:rows, :width]
        else:
            new[:rows] = old[:rows]

    def request(self, *entry: Any, core: int = 0) -> None:
        """Run the new version's ring hook of a core with this entry, as the slow path. RuntimeError if the engine takes none."""
        ring = self._requests[core]
        self._wait(lambda: ring.room > 0)
        ring.put(entry)

    def settle(self) -> None:
        """Wait until all entries have been taken. RuntimeError if the engine does not."""
        for ring in self._requests:
            self._wait(lambda ring=ring: ring.room == ring.slots)  # type: ignore[misc]

    @staticmethod
    def _wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError("the engine does not take the migration's ring entries")
            time.sleep(0.0002)


def load_migration(folder: Path | None, manifest: Manifest) -> Callable[[Migration], None]:
    """The function that a protocol's folder names. Raises Refusal."""
    if folder is None or manifest.migrate is None:
        raise Refusal(
            "usage", f"protocol {manifest.name} brings no migration", 'name one in protocol.toml: migrate = "module:function"'
        )
    module_name, _, function_name = manifest.migrate.partition(":")
    spec = importlib.util.spec_from_file_location(f"chamelio_migration_{manifest.name}", folder / f"{module_name}.py")
    if spec is None or spec.loader is None or not (folder / f"{module_name}.py").exists():
        raise Refusal("usage", f"{folder}: there is no module {module_name}.py", "correct `migrate` in protocol.toml")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Refusal("usage", f"{folder / module_name}.py: {function_name or 'nothing'} is no function", "correct `migrate`")
    found: Callable[[Migration], None] = function
    return found


def prepare(about: dict[str, Any], fds: list[int], content: bytes) -> Migration:
    """What `migration.begin` has handed out, mapped; descriptors: the new instance's, then the old region."""
    layout = msgspec.convert(about["layout"], Layout)
    new = Region(fds[0], about["origin"], layout, value_types(load_object(content)), {}, fds[1 + layout.contexts : -1])
    before = about["old"]
    types = {name: type_of_text(text) for name, text in before["types"].items() if text}
    old = Region(fds[-1], before["origin"], msgspec.convert(before["layout"], Layout), types, {})
    return Migration(old, new, frozenset(about["carried"]))
