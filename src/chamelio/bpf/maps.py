"""Map definitions of an object: BTF `.maps` as libbpf declares them, legacy `maps`, and global data."""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from itertools import pairwise

from chamelio.bpf.btf import Array, Btf, DataSec, Enum, FuncProto, Ptr, Struct, Type, Var
from chamelio.bpf.elf import SHF_WRITE, STT_NOTYPE, STT_OBJECT, Elf, Section, Symbol
from chamelio.bpf.fault import BUDGET, REFERENCE, Fault, Unsupported
from chamelio.bpf.insn import BpfFormatError

MAX_MAPS = 1024
MAX_FIELDS = 64  # of a declaration
MAX_DATA = 16 << 20  # bytes of global data, all sections together
MAP_KIND_DATA = 100  # MapDef.kind of global data

MAPS_SECTION = ".maps"
LEGACY_SECTION = "maps"
_SIZES = ("type", "max_entries", "key_size", "value_size")
_DATA_SECTIONS = (".rodata", ".data", ".bss")
_OF_MAPS = (12, 13)  # the kernel's arrays and hashes of maps
_SAMPLES_WORDS, _IPROUTE_WORDS = 7, 9  # of the definitions in the kernel's samples, and of iproute2's

Places = dict[tuple[int, int], int | Fault]  # (section, offset in bytes) -> index of the map that begins there, or why none does


@dataclass
class MapDef:
    """A map as the object declares it. Sizes in bytes; `key_type`, `value_type` are BTF ids.

    `attrs` holds every other number of the declaration, by its name there. Global data is a map of kind MAP_KIND_DATA with one
    entry, whose initial content is `data`; its `value_type` is the BTF data section. The values of a map of maps are maps
    like `inner`. `legacy`: declared in section maps, without types; `initial`: the object fills it with programs or maps.
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
    legacy: bool = False
    initial: bool = False


def is_maps(section: Section) -> bool:
    """Holds map definitions."""
    return section.name == MAPS_SECTION or _is_legacy(section)


def _is_legacy(section: Section) -> bool:
    return section.name == LEGACY_SECTION or section.name.startswith(LEGACY_SECTION + "/")


def declared_maps(elf: Elf, btf: Btf | None) -> tuple[list[MapDef], Places]:
    """The maps of `.maps` and then the legacy ones, each in the order of its section, and where they begin."""
    maps: list[MapDef] = []
    places: Places = {}
    for legacy in (False, True):
        for section in elf.sections:
            if not (_is_legacy(section) if legacy else section.name == MAPS_SECTION):
                continue
            found = _legacy(elf, section) if legacy else _typed(elf, section, btf)
            for offset, one in sorted(found.items()):
                if isinstance(one, MapDef) and len(maps) >= MAX_MAPS:
                    one = Fault(BUDGET, f"map {one.name}", f"an object has at most {MAX_MAPS} maps")
                if isinstance(one, MapDef):
                    places[section.index, offset] = len(maps)
                    maps.append(one)
                else:
                    places[section.index, offset] = one
    return maps, places


def _typed(elf: Elf, section: Section, btf: Btf | None) -> dict[int, MapDef | Fault]:
    """The maps of `.maps` by their offset, from the types of its variables."""
    variables: dict[str, int] = {}
    if btf is not None:
        with contextlib.suppress(KeyError):
            types = btf[btf.find(MAPS_SECTION, "datasec")]
            assert isinstance(types, DataSec)
            variables = {v.name: v.type for v in (btf[id_] for id_, _, _ in types.vars) if isinstance(v, Var)}
    declarations = _Declarations(btf) if btf is not None else None
    filled = sorted(r.offset for r in elf.relocations.get(section.index, []))
    found: dict[int, MapDef | Fault] = {}
    for symbol in elf.symbols:
        if symbol.section != section.index or symbol.type != STT_OBJECT or symbol.value >= section.size or symbol.value in found:
            continue
        if declarations is None or symbol.name not in variables:
            found[symbol.value] = Fault(REFERENCE, f"map {symbol.name}", "it has no type information (.BTF); compile with -g")
            continue
        one = declarations.of(variables[symbol.name])
        if isinstance(one, str):
            found[symbol.value] = Fault(REFERENCE, f"map {symbol.name}", one)
            continue
        initial = bisect_left(filled, symbol.value) < bisect_left(filled, symbol.value + symbol.size)
        inner = replace(one.inner, name=f"{symbol.name}.inner") if one.inner is not None else None
        found[symbol.value] = replace(one, name=symbol.name, attrs=dict(one.attrs), inner=inner, initial=initial)
    return found


class _Declarations:
    """Maps as types declare them; each type is read once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._known: dict[tuple[int, bool], MapDef | str] = {}

    def of(self, type_: int, *, inner: bool = False) -> MapDef | str:
        """The map that a variable of a type is, without a name; or what is wrong with it. `inner`: it is the value of another."""
        try:
            id_ = self._btf.resolve_id(type_)
        except BpfFormatError as error:
            return str(error)
        if (id_, inner) not in self._known:
            try:
                self._known[id_, inner] = self._read(id_, inner)
            except BpfFormatError as error:
                self._known[id_, inner] = str(error)
        return self._known[id_, inner]

    def _read(self, id_: int, inner: bool) -> MapDef:
        """From the fields of a structure: `int (*type)[N]` is a number, `T *key` a type. BpfFormatError."""
        btf, declaration = self._btf, self._btf[id_]
        if not isinstance(declaration, Struct) or declaration.kind != "struct":
            raise BpfFormatError(f"it is declared as {btf.describe(id_)}; a structure is expected")
        if len(declaration.members) > MAX_FIELDS:
            raise BpfFormatError(f"it has {len(declaration.members)} fields; a declaration has at most {MAX_FIELDS}")
        numbers: dict[str, int] = {}
        types: dict[str, int] = {}
        values: MapDef | None = None
        for member in declaration.members:
            if member.name in numbers or member.name in types:
                raise BpfFormatError(f"field {member.name} is declared twice")
            behind = btf.resolve(member.type)
            if member.name == "values":
                values = self._values(behind, inner)
                continue
            if isinstance(behind, Enum) and len(behind.values) == 1:  # __ulong of libbpf
                numbers[member.name] = behind.values[0][1]
                continue
            if not isinstance(behind, Ptr):
                raise BpfFormatError(f"field {member.name} is not a pointer, as `int (*{member.name})[N]` or `T *key`")
            if member.name in ("key", "value"):
                types[member.name] = behind.type
                continue
            target = btf.resolve(behind.type)
            if not isinstance(target, Array):
                raise BpfFormatError(f"field {member.name} is not supported; numbers are `int (*{member.name})[N]`")
            numbers[member.name] = target.count
        if "type" not in numbers:
            raise BpfFormatError("it has no field `type`; declare it with CHAM_ARRAY or its like")
        sizes = {}
        for part in ("key", "value"):
            stated = numbers.get(f"{part}_size")
            sizes[part] = btf.sizeof(types[part]) if part in types else stated or 0
            if stated is not None and stated != sizes[part]:
                raise BpfFormatError(f"{part}_size is {stated}, but its type takes {sizes[part]} bytes")
        if numbers["type"] in _OF_MAPS:
            sizes["value"] = sizes["value"] or 4  # the number of a map, as libbpf has it
        return MapDef(
            name="",
            kind=numbers["type"],
            key_size=sizes["key"],
            value_size=sizes["value"],
            max_entries=numbers.get("max_entries", 0),
            attrs={attribute: number for attribute, number in numbers.items() if attribute not in _SIZES},
            key_type=types.get("key"),
            value_type=types.get("value"),
            inner=values,
        )

    def _values(self, behind: Type, inner: bool) -> MapDef | None:
        """The map that `__array(values, struct {...})` describes; None for an array of programs."""
        pointer = self._btf.resolve(behind.type) if isinstance(behind, Array) else None
        if not isinstance(pointer, Ptr):
            raise BpfFormatError("field values is not an array of pointers, as `__array(values, struct {...})`")
        if isinstance(self._btf.resolve(pointer.type), FuncProto):
            return None
        if inner:
            raise BpfFormatError("maps of maps of maps are not supported")
        model = self.of(pointer.type, inner=True)
        if isinstance(model, str):
            raise BpfFormatError(f"field values: {model}")
        return model


