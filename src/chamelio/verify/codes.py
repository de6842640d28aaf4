"""The verifier's error codes: stable, each with what it means and what usually helps. `chamelio explain CODE` prints them."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """`kind` is the verdict that goes with it."""

    code: str
    kind: str
    title: str
    suggestion: str


_TABLE = [
    (
        "V101",
        "unsafe",
        "Memory safety: access outside the stack",
        "a frame has 512 bytes, at r10 - 512 to r10 - 1; use a map for more",
    ),
    (
        "V102",
        "unsafe",
        "Memory safety: access past the proven packet bytes",
        "compare the pointer plus the access's end with `ctx->data_end` before",
    ),
    ("V103", "unsafe", "Memory safety: access outside a map's value", "check the index against the value's size before"),
    (
        "V104",
        "unsafe",
        "Memory safety: access outside the ring's entry",
        "read it as the ring's value type, which says how long it is; only the ring hook has one",
    ),
    (
        "V105",
        "unsafe",
        "Memory safety: access outside the context",
        "load its fields by name and whole: struct chamelio_ctx, or what the kernel gives this type of program",
    ),
    ("V106", "unsafe", "Memory safety: access outside global data", "check the index against the array's size before"),
    (
        "V107",
        "unsafe",
        "Memory safety: not an address",
        "only pointers can be dereferenced: the context's, a lookup's, the stack's",
    ),
    ("V108", "unsafe", "Memory safety: the value may be NULL", "compare the result of the lookup with NULL before using it"),
    (
        "V110",
        "unsafe",
        "Register used before it has a value",
        "give the variable a value on every path; load `ctx->data` again after a helper that changes the packet",
    ),
    (
        "V111",
        "unsafe",
        "Stack bytes read before they were written",
        "initialise the variable, padding included: `struct key k = {}`",
    ),
    ("V112", "unsafe", "An address would leave the handler", "store and return values, not pointers"),
    ("V113", "unsafe", "Write to read-only memory", "the context and constant data cannot be written; copy what you change"),
    (
        "V114",
        "unsafe",
        "Arithmetic that pointers do not have",
        "add or subtract a checked integer; compare packet pointers with data_end, others with NULL",
    ),
    (
        "V115",
        "unsafe",
        "Atomic or shared access that may be misaligned",
        "align the field to its size; packets and odd offsets cannot be accessed so",
    ),
    ("V116", "unsafe", "The handler returns without a verdict", "return CHAM_DONE, CHAM_TX, CHAM_PUNT or CHAM_ERROR(reason)"),
    ("V117", "unsafe", "Something acquired is not given back", "release it on every path, also where later steps fail"),
    ("V120", "unsafe", "A helper gets an argument that it does not take", "see the helper's declaration in chamelio.h"),
    ("V121", "unsupported", "No such helper", "only the helpers of chamelio.h can be called"),
    (
        "V122",
        "unsafe",
        "Shared memory as a helper's argument",
        "copy the key or value to the stack first: somebody may change it meanwhile",
    ),
    ("V130", "unsafe", "The loop may never end", "bound the loop by a constant and change its counter in every turn"),
    ("V131", "unsafe", "Recursion", "write it as a loop with a bound"),
    ("V132", "unsafe", "Calls nest too deeply", "at most 8 frames; inline some of the functions"),
    ("V133", "unsafe", "Jump to where no instruction of this function begins", "rebuild the object with an unmodified compiler"),
    ("V134", "unsafe", "Control runs off the end of the function", "end every path with a return"),
    (
        "V140",
        "unsupported",
        "Instruction that is not supported",
        "call functions by their names, and build with `-mcpu=v4` or lower and `-fno-jump-tables`",
    ),
    (
        "V141",
        "unsupported",
        "No context for this section",
        "name the section chamelio/rx, chamelio/ring, chamelio/tx or chamelio/timer",
    ),
    ("V142", "unsupported", "Two handlers for one hook", "join them in one program, or leave one of them out"),
    (
        "V143",
        "unsupported",
        "Object that cannot be read",
        "build it with `clang -target bpfel -g -c`, or with `chamelio protocol build`, and do not link or strip it",
    ),
    (
        "V144",
        "unsupported",
        "Reference that cannot be resolved",
        "refer only to what this object defines: functions, global variables, and maps declared in .maps and compiled with -g",
    ),
    ("V145", "unsupported", "The verifier failed", "this is a bug of the verifier; please report the object"),
    (
        "V150",
        "imprecise",
        "The verifier cannot keep track of this",
        "let what differs be the same: all inbound rings one type of entry",
    ),
    ("V160", "budget", "Too much to explore", "shorten loops, and join conditions that are tested again and again"),
    (
        "V161",
        "budget",
        "The worst case costs more than the hook's budget",
        "do less per packet, or leave the rare part to the slow path",
    ),
]

CODES: dict[str, Code] = {code: Code(code, kind, title, help_) for code, kind, title, help_ in _TABLE}
