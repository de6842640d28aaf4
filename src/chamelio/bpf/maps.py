"""Map definitions of an object: BTF `.maps` as libbpf declares them, and global data."""

from __future__ import annotations

from dataclasses import dataclass, field

from chamelio.bpf.btf import Array, Btf, DataSec, Ptr, Struct, Var
from chamelio.bpf.elf import SHF_WRITE, STT_OBJECT, Elf, ObjectError, Section

MAX_MAPS = 64
MAX_DATA = 16 << 20  # bytes of global data, all sections together
MAP_KIND_DATA = 100  # MapDef.kind of global data

MAPS_SECTION = ".maps"
_SIZES = ("type", "max_entries", "key_size", "value_size")
_DATA_SECTIONS = (".rodata", ".data", ".bss")


@dataclass
class MapDef:
    """A map as the object declares it. Sizes in bytes; `key_type`, `value_type` are BTF ids.

    `attrs` holds every other `__uint` member of the declaration. Global data is a map of kind MAP_KIND_DATA with one
    entry, whose initial content is `data`; its `value_type` is the BTF data section.
    """

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    attrs: dict[str, int] = field(default_factory=dict)
    key_type: int | None = None
    value_type: int | None = None
    data: bytes | None = None
    read_only: bool = False
    inner: MapDef | None = None


def declared_maps(elf: Elf, btf: Btf | None) -> tuple[list[MapDef], dict[int, int]]:
    """The maps of section `.maps` in its order, and where each begins: offset in bytes -> index."""
    section = elf.find(MAPS_SECTION)
    if elf.find("maps") is not None:
        raise ObjectError("section maps: legacy map definitions are not supported; declare them in .maps, as CHAM_MAP does")
    if section is None:
        return [], {}
    if section.index in elf.relocations:
        raise ObjectError("section .maps: maps with initial values (maps of maps, program arrays) are not supported")
    if btf is None:
        raise ObjectError("section .maps: has no type information (.BTF); compile with -g")
    try:
        types = btf[btf.find(MAPS_SECTION, "datasec")]
    except KeyError:
        raise ObjectError("section .maps: its type information is missing; compile with -g") from None
    assert isinstance(types, DataSec)
    if len(types.vars) > MAX_MAPS:
        raise ObjectError(f"section .maps: {len(types.vars)} maps; an object has at most {MAX_MAPS}")
    symbols = {s.name: s for s in elf.symbols if s.section == section.index and s.type == STT_OBJECT}
    found: dict[int, MapDef] = {}
    for id_, _, _ in types.vars:
        var = btf[id_]
        if not isinstance(var, Var) or var.name not in symbols:
            raise ObjectError(f"section .maps: no symbol for {btf.describe(id_)}")
        offset = symbols[var.name].value
        if offset >= section.size or offset in found:
            raise ObjectError(f"map {var.name}: at byte {offset} of .maps ({section.size} bytes), or twice")
        found[offset] = _declared(btf, var)
    offsets = sorted(found)
    return [found[offset] for offset in offsets], {offset: index for index, offset in enumerate(offsets)}


def _declared(btf: Btf, var: Var) -> MapDef:
    """One map from the type of its variable: `int (*type)[N]` is a number, `T *key` a type."""
    name = var.name
    declaration = btf.resolve(var.type)
    if not isinstance(declaration, Struct) or declaration.kind != "struct":
        raise ObjectError(f"map {name}: is declared as {btf.describe(var.type)}; a structure is expected")
    numbers: dict[str, int] = {}
    types: dict[str, int] = {}
    for member in declaration.members:
        if member.name == "values":
            raise ObjectError(f"map {name}: field values is not supported: no maps of maps, no program arrays")
        pointer = btf.resolve(member.type)
        if not isinstance(pointer, Ptr):
            raise ObjectError(f"map {name}: field {member.name} is not a pointer, as `int (*{member.name})[N]` or `T *key`")
        if member.name in numbers or member.name in types:
            raise ObjectError(f"map {name}: field {member.name} is declared twice")
        if member.name in ("key", "value"):
            types[member.name] = pointer.type
            continue
        target = btf.resolve(pointer.type)
        if not isinstance(target, Array):
            raise ObjectError(f"map {name}: field {member.name} is not supported; numbers are `int (*{member.name})[N]`")
        numbers[member.name] = target.count
    if "type" not in numbers:
        raise ObjectError(f"map {name}: has no field `type`; declare it with CHAM_ARRAY or its like")
    sizes = {}
    for part in ("key", "value"):
        stated = numbers.get(f"{part}_size")
        sizes[part] = btf.sizeof(types[part]) if part in types else stated or 0
        if stated is not None and stated != sizes[part]:
            raise ObjectError(f"map {name}: {part}_size is {stated}, but its type takes {sizes[part]} bytes")
    return MapDef(
        name=name,
        kind=numbers["type"],
        key_size=sizes["key"],
        value_size=sizes["value"],
        max_entries=numbers.get("max_entries", 0),
        attrs={attribute: number for attribute, number in numbers.items() if attribute not in _SIZES},
        key_type=types.get("key"),
        value_type=types.get("value"),
    )


def is_data(section: Section) -> bool:
    """Holds global variables, constants or strings that code may refer to."""
    return any(section.name == name or section.name.startswith(name + ".") for name in _DATA_SECTIONS)


class DataMaps:
    """The maps of global data that code refers to, made when it first does; they follow the declared maps."""

    def __init__(self, elf: Elf, btf: Btf | None, maps: list[MapDef]) -> None:
        self._elf, self._btf, self._maps = elf, btf, maps
        self._index: dict[int, int] = {}
        self._bytes = 0

    def index(self, section: Section) -> int:
        """The map's index. ObjectError: too many maps, too much data, or data that holds addresses."""
        if section.index in self._index:
            return self._index[section.index]
        if section.index in self._elf.relocations:
            raise ObjectError(f"section {section.name}: global data that holds addresses is not supported")
        self._bytes += section.size
        if self._bytes > MAX_DATA:
            raise ObjectError(f"section {section.name}: over {MAX_DATA} bytes of global data")
        if len(self._maps) >= MAX_MAPS:
            raise ObjectError(f"section {section.name}: over {MAX_MAPS} maps, global data included")
        value_type = None
        if self._btf is not None:
            try:
                value_type = self._btf.find(section.name, "datasec")
            except KeyError:
                value_type = None  # strings have no type information
        self._maps.append(
            MapDef(
                name=section.name,
                kind=MAP_KIND_DATA,
                key_size=4,
                value_size=section.size,
                max_entries=1,
                value_type=value_type,
                data=section.data if section.data else bytes(section.size),
                read_only=not section.flags & SHF_WRITE,
            )
        )
        index = self._index[section.index] = len(self._maps) - 1
        return index
