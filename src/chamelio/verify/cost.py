"""The cost model: cycles of instructions, cache misses and helpers, as a table; and which table is in force.

`warm` has data and code in the first-level cache. `cold` adds a miss for each cache line, what bytes in a row cost that are in no
cache, branches that nobody has foreseen, and the handler's own code. The default is conservative for recent x86-64 cores;
`chamelio calibrate` measures a machine and writes its table, which CHAMELIO_COSTS=FILE puts in force for whatever starts with it.

The lifter charges the same warm figures to the virtual clock, block by block, so what is counted never exceeds what is proven.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, jump_target
from chamelio.bpf.maps import MapDef
from chamelio.bpf.object import Program
from chamelio.jit.layout import BYTES, KIND_NAMES, pool_sizes
from chamelio.messages import Refusal
from chamelio.verify.catalogue import HELPERS, MAP_KINDS, Cost, Helper

LINE = 64
POOL = "pool"  # byte maps whose buffers come and go
VARIABLE = "CHAMELIO_COSTS"
MOST = 1_000_000  # cycles that a figure may be


@dataclass(frozen=True)
class Instructions:
    """Warm cycles of an instruction, by class; `call` is without what is called; `copy`: a line of a value that is copied."""

    simple: int = 1  # arithmetic, moves, wide constants
    multiply: int = 3
    divide: int = 40
    load: int = 4
    store: int = 2
    atomic: int = 20
    branch: int = 1
    call: int = 4
    copy: int = 8


@dataclass(frozen=True)
class Cold:
    """Cycles more, when nothing is in a cache and no branch is foreseen.

    `miss`: a line that is loaded before anything else can go on; `stream`: a line of a value that is copied, source and target;
    `mispredict`: a conditional branch; `start`: what every run needs before its first access; `code`: an instruction's share of
    the code that is fetched, once.
    """

    miss: int = 500
    stream: int = 64
    mispredict: int = 25
    start: int = 1000
    code: int = 6


_KINDS = {
    "cham_lookup": {"array": Cost(16)},
    "cham_update": {"array": Cost(20, 0, 2)},
    "cham_pkt_to_bytes": {"bytes": Cost(30, 8, 3, 64)},
    "cham_bytes_to_pkt": {"bytes": Cost(50, 8, 4, 64)},
}


@dataclass(frozen=True)
class CostTable:
    """All figures. `helpers`: prices by name and kind of map, "" for all kinds that have none of their own."""

    instructions: Instructions = Instructions()
    cold: Cold = Cold()
    helpers: Mapping[str, Mapping[str, Cost]] = field(
        default_factory=lambda: {h.name: {"": h.cost, **_KINDS.get(h.name, {})} for h in HELPERS.values()}
    )

    def helper(self, helper: Helper, kind: str = "") -> Cost:
        """The price of a helper, on a kind of map."""
        prices = self.helpers.get(helper.name)
        return helper.cost if prices is None else prices.get(kind) or prices[""]

    @property
    def digest(self) -> bytes:
        """Names the table's content: what is compiled with another one is another unit."""
        return hashlib.sha256(repr(plain(self)).encode()).digest()


DEFAULT = CostTable()

_in_force: CostTable | None = None


def table() -> CostTable:
    """The table in force: the one that $CHAMELIO_COSTS names, else the default. Raises Refusal."""
    global _in_force
    if _in_force is None:
        path = os.environ.get(VARIABLE)
        _in_force = load(Path(path)) if path else DEFAULT
    return _in_force


@contextlib.contextmanager
def using(other: CostTable) -> Iterator[None]:
    """Another table is in force inside."""
    global _in_force
    before, _in_force = _in_force, other
    try:
        yield
    finally:
        _in_force = before


# ---- prices -----------------------------------------------------------------------------------------------------------------


