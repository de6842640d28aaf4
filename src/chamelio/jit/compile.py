"""One job of the compiler: an untrusted object in, a verified and compiled unit out, or the reasons why not."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import msgspec

from chamelio import __version__, toolchain
from chamelio.bpf.object import load_object
from chamelio.jit import unit
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.layout import make_layout
from chamelio.jit.unit import HOOKS
from chamelio.verify import Verdict, verify_object
from chamelio.verify.codes import CODES
from chamelio.verify.contexts import context_of
from chamelio.verify.cost import table

MODES = ("joint", "separate", "fixed")


class Rejected(Exception):
    """The verifier did not accept every handler; `verdicts` says why, one per program."""

    def __init__(self, verdicts: list[Verdict]) -> None:
        refused = [v for v in verdicts if v.verdict != "accept"]
        super().__init__(f"{refused[0].program}: {refused[0].message}" if refused else "nothing to run")
        self.verdicts = verdicts


def unit_key(object_bytes: bytes, options: Options) -> str:
    """What names a unit: the object's content, the options, this version of the provider and the table of costs."""
    digest = hashlib.sha256()
    for part in (object_bytes, msgspec.json.encode(options), __version__.encode(), provider_digest(), table().digest):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def provider_digest() -> bytes:
    """Hash of all that makes a unit of an object: the provider's C, how it is compiled, and what reads, verifies and compiles it.

    So nothing that a former verifier accepted is found in a cache, though it is the same version by name.
    """
    digest = hashlib.sha256(b"sanitized " if toolchain.sanitizing() else b"")
    sources = [(toolchain.FASTPATH, "*.[ch]"), (toolchain.INCLUDE, "*.[ch]")]
    sources += [(toolchain.PACKAGE / part, "*.py") for part in ("bpf", "jit", "verify")]
    for directory, pattern in sources:
        for path in sorted(directory.rglob(pattern)):
            content = path.read_bytes()
            digest.update(f"{directory.name}/{path.name} {len(content)} ".encode() + content)
    return digest.digest()


def _runnable(verdict: Verdict) -> Verdict:
    """What becomes of a verdict where programs are to run: those of the kernel are only verified."""
    found = context_of(verdict.section)
    if verdict.verdict != "accept" or (found is not None and found[0].runs):
        return verdict
    code = CODES["V141"]
    return replace(
        verdict, verdict="unsupported", code=code.code, message=f"{code.title}: section {verdict.section}",
        reason="programs of the kernel can be verified, not run here", suggestion=code.suggestion, proof=None,
    )  # fmt: skip


def compile_unit(object_bytes: bytes, options: Options, native: str | None = None) -> UnitImage:
    """Verify and compile an object. Raises ObjectError (malformed), LayoutError (maps), Rejected (verdicts).

    `native` is the IR text of the protocol's C compiled for the host, needed for mode `fixed` only.
    """
    if options.mode not in MODES:
        raise ValueError(f"there is no mode {options.mode!r}; modes are {', '.join(MODES)}")
    started = time.perf_counter()
    obj = load_object(object_bytes)
    layout = make_layout(obj.maps, options.contexts)
    verdicts = [_runnable(verdict) for verdict in verify_object(obj, budgets=options.budgets)]
    proofs = [v.proof for v in verdicts if v.proof is not None and v.verdict == "accept"]
    if len(proofs) != len(verdicts) or not proofs:
        raise Rejected(verdicts)
    verified = time.perf_counter()
    switches = {"virtual": options.virtual, "hardening": options.hardening}
    if options.mode == "joint":
        objects = unit.joint(proofs, obj, layout, **switches)
    elif options.mode == "separate":
        objects = unit.separate(proofs, obj, layout, **switches)
    else:
        if native is None:
            raise ValueError("mode fixed compiles the protocol's C source, which was not given")
        objects = unit.fixed(native, [p.hook for p in proofs], layout, hardening=options.hardening)
    compiled = time.perf_counter()
    by_hook = {p.hook: p for p in proofs}
    return UnitImage(
        key=unit_key(object_bytes, options),
        mode=options.mode,
        objects=objects,
        layout=layout,
        cold=[by_hook[h].cost_cold if h in by_hook else 0 for h in HOOKS],
        warm=[by_hook[h].cost_warm if h in by_hook else 0 for h in HOOKS],
        protocol_sha=obj.sha256,
        seconds={"verify": verified - started, "compile": compiled - verified},
        instructions=sum(len(p.program.insns) for p in proofs),
    )
