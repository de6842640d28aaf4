"""Random joins: two ways through a program leave different facts behind, and what comes after relies on one of them.

Each idiom has a fact (a number is small, two numbers are linked, an address is not NULL, bytes are proven or written ...), arms
that establish it, arms that establish less, ways in which the place that it is about is carried on, and uses that fault, leak
an address or cost more than was proven where the fact does not hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Lines = list[str]

SLOTS = [-120, -128, -136, -144, -152]  # of the stack, for joins only
NEVER = -200  # nobody writes there


class Joins:
    """What `Generator` is besides. r9 is the context, r6..r8 are numbers, r0..r5 scratch, the stack's upper 64 bytes written."""

    r: random.Random
    functions: list[str]
    depth: int

    def emit(self, *lines: str) -> None:
        raise NotImplementedError

    def label(self) -> str:
        raise NotImplementedError

    def join(self) -> None:
        """One idiom."""
        idioms: Sequence[Callable[[], None]] = (
            self.small_number, self.small_number, self.small_number, self.linked_numbers, self.linked_numbers, self.same_null,
            self.compared_with_null, self.null_in_a_register, self.proven_bytes, self.same_base, self.known_distance,
            self.written_bytes, self.bytes_or_address, self.kind_of_a_register, self.moved_address, self.where_it_points,
            self.address_order, self.pointer_loop, self.lines_touched, self.still_the_packet, self.proven_before_two_joins,
        )  # fmt: skip
        self.r.choice(idioms)()

    # ---- arms -------------------------------------------------------------------------------------------------------

    def arms(self, *arms: Lines) -> None:
        """Ways that join again, chosen by bits of the hash. The first one is mostly explored first."""
        ways = list(arms)
        if self.r.random() < 0.2:
            self.r.shuffle(ways)
        out = self.label()
        for way in ways[:-1]:
            other = self.label()
            self.emit("ldxw r5, [r9+44]", f"jset r5, {1 << self.r.randrange(8)}, {other}", *way, f"ja {out}", f"{other}:")
        self.emit(*ways[-1], f"{out}:")

    def two(self, good: Callable[[], Lines], bad: Callable[[], Lines], share: float = 0.45) -> None:
        """A good arm, and another that is good or bad."""
        ways = [good(), good() if self.r.random() < share else bad()]
        if self.r.random() < 0.15:
            ways.append(good() if self.r.random() < share else bad())
        self.arms(*ways)

    def registers(self, count: int) -> list[str]:
        return self.r.sample(["r6", "r7", "r8"], count)

    def bad_end(self) -> Lines:
        """What nothing may reach."""
        return [f"ldxdw r4, [r10{NEVER}]"]

    # ---- carrying a place on ---------------------------------------------------------------------------------------------

    def carry(self, reg: str, number: bool = True) -> None:
        """A register's value goes somewhere and comes back, or something else happens meanwhile."""
        slot = self.r.choice(SLOTS)
        name, out = self.label(), self.label()
        match self.r.randrange(13 if number else 8):
            case 0:
                self.emit(f"stxdw [r10{slot}], {reg}", f"mov {reg}, 7", f"ldxdw {reg}, [r10{slot}]")
            case 1:
                self.emit(f"mov r4, {reg}", f"mov {reg}, 7", f"mov {reg}, r4")
            case 2:
                self.emit("mov r1, 1", f"call local {name}")
                self.functions += [f"{name}:", "mov r0, r1", f"{self.r.choice(('jeq', 'jne'))} r1, 1, +1", "mov r0, 2",
                                   "mov r6, 3", "mov r7, 4", "mov r8, 5", "exit"]  # fmt: skip
            case 3:
                self.emit(f"stxdw [r10{slot}], {reg}", "mov r1, r10", f"add r1, {slot}", f"call local {name}",
                          f"ldxdw {reg}, [r10{slot}]")  # fmt: skip
                self.functions += [f"{name}:", "ldxdw r6, [r1+0]", "stxdw [r1+0], r6", "mov r0, 0", "exit"]
            case 4:
                self.emit("ldxw r5, [r9+44]", f"jset r5, {1 << self.r.randrange(8)}, {out}", "mov r4, 1", f"{out}:")
            case 5:
                self.emit("mov r1, r9", "call 0x109")
            case 6:
                self.emit(f"stdw [r10{slot}], 3", f"{out}:", f"ldxdw r4, [r10{slot}]", "sub r4, 1", f"stxdw [r10{slot}], r4",
                          f"jne r4, 0, {out}")  # fmt: skip
            case 7:
                pass
            case 8:  # a helper reads the place, which is no less known then
                self.emit(f"stxdw [r10{slot}], {reg}", "lddw r1, map 1", "mov r2, r10", f"add r2, {slot}", "call 1",
                          f"ldxdw {reg}, [r10{slot}]")  # fmt: skip
            case 9:
                narrow = self.r.choice(("b", "h", "w"))
                self.emit(f"stx{narrow} [r10{slot}], {reg}", f"ldx{narrow} {reg}, [r10{slot}]")
            case 10:
                self.emit(f"mov32 {reg}, {reg}")
            case 11:
                self.emit(f"stxdw [r10{slot}], {reg}", f"stb [r10{slot + 7}], 0", f"ldxdw {reg}, [r10{slot}]")
            case _:
                self.emit(f"stxdw [r10{slot}], {reg}", "mov r4, 0", f"lock fetch add [r10{slot}], r4",
                          f"ldxdw {reg}, [r10{slot}]")  # fmt: skip

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def unknown(self, reg: str) -> Lines:
        return [self.r.choice((f"ldxdw {reg}, [r9+32]", f"ldxw {reg}, [r9+40]", f"ldxsw {reg}, [r9+44]"))]

    def make_small(self, reg: str) -> Lines:
        """At most 15."""
        slot, out = self.r.choice(SLOTS), self.label()
        return self.r.choice((
            [f"mov {reg}, {self.r.randrange(16)}"],
            [*self.unknown(reg), f"and {reg}, {self.r.choice((1, 7, 15))}"],
            [*self.unknown(reg), f"mod {reg}, {self.r.choice((3, 16))}"],
            [*self.unknown(reg), f"jle {reg}, 15, {out}", f"mov {reg}, 15", f"{out}:"],
            [f"stdw [r10{slot}], {self.r.randrange(16)}", f"ldxdw {reg}, [r10{slot}]"],
            ["lddw r4, map_value 9+4", f"ldxb {reg}, [r4+0]"],
        ))  # fmt: skip

    def make_large(self, reg: str) -> Lines:
        return self.r.choice((
            self.unknown(reg), [f"mov {reg}, {self.r.choice((16, 17, 64, 255, 300, -1))}"],
            [*self.unknown(reg), f"and {reg}, {self.r.choice((31, 255))}"], [*self.unknown(reg), f"rsh {reg}, 56"],
        ))  # fmt: skip

    def small_number(self) -> None:
        (reg,) = self.registers(1)
        if self.r.random() < 0.3:  # in the stack at once
            slot = self.r.choice(SLOTS)
            store = [f"stx{self.r.choice(('dw', 'dw', 'w', 'b'))} [r10{slot}], r4"]
            zero = [f"stdw [r10{slot}], 0"]
            bad = [*zero, *self.unknown("r4"), f"lock add [r10{slot}], r4"]
            self.two(
                lambda: [*zero, *self.make_small("r4"), *store],
                lambda: self.r.choice((bad, [*zero, *self.make_large("r4"), *store])),
            )
            self.carry(reg)
            self.emit(f"ldxdw {reg}, [r10{slot}]")
        else:
            self.two(lambda: self.make_small(reg), lambda: self.make_large(reg))
        self.carry(reg)
        if self.r.random() < 0.3:
            self.carry(reg)
        self.use_small(reg)

    def use_small(self, reg: str) -> None:
        """Rely on a number being at most 15."""
        out, name = self.label(), self.label()
        match self.r.randrange(8):
            case 0:
                self.emit("lddw r2, map_value 9+0", f"add r2, {reg}", "ldxb r4, [r2+0]", f"mov {reg}, r4")
            case 1:
                self.emit(f"jle {reg}, 15, {out}", *self.bad_end(), f"{out}:")
            case 2:
                slot = self.r.choice(SLOTS)
                again = self.label()
                self.emit(f"stxdw [r10{slot}], {reg}", f"{again}:", f"ldxdw r4, [r10{slot}]", f"jeq r4, 0, {out}", "sub r4, 1",
                          f"stxdw [r10{slot}], r4", f"ja {again}", f"{out}:")  # fmt: skip
            case 3:
                self.emit("mov r2, r10", "add r2, -64", f"add r2, {reg}", f"{self.r.choice(('stxb', 'stxdw'))} [r2+0], {reg}",
                          "ldxdw r4, [r10-64]", f"xor {reg}, r4")  # fmt: skip
            case 4:
                self.emit("stw [r10-12], 3", "mov r2, r10", "add r2, -12", "lddw r1, map 0", "call 1", f"jeq r0, 0, {out}",
                          f"add r0, {reg}", "ldxb r4, [r0+0]", f"{out}:")  # fmt: skip
            case 5:
                self.emit(f"mov r1, {reg}", f"call local {name}")
                self.functions += [f"{name}:", "lddw r2, map_value 9+0", "jset r1, 4, +1", "mov r6, 1", "add r2, r1",
                                   "ldxb r0, [r2+0]", "exit"]  # fmt: skip
            case 6:  # in the callee, through the caller's stack
                slot = self.r.choice(SLOTS)
                self.emit(f"stxdw [r10{slot}], {reg}", "mov r1, r10", f"add r1, {slot}", f"mov r2, {reg}", f"call local {name}")
                self.functions += [f"{name}:", "jset r2, 4, +1", "mov r6, 1", "ldxdw r3, [r1+0]", "lddw r2, map_value 9+0",
                                   "add r2, r3", "ldxb r0, [r2+0]", "stxdw [r1+0], r0", "exit"]  # fmt: skip
            case _:
                self.emit(f"jgt32 {reg}, 15, {out}", f"mov32 {reg}, {reg}", "lddw r2, map_value 9+0", f"add r2, {reg}",
                          "ldxb r4, [r2+0]", f"ja +{1 + len(self.bad_end())}", f"{out}:", *self.bad_end(), "mov r4, 0")  # fmt: skip

    def linked_numbers(self) -> None:
        """What is shown of one number holds for another."""
        a, b = self.registers(2)
        slot, out, delta = self.r.choice(SLOTS), self.label(), self.r.choice((0, 0, 0, 4, 8))
        wide = self.r.choice(("", "", "32"))

        def linked(by: int) -> Lines:
            add = [f"add{wide} {b}, {by}"] if by else []
            if self.r.random() < 0.3:
                return [f"stxdw [r10{slot}], {a}", f"ldxdw {b}, [r10{slot}]", *add]
            return [f"mov{wide} {b}, {a}", *add]

        own, other = self.r.choice(((f"ldxdw {a}, [r9+32]", "ldxw"), (f"ldxw {a}, [r9+40]", "ldxsw")))
        self.emit(own, *self.unknown(b))
        apart = [f"{other} {b}, [r9+44]", f"mov r4, {b}", f"mov r3, {a}"]  # both have copies, but not one another
        self.two(lambda: linked(delta), lambda: self.r.choice((apart, apart, linked(delta + 9), [], [f"mov32 {b}, {a}"])), 0.3)
        self.carry(self.r.choice((a, b)))
        if self.r.random() < 0.2:
            self.emit(f"sub {b}, {a}")
            self.use_small(b)
            return
        first, second = (a, b) if self.r.random() < 0.6 else (b, a)
        low = delta if first == b else 0
        if low:
            self.emit(f"jlt {first}, {low}, {out}")
        if self.r.random() < 0.3:
            self.emit(f"stxdw [r10{slot}], {second}")
        self.emit(f"j{self.r.choice(('gt', 'sgt', 'gt', 'gt32'))} {first}, {low + 7}, {out}")
        if self.r.random() < 0.3:
            self.emit(f"jslt {first}, {low}, {out}")
        if self.r.random() < 0.15:
            self.emit(f"jeq {first}, {second}, {out}" if delta else f"jne {first}, {second}, +{len(self.bad_end())}",
                      *(["ja +0"] if not delta else []))  # fmt: skip
        if self.r.random() < 0.3:
            self.emit(f"ldxdw {second}, [r10{slot}]" if self.r.random() < 0.5 else f"mov r3, {second}")
        self.use_small(second)
        self.emit(f"{out}:")

    # ---- NULL --------------------------------------------------------------------------------------------------------------

    def lookup(self, index: int = 0) -> None:
        """r0 becomes the address of a value, or NULL."""
        key = "stw [r10-12]" if index != 1 else "stdw [r10-16]"
        at, load = (-12, "ldxw") if index != 1 else (-16, "ldxdw")
        if self.r.random() < 0.7:
            self.emit(f"{key}, {self.r.choice((3, 3, 3, 50))}")
        else:
            self.emit(
                f"{load} r4, [r9+40]" if index != 1 else "ldxdw r4, [r9+32]", "rsh r4, 2", f"{key.replace('st', 'stx', 1)}, r4"
            )
        self.emit("mov r2, r10", f"add r2, {at}", f"lddw r1, map {index}", "call 1")

    def same_null(self) -> None:
        a, b = self.registers(2)
        out = self.label()
        self.lookup()
        self.emit(f"mov {a}, r0")
        self.lookup(self.r.choice((0, 0, 2)))
        self.emit(f"mov {b}, r0")
        self.two(lambda: [f"mov {b}, {a}"], lambda: [], 0.4)
        self.carry(a, number=False)
        self.emit(f"jeq {a}, 0, {out}", f"ldxw r4, [{b}+0]", f"{out}:", f"mov {a}, 1", f"mov {b}, 2")

    def compared_with_null(self) -> None:
        (a,) = self.registers(1)
        out = self.label()
        self.lookup()
        self.emit(f"mov {a}, r0")
        self.two(lambda: [f"jeq {a}, 0, {out}"], lambda: ["mov r4, 0"], 0.4)
        self.carry(a, number=False)
        self.emit(f"ldxw r4, [{a}+0]", f"{out}:", f"mov {a}, 1")

    def null_in_a_register(self) -> None:
        (a,) = self.registers(1)
        out = self.label()
        self.emit(f"mov {a}, 0")
        self.two(lambda: [f"mov {a}, 0"], lambda: [f"mov {a}, {self.r.choice((1, 5))}"], 0.4)
        self.lookup()
        self.emit(self.r.choice((f"jeq r0, {a}, {out}", f"jeq {a}, r0, {out}")), "ldxw r4, [r0+0]", f"{out}:")

    # ---- packets ------------------------------------------------------------------------------------------------------------

    def still_the_packet(self) -> None:
        (a,) = self.registers(1)
        out = self.label()
        self.emit(f"ldxdw {a}, [r9+0]", "ldxdw r2, [r9+8]", f"mov r4, {a}", "add r4, 8", f"jgt r4, r2, {out}")
        self.two(lambda: ["mov r1, r9", "call 0x109"], lambda: ["mov r1, r9", "mov r2, 20", "call 0x102"], 0.4)
        self.carry(a, number=False)
        self.emit(f"ldxw r4, [{a}+4]", f"{out}:", f"mov {a}, 1")

    def proven_bytes(self) -> None:
        (a,) = self.registers(1)
        out, n = self.label(), self.r.choice((4, 9, 15, 21, 42))
        self.emit(f"ldxdw {a}, [r9+0]", "ldxdw r2, [r9+8]")

        def shown(by: int) -> Lines:
            return [f"mov r4, {a}", f"add r4, {by}", f"jgt r4, r2, {out}"]

        self.two(lambda: shown(n), lambda: self.r.choice((shown(n - 1), shown(1), ["mov r4, 0"])), 0.4)
        self.carry(a, number=False)
        self.emit(f"ldxb r4, [{a}+{n - 1}]", f"{out}:", f"mov {a}, 1")

    def same_base(self) -> None:
        a, b = self.registers(2)
        out = self.label()

        def moved() -> Lines:
            return [*self.unknown("r4"), f"and r4, {self.r.choice((7, 31))}", f"ldxdw {b}, [r9+0]", f"add {b}, r4"]

        self.emit(*self.unknown("r4"), "and r4, 31", f"ldxdw {a}, [r9+0]", f"add {a}, r4", *moved())
        self.two(lambda: [f"mov {b}, {a}"], lambda: self.r.choice((moved(), [], [f"mov {b}, {a}", f"add {b}, 4"])), 0.3)
        self.carry(a, number=False)
        self.emit("ldxdw r2, [r9+8]", f"mov r4, {a}", "add r4, 4", f"jgt r4, r2, {out}", f"ldxw r4, [{b}+0]", f"{out}:",
                  f"mov {a}, 1", f"mov {b}, 2")  # fmt: skip

    def proven_before_two_joins(self) -> None:
        """What is behind the second join is known when the second way gets there, and needed of the third way all the same."""
        a, c = self.registers(2)
        out, on = self.label(), self.label()
        base = [*self.unknown("r4"), "and r4, 31", f"add {a}, r4"] if self.r.random() < 0.7 else []
        self.emit(f"ldxdw {a}, [r9+0]", "ldxdw r2, [r9+8]", *base)
        proof = [f"mov r4, {a}", "add r4, 4", f"jgt r4, r2, {out}"]
        self.arms([f"mov {c}, 1", *proof], [f"mov {c}, 2", *proof], [f"mov {c}, 2", *(proof if self.r.random() < 0.3 else [])])
        self.emit(f"jeq {c}, 1, {on}", "mov r4, 0", f"{on}:", f"ldxw r4, [{a}+0]", f"{out}:", f"mov {a}, 1", f"mov {c}, 1")

    def known_distance(self) -> None:
        a, b, c = self.registers(3)
        out, slot = self.label(), self.r.choice(SLOTS)
        self.emit(f"ldxdw {b}, [r9+0]", "ldxdw r2, [r9+8]")
        linked = self.r.choice(([], [f"mov {c}, {a}", f"add {c}, 4"], [f"mov {c}, {a}", f"add {c}, 4", f"stxdw [r10{slot}], {c}"]))
        more = ["mov r3, r2", f"sub r3, {b}"] * self.r.choice((0, 0, 7, 8))  # distances, the first of which is forgotten then

        def distance(by: int) -> Lines:
            return [f"mov {a}, r2", f"sub {a}, {b}", *([f"sub {a}, {by}"] if by else []), *linked, *more, *within]

        less = self.r.choice((0, 0, 4))
        within = self.r.choice(([], [f"jslt {a}, 0, {out}", f"jgt {a}, 100, {out}"]))
        number = [*self.unknown(a), f"and {a}, 1023", *linked]
        self.two(lambda: distance(less), lambda: self.r.choice((number, number, distance(less - 8))), 0.35)
        self.carry(a)
        if self.r.random() < 0.3:
            self.emit(f"mov r4, {a}", f"mov {a}, r4")
        self.emit(f"{self.r.choice(('jslt', 'jslt', 'jlt', 'jle'))} {a}, {16 - less}, {out}", f"ldxb r4, [{b}+15]", f"{out}:",
                  f"mov {a}, 1", f"mov {b}, 2")  # fmt: skip

    # ---- the stack ------------------------------------------------------------------------------------------------------------

    def written_bytes(self) -> None:
        slot = self.r.choice((-160, -168, -176))
        (a,) = self.registers(1)

        def wrote() -> Lines:
            return self.r.choice((
                [f"stdw [r10{slot}], 5"], [f"stxdw [r10{slot}], r8"], [f"stw [r10{slot}], 5", f"stw [r10{slot + 4}], 6"],
                ["mov r4, r10", f"stxdw [r10{slot}], r4", f"stdw [r10{slot}], 1"],
            ))  # fmt: skip

        def part() -> Lines:
            return self.r.choice(
                ([f"stw [r10{slot}], 5"], ["mov r4, r10", f"stxdw [r10{slot}], r4", f"stw [r10{slot}], 1"], ["mov r4, 0"])
            )

        self.two(wrote, part, 0.4)
        self.carry(a)
        match self.r.randrange(4):
            case 3:
                self.two(lambda: ["mov r2, r10", "add r2, -16"], lambda: ["mov r2, r10", f"add r2, {NEVER}"], 0.4)
                self.emit("lddw r1, map 1", "call 1")
            case 0:
                self.emit(f"ldxw {a}, [r10{slot + 4}]")
            case 1:
                self.emit(f"ldxdw {a}, [r10{slot}]")
            case _:
                self.emit("lddw r1, map 1", "mov r2, r10", f"add r2, {slot}", "call 1")

    def bytes_or_address(self) -> None:
        """Bytes that are plain data on one way and part of an address on the other; r0 would show it."""
        slot = self.r.choice(SLOTS)
        a, b = self.registers(2)

        def data() -> Lines:
            return self.r.choice((
                [f"stxdw [r10{slot}], {b}"],
                [f"stdw [r10{slot}], 3", "mov r4, 1", f"lock add [r10{slot}], r4", f"stw [r10{slot}], 1"],
                [f"stw [r10{slot}], 3", f"stxw [r10{slot + 4}], {b}"],
            ))  # fmt: skip

        self.two(data, lambda: ["mov r4, r10", f"add r4, {slot}", f"stxdw [r10{slot}], r4"], 0.4)
        if self.r.random() < 0.4:
            self.emit(f"stw [r10{slot}], 9")
        self.carry(b)
        self.emit(self.r.choice((f"ldxw {a}, [r10{slot + 4}]", f"ldxdw {a}, [r10{slot}]", f"ldxh {a}, [r10{slot + 2}]")))

    def kind_of_a_register(self) -> None:
        (a,) = self.registers(1)
        slot = self.r.choice(SLOTS)
        self.two(lambda: self.unknown(a), lambda: [f"mov {a}, r10"], 0.4)
        self.emit(self.r.choice((f"add {a}, 1", f"stxw [r10{slot}], {a}", f"xor {a}, 5", f"mov32 {a}, {a}", f"stxb [r10-3], {a}")))
        if self.r.random() < 0.5:
            self.emit(f"mov {a}, 1")

    # ---- addresses -------------------------------------------------------------------------------------------------------------

    def moved_address(self) -> None:
        """An address whose offset, constant or variable, differs: within its object, aligned, or not."""
        (a,) = self.registers(1)
        out = self.label()
        self.lookup(2 if self.r.random() < 0.3 else 0)
        self.emit(f"jeq r0, 0, {out}", f"mov {a}, r0")
        constant = self.r.random() < 0.5

        def near() -> Lines:
            return [f"add {a}, 8"] if constant else [*self.unknown("r4"), "and r4, 8", f"add {a}, r4"]

        def far() -> Lines:
            by = ["and r4, 15"], ["and r4, 24"], ["and r4, 4"], ["and r4, 7"], ["and r4, 3", "lsh r4, 3"]
            return [f"add {a}, {self.r.choice((9, 12))}"] if constant else [*self.unknown("r4"), *self.r.choice(by), f"add {a}, r4"]

        self.two(near, far, 0.4)
        self.carry(a, number=False)
        uses = f"ldxdw r4, [{a}+0]", f"lock add [{a}+0], r4", f"stxdw [{a}+0], r4", f"ldxw r4, [{a}+4]"
        self.emit("mov r4, 1", self.r.choice(uses), f"{out}:", f"mov {a}, 1")

    def where_it_points(self) -> None:
        """Objects of other sizes, read-only ones, stack of the caller and of others."""
        (a,) = self.registers(1)
        data, constant, stack = ([f"lddw {a}, map_value 8+0"], [f"lddw {a}, map_value 9+0"], [f"mov {a}, r10", f"add {a}, -16"])
        self.two(lambda: self.r.choice((data, stack)), lambda: constant, 0.5)
        self.carry(a, number=False)
        self.emit(self.r.choice((f"stdw [{a}+0], 4", f"ldxdw r4, [{a}+8]", f"stb [{a}+15], 1")), f"mov {a}, 1")

    def address_order(self) -> None:
        """Two addresses within one object; one of the outcomes cannot be."""
        base = self.r.choice((["mov r2, r10"], ["lddw r2, map_value 8+8"], ["ldxdw r2, [r9+0]"]))
        x, y = self.r.choice((0, -8, 8, -16, 4)), self.r.choice((0, -8, 8, -4))
        out = self.label()
        jump = self.r.choice(("jgt", "jge", "jlt", "jle", "jeq", "jne", "jset", "jsgt"))
        if base[0] == "mov r2, r10":
            x, y = min(x, 0), min(y, 0)
        self.emit(*base, "mov r3, r2", f"add r2, {x}", f"add r3, {y}")
        if self.r.random() < 0.5:
            self.emit(f"{jump} r2, r3, {out}", *self.bad_end(), f"{out}:")
        else:
            self.emit(f"{jump} r2, r3, +1", f"ja {out}", *self.bad_end(), f"{out}:")

    def pointer_loop(self) -> None:
        """p != end, over the stack, global data or a value."""
        base, size = self.r.choice(((["mov r2, r10", "add r2, -32"], 32), (["lddw r2, map_value 8+0"], 16)))
        step = self.r.choice((1, 4, 8, 3))
        end, again = self.r.choice((size, size, size - step)), self.label()
        self.emit(*base, "mov r3, r2", f"add r3, {end}")
        self.two(lambda: ["mov r4, 0"], lambda: [f"add r2, {self.r.choice((step, 1))}"], 0.6)
        access = {1: "ldxb r4", 3: "ldxb r4", 4: "ldxw r4", 8: "ldxdw r4"}[step]
        self.emit(f"{again}:", f"{access}, [r2+0]", f"add r2, {step}", f"{self.r.choice(('jne', 'jlt', 'jlt'))} r2, r3, {again}")

    def lines_touched(self) -> None:
        """Cache lines that only one of the ways has paid for."""
        (a,) = self.registers(1)
        out = self.label()
        if self.r.random() < 0.5:
            self.emit(f"ldxdw {a}, [r9+0]", "ldxdw r2, [r9+8]", f"mov r4, {a}", "add r4, 128", f"jgt r4, r2, {out}")
            at = self.r.choice((0, 64, 100))
        else:
            self.lookup(self.r.choice((0, 1)))
            self.emit(f"jeq r0, 0, {out}", f"mov {a}, r0")
            at = self.r.choice((0, 8))
        others = ["lddw r4, map_value 9+0", "ldxb r4, [r4+0]", "lddw r4, map_value 8+0", "ldxb r4, [r4+0]"]
        self.two(lambda: [f"ldxb r4, [{a}+{at}]"], lambda: others, 0.3)
        self.carry(a, number=False)
        self.emit(f"ldxb r4, [{a}+{at}]", f"{out}:", f"mov {a}, 1")