def insn_cost(insn: Insn) -> int:
    """Warm cycles of one instruction; of a helper call without the helper."""
    costs = (_in_force or table()).instructions
    if insn.is_atomic:
        return costs.atomic
    if insn.is_load:
        return costs.load
    if insn.is_store:
        return costs.store
    if insn.cls in (bpf.ALU, bpf.ALU64):
        op = insn.op & 0xF0
        return costs.divide if op in (bpf.DIV, bpf.MOD) else costs.multiply if op == bpf.MUL else costs.simple
    if insn.is_call:
        return costs.call
    return costs.branch if insn.is_jump or insn.is_exit else costs.simple


def miss() -> int:
    """Cycles of a line that is in no cache."""
    return (_in_force or table()).cold.miss


def mispredict() -> int:
    """Cycles of a conditional branch that nobody has foreseen."""
    return (_in_force or table()).cold.mispredict


def start_cost(program: Program, reached: Set[int]) -> int:
    """Cold cycles of beginning a run and of fetching its code, of which `reached` can be run at all."""
    cold = table().cold
    return cold.start + cold.code * _longest(program, reached)


def _longest(program: Program, reached: Set[int]) -> int:
    """How many different instructions a run executes at most: on the longest way forward, a loop's all, a local function's all.

    Loops are found as strongly connected components (Tarjan, 1972), each when everything behind it is done.
    """
    end = min((start for start in program.subprogs if start), default=len(program.insns))
    number: dict[int, int] = {}  # in the order of discovery
    low: dict[int, int] = {}  # the first found of those in the same component, as far as is known
    best: dict[int, int] = {}  # of what belongs to a finished component: instructions from there on
    open_: list[int] = []
    path = [(0, iter(_ways(program, 0, end)))]
    while path:
        pc, ways = path[-1]
        if pc not in number:
            number[pc] = low[pc] = len(number)
            open_.append(pc)
        for to in ways:
            if to not in number:
                path.append((to, iter(_ways(program, to, end))))
                break
            if to not in best:
                low[pc] = min(low[pc], number[to])
        else:
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[pc])
            if low[pc] == number[pc]:
                members = [open_.pop()]
                while members[-1] != pc:
                    members.append(open_.pop())
                ahead = [best[to] for member in members for to in _ways(program, member, end) if to in best]
                best |= dict.fromkeys(members, sum(member in reached for member in members) + max(ahead, default=0))
    return best[0] + sum(pc >= end for pc in reached)


def _ways(program: Program, pc: int, end: int) -> list[int]:
    """Slots of the main function that can follow."""
    insn = program.insns[pc]
    after = pc + (2 if insn.op == bpf.LDDW else 1)
    if insn.is_exit:
        ways = []
    elif insn.is_jump and not insn.is_call:
        ways = [jump_target(pc, insn), *([after] if insn.is_cond_jump else [])]
    else:
        ways = [after]
    return [to for to in ways if 0 <= to < end]


