"""Small bugs for the verifier, each put in place of a few words of a method: what a test that is worth something notices.

A mutation names the method, the words and what stands for them; words that are no longer there are an error, so that the list
keeps up with the verifier.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any, NamedTuple

from chamelio.verify import explore
from chamelio.verify.arithmetic import Arithmetic
from chamelio.verify.cover import Cover
from chamelio.verify.demand import Demand
from chamelio.verify.explore import Explorer
from chamelio.verify.memory import Memory
from chamelio.verify.values import Frame

_FLAGS = annotations.compiler_flag  # type: ignore[attr-defined]


class Mutation(NamedTuple):
    """`owner.method` with `old` replaced by `new`."""

    name: str
    owner: Any
    method: str
    old: str
    new: str

    def made(self) -> Any:
        """The method with the bug. AssertionError: the words are not there, or more than once."""
        found = inspect.getattr_static(self.owner, self.method)
        function = found.__func__ if isinstance(found, staticmethod) else found
        source = textwrap.dedent(inspect.getsource(function)).removeprefix("@staticmethod\n")
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} is {source.count(self.old)} times in {self.method}"
        code = compile(source.replace(self.old, self.new), f"<{self.name}>", "exec", flags=_FLAGS, dont_inherit=True)
        names: dict[str, Any] = {}
        exec(code, vars(sys.modules[function.__module__]), names)
        made = names[self.method]
        return staticmethod(made) if isinstance(found, staticmethod) else made


MUTATIONS = [
    # what is needed before, of what is needed behind
    Mutation("linked_places_are_not_needed", Demand, "branch",
             "elif shows or any(self.relies(place) for place in linked):", "elif shows:"),
    Mutation("linked_registers_are_not_needed", Demand, "branch", "self.exact |= regs", "pass"),
    Mutation("decided_branches_need_nothing", Demand, "branch",
             "if decided:\n        self.exact |= operands", "if decided:\n        pass"),
    Mutation("proofs_need_nothing", Demand, "branch", "elif shows or any(", "elif any("),
    Mutation("addresses_need_no_numbers", Demand, "address", "self.exact & ~dst | sources", "self.exact & ~dst"),
    Mutation("exactness_ends_at_a_load", Demand, "load_stack", "self.stack_exact[frame] |= bits", "pass"),
    Mutation("loaded_bytes_are_not_needed", Demand, "load_stack", "self.stack_read[frame] |= bits", "pass"),
    Mutation("exactness_ends_at_a_store", Demand, "store_stack", "self.exact |= source", "pass"),
    Mutation("stored_registers_are_not_needed", Demand, "store_stack", "self.read |= source | base", "self.read |= base"),
    Mutation("exactness_ends_at_a_helper", Demand, "helper",
             "if written:", "self.stack_exact[frame] &= ~bits\n        if written:"),
    Mutation("helpers_need_no_bytes", Demand, "helper", "self.stack_read[frame] |= bits", "pass"),
    Mutation("helpers_need_no_arguments", Demand, "helper", "self.read & ~CLOBBERED | reads", "self.read & ~CLOBBERED"),
    Mutation("exactness_ends_at_an_operation", Demand, "back", "self.exact & ~kills | sources", "self.exact & ~kills"),
    Mutation("operations_need_no_operands", Demand, "back", "(sources if self.read & kills else 0) | reads", "0"),
    Mutation("saved_registers_are_not_exact", Demand, "leave", "self.saved_exact[frame] |= self.exact & SAVED", "pass"),
    Mutation("saved_registers_are_forgotten", Demand, "call", "self.exact |= self.saved_exact[frame] & SAVED", "pass"),
    Mutation("loads_need_no_proof", Demand, "load", "self._needs(var, end)", "pass"),
    Mutation("stores_need_no_source", Demand, "store", "self.read |= sources", "pass"),
    Mutation("touched_lines_are_not_needed", Demand, "touched", "& ~added | relied", "& ~added"),
    Mutation("another_demand_is_ignored", Demand, "add", "self.exact |= other.exact", "pass"),
    # what an explored state covers
    Mutation("steps_do_not_matter", Cover, "_value", " or a.step > b.step", ""),
    Mutation("variable_parts_do_not_matter", Cover, "_value", "a.vmin <= b.vmin <= b.vmax <= a.vmax", "True"),
    Mutation("null_does_not_matter", Cover, "_value", "if b.null and not a.null:", "if False:"),
    Mutation("names_of_bases_do_not_matter", Cover, "_value", 'and self._same_name("var", a.var, b.var)', ""),
    Mutation("numbers_do_not_matter", Cover, "_number", "if not covers(a, b):", "if False:"),
    Mutation("names_of_numbers_do_not_matter", Cover, "_number", "if a.mask == 0 or not a.ident:", "if True:"),
    Mutation("distances_do_not_matter", Cover, "_number", "if room is not None:", "if False:"),
    Mutation("offsets_of_distances_do_not_matter", Cover, "_number", "other[1] != room[1] or ", ""),
    Mutation("links_do_not_matter", Cover, "_number", "delta == new_delta and ", ""),
    Mutation("written_bytes_do_not_matter", Cover, "_frame", "if a.init & read & ~b.init:", "if False:"),
    Mutation("spills_do_not_matter", Cover, "_frame", "if not self._value(value, other[1], needed):", "if False:"),
    Mutation("missing_spills_do_not_matter", Cover, "_frame", "elif needed and (value.ident", "elif False and (value.ident"),
    Mutation("addresses_over_bytes_do_not_matter", Cover, "_frame", "isinstance(value, Pointer) and not compared", "False"),
    Mutation("saved_registers_do_not_matter", Cover, "_frame", "if saved_read >> reg & 1", "if False"),
    Mutation("proofs_do_not_matter", Cover, "_proven", "if new.proven_bytes(var) < end:", "if False:"),
    Mutation("touched_lines_do_not_matter", Cover, "_touched", "if name is not None and", "if False and"),
    Mutation("names_of_bases_are_not_translated", Cover, "translated", 'else self.names.get(("var", var))', "else None"),
    Mutation("linked_names_are_dropped", explore, "_loosened", "if n > 1", "if n > 2"),
    # how states change
    Mutation("half_lost_addresses_stay_written", Frame, "forget", "self.init &= ~(((1 << n) - 1) << o)", "pass"),
    Mutation("spills_stay", Frame, "forget", "self.spills.pop(o)", "self.spills[o]"),
    Mutation("any_register_is_null", Explorer, "_branch", "if len(ways) < 2 or null:", "if len(ways) < 2:"),
    Mutation("addresses_are_ordered_as_offsets", Arithmetic, "_assume_addresses",
             "x, y = x + 2 * MAX_OFFSET, y + 2 * MAX_OFFSET", "pass"),
    Mutation("packets_always_exist", Arithmetic, "_assume_addresses", "or not wraps", "or True"),
    Mutation("comparisons_prove_too_much", Arithmetic, "_assume_addresses", "(1 if strict else 0)", "1"),
    Mutation("links_count_twice", Arithmetic, "_narrow", "const(its_delta - delta)", "const(2 * its_delta - delta)"),
    Mutation("links_wrap", Arithmetic, "_numbers",
             "(bits == 32 and not 0 <= target.umin + by <= target.umax + by <= s.U32)", "False"),
    Mutation("distances_count_backwards", Arithmetic, "_numbers", "room[1] - by", "room[1] + by"),
    Mutation("variable_parts_are_aligned", Arithmetic, "_offset",
             "min(pointer.step, 1 << s.trailing_zeros(by))", "pointer.step"),
    Mutation("narrow_stores_keep_all", Memory, "store", "elif insn.size < 8 and value.umax >> 8 * insn.size:", "elif False:"),
    Mutation("variable_stores_hit_the_lowest_place", Memory, "store", "p.vmax - p.vmin + insn.size)\n", "insn.size)\n"),
    Mutation("atomics_leave_the_stack", Memory, "atomic", "frame.write(at, insn.size, old)", "pass"),
]  # fmt: skip