def _legacy(elf: Elf, section: Section) -> dict[int, MapDef | Fault]:
    """The maps of a section `maps` by their offset: words from one symbol to the next, `struct bpf_map_def` in front."""
    symbols: dict[int, Symbol] = {}
    for symbol in elf.symbols:
        named = symbol.section == section.index and symbol.type in (STT_OBJECT, STT_NOTYPE) and symbol.name
        if named and symbol.value < section.size:
            symbols.setdefault(symbol.value, symbol)
    starts = sorted(symbols)
    found: dict[int, MapDef | Fault] = {}
    words: dict[int, list[int]] = {}
    for start, end in pairwise([*starts, section.size]):
        name, record = symbols[start].name, section.data[start:end]
        if len(record) < 16:
            found[start] = Fault(REFERENCE, f"map {name}", f"its definition has {len(record)} bytes; at least 16 are expected")
            continue
        fields = words[start] = list(struct.unpack(f"<{len(record) // 4}I", record[: len(record) & ~3]))
        attrs = {"map_flags": fields[4]} if len(fields) > 4 else {}
        found[start] = MapDef(name, fields[0], fields[1], fields[2], fields[3], attrs, legacy=True)
    order, by_id = list(words), {fields[5]: at for at, fields in words.items() if len(fields) == _IPROUTE_WORDS}
    for start, fields in words.items():
        one = found[start]
        if not isinstance(one, MapDef) or one.kind not in _OF_MAPS:
            continue
        at = None  # where the map begins that this one holds: known by its number, or by its id
        if len(fields) == _SAMPLES_WORDS and fields[5] < len(order):
            at = order[fields[5]]
        elif len(fields) == _IPROUTE_WORDS and fields[7]:
            at = by_id.get(fields[7])
        model = found.get(at) if at is not None else None
        if isinstance(model, MapDef) and model.kind not in _OF_MAPS:
            one.inner = model
    return found


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
        """The map's index. Unsupported: too many maps, too much data, or data that holds addresses."""
        if section.index in self._index:
            return self._index[section.index]
        if section.index in self._elf.relocations:
            raise Unsupported(REFERENCE, f"global data that holds addresses ({section.name})", "nobody fills them in")
        if self._bytes + section.size > MAX_DATA:
            raise Unsupported(BUDGET, f"section {section.name}", f"an object has at most {MAX_DATA:,} bytes of global data")
        if len(self._maps) >= MAX_MAPS:
            raise Unsupported(BUDGET, f"section {section.name}", f"an object has at most {MAX_MAPS} maps, global data included")
        self._bytes += section.size
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
