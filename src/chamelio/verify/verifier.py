"""Verdicts: what is said of a program, and of all programs of an object."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import RING_IN
from chamelio.verify.attribution import shares, spent_mostly
from chamelio.verify.catalogue import Context
from chamelio.verify.codes import CODES
from chamelio.verify.contexts import CONTEXTS, context_of
from chamelio.verify.cost import start_cost
from chamelio.verify.explore import Explorer
from chamelio.verify.proof import Limits, Note, Proof, Share, Verdict
from chamelio.verify.subject import Refused


def verify_program(
    obj: Object, program: Program, *, context: str | None = None, limits: Limits | None = None, budget: int | None = None
) -> Verdict:
    """Verify one program. `context`: instead of the section's; `budget`: most cycles that the worst case (cold) may cost."""
    return verify_every(obj, program, context=context, limits=limits, budget=budget, every=False)[0]


def verify_every(
    obj: Object, program: Program, *, context: str | None = None, limits: Limits | None = None, budget: int | None = None,
    every: bool = True,
) -> list[Verdict]:  # fmt: skip
    """Verify one program and go on behind errors: a verdict for each, or the one that accepts it."""
    started = time.perf_counter()
    limits = limits or Limits()
    found = context_of(program.section)
    if context is not None:
        hook = program.section.rpartition("/")[2]
        found = CONTEXTS[context], hook if hook in CONTEXTS[context].hooks else CONTEXTS[context].hooks[0]
    refusal = _unfit(obj, program, found, limits)
    if refusal is not None or found is None:
        assert refusal is not None
        return [_refusal(program, refusal, 0, (), 0, started)]
    explorer = Explorer(obj, program, *found, limits, every=every)
    explorer.run()
    if explorer.findings:
        seen: dict[tuple[str, int, str], Verdict] = {}
        for finding in explorer.findings:
            verdict = _refusal(program, finding.refused, finding.pc, finding.path, explorer.steps, started, notes=finding.notes)
            seen.setdefault((finding.refused.code, finding.pc, finding.refused.message), verdict)
        return list(seen.values())
    explorer.cold += start_cost(program, explorer.subject.facts.reached)
    spent = shares(program, explorer.worst)
    if budget is not None and explorer.cold > budget:
        return [_over_budget(program, explorer, spent, budget, started)]
    facts = explorer.subject.facts
    proof = Proof(
        program=program,
        hook=found[1],
        accesses=facts.accesses,
        reached=frozenset(facts.reached),
        map_args=facts.map_args,
        stack_depth=facts.stack_depth,
        cost_cold=explorer.cold,
        cost_warm=explorer.warm,
        steps=explorer.steps,
        states=explorer.states,
        loops=explorer.back_jumps,
        masks=facts.settled_masks(),
        all_masked=not facts.unmaskable & facts.soft,
    )
    return [
        Verdict(
            program=program.name, section=program.section, verdict="accept", cost_cold=explorer.cold, cost_warm=explorer.warm,
            steps=explorer.steps, seconds=time.perf_counter() - started, shares=spent, proof=proof,
        )
    ]  # fmt: skip


def _unfit(obj: Object, program: Program, found: tuple[Context, str] | None, limits: Limits) -> Refused | None:
    """What is wrong with a program before it is explored."""
    if found is None:
        return Refused(
            "V141", f"section {program.section}", "it is neither chamelio/HOOK nor a kind of kernel program that is known here"
        )
    if found[0].runs and len({m.value_size for m in obj.maps if m.kind == RING_IN}) > 1:
        return Refused("V150", "inbound rings with entries of several sizes", "the ring hook sees entries of one size")
    if len(program.insns) > limits.instructions:
        return Refused("V160", "the program is too long", f"{len(program.insns)} instructions; at most {limits.instructions}")
    return None


def _over_budget(program: Program, explorer: Explorer, spent: tuple[Share, ...], budget: int, started: float) -> Verdict:
    mostly = spent_mostly(spent, explorer.cold)
    refused = Refused(
        "V161", f"the worst case is {explorer.cold:,} cycles", f"the budget of this hook is {budget:,}; {mostly}",
        "shorten the loop, or leave what is rare to the slow path" if spent and spent[0].turns else "",
    )  # fmt: skip
    return _refusal(program, refused, spent[0].pc if spent else 0, (), explorer.steps, started, explorer, spent)


def _refusal(
    program: Program, refused: Refused, pc: int, path: tuple[str, ...], steps: int, started: float,
    explorer: Explorer | None = None, spent: tuple[Share, ...] = (), notes: tuple[Note, ...] = (),
) -> Verdict:  # fmt: skip
    code = CODES[refused.code]
    line = program.line_at(pc) if program.insns else None
    where: dict[str, Any] = {"file": line.file, "line": line.line, "col": line.col, "text": line.text} if line else {}
    return Verdict(
        program=program.name, section=program.section, verdict=code.kind, code=code.code,  # type: ignore[arg-type]
        message=f"{code.title}: {refused.message}", reason=refused.reason, path=path,
        suggestion=refused.suggestion or code.suggestion, insn=pc, steps=steps, seconds=time.perf_counter() - started, shares=spent,
        notes=notes, cost_cold=explorer.cold if explorer else 0, cost_warm=explorer.warm if explorer else 0, **where,
    )  # fmt: skip


def verify_object(
    obj: Object, *, context: str | None = None, limits: Limits | None = None, budgets: Mapping[str, int] | None = None,
    every: bool = False,
) -> list[Verdict]:  # fmt: skip
    """Verdicts of all programs of an object, in their order. A hook has one handler: a second one is refused.

    `budgets`: by hook, most cycles (cold); `every`: a verdict for each error of a program.
    """
    verdicts: list[Verdict] = []
    handlers: dict[str, Program] = {}
    for program in obj.programs:
        first = handlers.setdefault(program.section, program)
        if program.section.startswith("chamelio/") and context is None and first is not program:
            refusal = Refused("V142", f"{first.name} and {program.name} are both in {program.section}", "a hook runs one of them")
            verdicts.append(_refusal(program, refusal, 0, (), 0, time.perf_counter()))
            continue
        budget = (budgets or {}).get(program.section.rpartition("/")[2])
        verdicts += verify_every(obj, program, context=context, limits=limits, budget=budget, every=every)
    return verdicts
