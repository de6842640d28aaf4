"""What the engine loads: units that ask for nothing but what is a unit's to use."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import llvmlite.binding as llvm
import pytest

from chamelio.engine.image import LIBC_IMPORTS, UNIT_IMPORTS, Image, ImageError
from chamelio.jit import modules

ENTRY = """
define void @cham_unit_init(ptr %unit) {{
  {body}
  ret void
}}
declare i64 @{name}(i64)
@kept = external global i64
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    yield Image(virtual=True, hardening=True)


def unit(body: str, name: str = "unused") -> bytes:
    """A unit's object code from the body of its entry."""
    return modules.emit(llvm.parse_assembly(ENTRY.format(body=body, name=name)))


def calls(name: str) -> bytes:
    return unit(f"%r = call i64 @{name}(i64 1)", name)


@pytest.mark.parametrize("name", [*UNIT_IMPORTS, *LIBC_IMPORTS])
def test_what_is_a_units_to_use_is_linked(image: Image, name: str) -> None:
    image.load([calls(name)]).close()


@pytest.mark.fault(14)
@pytest.mark.parametrize("name", ["system", "dlopen", "mprotect", "cham_run", "cham_command", "cham_wire_ops", "Py_Initialize"])
def test_code_that_asks_for_anything_else_is_refused_by_name(image: Image, name: str) -> None:
    with pytest.raises(ImageError, match=f"refers to {name}, which units have no access to"):
        image.load([calls(name)])


@pytest.mark.fault(14)
def test_data_that_is_defined_elsewhere_is_refused_too(image: Image) -> None:
    with pytest.raises(ImageError, match="refers to kept"):
        image.load([unit("%v = load volatile i64, ptr @kept")])


@pytest.mark.fault(14)
@pytest.mark.parametrize("data", [b"", b"\x7fELF", bytes(1000), b"\x7fELF\x02\x01\x01" + bytes(200)], ids=len)
def test_what_is_no_object_is_refused(image: Image, data: bytes) -> None:
    with pytest.raises(ImageError):
        image.load([data])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="patches an x86-64 object")
def test_code_for_another_machine_is_refused(image: Image) -> None:
    data = bytearray(unit(""))
    data[18:20] = (183).to_bytes(2, "little")
    with pytest.raises(ImageError, match="not a relocatable x86-64 object"):
        image.load([bytes(data)])