def lines_of(length: int) -> int:
    """Cache lines' worth of bytes, rounded up."""
    return -(-length // LINE)


def map_kind(m: MapDef | None) -> str:
    """The name of a map's kind, by which helpers are priced."""
    if m is None:
        return ""
    return POOL if m.kind == BYTES and pool_sizes(m) else KIND_NAMES.get(m.kind, "")


def price(helper: Helper, length: int, m: MapDef | None) -> tuple[int, int]:
    """Cycles of a helper, cold and warm: on `length` bytes, if it has a length, and on a map, if it has one.

    The helper's own price has the first line of a value or entry that it copies; the rest comes here.
    """
    costs = table()
    cold, cost = costs.cold, costs.helper(helper, map_kind(m))
    lines = lines_of(length)
    copied = lines_of(max(0, m.value_size - LINE)) if m and any(a.kind in ("value", "entry") for a in helper.args) else 0
    warm = cost.fixed + cost.per_line * lines + costs.instructions.copy * copied
    return warm + cold.miss * cost.lines + cost.per_line_cold * lines + cold.stream * copied, warm


def counted(helper: Helper) -> Cost:
    """What a call counts on the virtual clock: no more than its price on any kind of map."""
    prices = [table().helper(helper), *table().helpers.get(helper.name, {}).values()]
    return Cost(min(p.fixed for p in prices), min(p.per_line for p in prices))


# ---- tables as TOML ---------------------------------------------------------------------------------------------------------


def plain(costs: CostTable) -> dict[str, Any]:
    """A table as plain values, in the form of its file."""
    helpers: dict[str, Any] = {}
    for name in sorted(costs.helpers):
        prices = costs.helpers[name]
        helpers[name] = {**asdict(prices[""]), **{kind: asdict(prices[kind]) for kind in sorted(prices) if kind}}
    return {"instructions": asdict(costs.instructions), "cold": asdict(costs.cold), "helpers": helpers}


def text(costs: CostTable, heading: str = "") -> str:
    """A table as TOML, with all entries."""
    out = [f"# {line}" for line in heading.splitlines()]

    def section(path: str, values: Mapping[str, Any]) -> None:
        out.extend(["", f"[{path}]", *(f"{name} = {value}" for name, value in values.items() if isinstance(value, int))])
        for name, value in values.items():
            if not isinstance(value, int):
                section(f"{path}.{name}", value)

    for name, values in plain(costs).items():
        if name == "helpers":
            for helper, prices in values.items():
                section(f"helpers.{helper}", prices)
        else:
            section(name, values)
    return "\n".join(out).strip() + "\n"


def load(path: Path) -> CostTable:
    """A table from a TOML file; what it does not name is as in the default. Raises Refusal."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise Refusal("usage", f"the table of costs {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal("usage", f"the table of costs {path} is not TOML: {error}") from None
    return _Reader(path).table(content)


class _Reader:
    """Checks what a file says, key by key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, key: str, problem: str, remedy: str = "") -> Refusal:
        return Refusal("usage", f"{self.path}: {key}: {problem}", remedy)

    def known(self, key: str, name: str, names: list[str]) -> None:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            remedy = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(names)}"
            raise self.refuse(key, "there is no such key", remedy)

    def section(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refuse(key, "it is a table of figures, not a value")
        return value

    def figures(self, key: str, value: dict[str, Any], old: Any) -> Any:
        """A dataclass of figures with some of them replaced."""
        names = [f.name for f in fields(old)]
        for name, figure in value.items():
            self.known(f"{key}.{name}", name, names)
            if not isinstance(figure, int) or isinstance(figure, bool) or not 0 <= figure <= MOST:
                raise self.refuse(f"{key}.{name}", f"{figure!r} is not a whole number of cycles within 0..{MOST:,}")
        return replace(old, **value)

    def table(self, content: dict[str, Any]) -> CostTable:
        costs = DEFAULT
        for name, value in content.items():
            self.known(name, name, [f.name for f in fields(CostTable)])
            section = self.section(name, value)
            if name == "helpers":
                costs = replace(costs, helpers={**costs.helpers, **{n: self.helper(n, v) for n, v in section.items()}})
            else:
                costs = replace(costs, **{name: self.figures(name, section, getattr(costs, name))})
        return costs

    def helper(self, name: str, value: Any) -> dict[str, Cost]:
        key = f"helpers.{name}"
        self.known(key, name, list(DEFAULT.helpers))
        section = self.section(key, value)
        kinds = kinds_of(name)
        own = {n: v for n, v in section.items() if not isinstance(v, dict)}
        prices = {**DEFAULT.helpers[name], "": self.figures(key, own, DEFAULT.helpers[name][""])}
        for kind in section.keys() - own.keys():
            self.known(f"{key}.{kind}", kind, [*(f.name for f in fields(Cost)), *kinds])
            prices[kind] = self.figures(f"{key}.{kind}", self.section(f"{key}.{kind}", section[kind]), prices.get(kind, prices[""]))
        return prices


def kinds_of(name: str) -> list[str]:
    """The kinds of maps that a helper works on."""
    helper = next(h for h in HELPERS.values() if h.name == name)
    kinds = [MAP_KINDS[k].name for a in helper.args for k in a.maps]
    return [*kinds, POOL] if any(BYTES in a.maps for a in helper.args) else kinds
