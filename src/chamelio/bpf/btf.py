"""BTF, the type information of BPF objects: reading it, asking it, and turning its structures into NumPy dtypes.

Format: https://docs.kernel.org/bpf/btf.html. The input is hostile: all that is read is checked against its bounds,
cyclic types are found rather than followed, and the work done is linear in the input.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from chamelio.bpf.insn import BpfFormatError
from chamelio.bpf.strings import Strings

if TYPE_CHECKING:
    import numpy as np

MAX_TYPES = 1 << 18
MAX_BYTES = 1 << 31  # of one type; also the largest item of a NumPy dtype
MAX_NESTING = 32  # structures within structures by value
MAX_CHAIN = 64  # typedefs, qualifiers and array dimensions in a row
MAX_FIELDS = 1 << 17  # of all dtypes together, anonymous members and their fields included


@dataclass(frozen=True, slots=True)
class Void:
    """Type 0."""

    kind = "void"
    name = ""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer of `size` bytes; `bits` may be fewer in old bit fields."""

    name: str
    size: int
    bits: int
    signed: bool
    kind = "int"


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number of `size` bytes."""

    name: str
    size: int
    kind = "float"


@dataclass(frozen=True, slots=True)
class Ptr:
    """A pointer to `type`: 8 bytes."""

    type: int
    kind = "ptr"
    name = ""


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements of `type`."""

    type: int
    count: int
    kind = "array"
    name = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A field: `offset` in bits from the structure's start; `bits` is the width of a bit field, 0 of any other."""

    name: str
    type: int
    offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure or union (`kind`) of `size` bytes."""

    kind: str
    name: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration stored in `size` bytes."""

    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]
    kind = "enum"


@dataclass(frozen=True, slots=True)
class Fwd:
    """A structure or union that is declared but not defined."""

    name: str
    union: bool
    kind = "fwd"


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name (`kind` typedef) or a qualifier (const, volatile, restrict, type_tag) of `type`."""

    kind: str
    name: str
    type: int


@dataclass(frozen=True, slots=True)
class Func:
    """A function; `type` is its prototype."""

    name: str
    type: int
    linkage: int
    kind = "func"


@dataclass(frozen=True, slots=True)
class FuncProto:
    """What a function returns (`type`) and takes: (name, type) pairs."""

    type: int
    params: tuple[tuple[str, int], ...]
    kind = "func_proto"
    name = ""


@dataclass(frozen=True, slots=True)
class Var:
    """A global variable; `linkage` is 0 static, 1 global, 2 extern."""

    name: str
    type: int
    linkage: int
    kind = "var"


@dataclass(frozen=True, slots=True)
class DataSec:
    """The variables of a section: (type, offset, size). Compilers leave offsets 0; symbols have the truth."""

    name: str
    size: int
    vars: tuple[tuple[int, int, int], ...]
    kind = "datasec"


@dataclass(frozen=True, slots=True)
class DeclTag:
    """`btf_decl_tag(name)` on `type`, or on its member or parameter `component` (-1: on itself)."""

    name: str
    type: int
    component: int
    kind = "decl_tag"


Type: TypeAlias = Void | Int | Float | Ptr | Array | Struct | Enum | Fwd | Alias | Func | FuncProto | Var | DataSec | DeclTag

_ALIASES = {8: "typedef", 9: "volatile", 10: "const", 11: "restrict", 18: "type_tag"}


class Reader:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: bytes, what: str, at: int = 0) -> None:
        self.data, self.what, self.at = data, what, at

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next fields. BpfFormatError when fewer bytes are left."""
        if self.at + layout.size > len(self.data):
            raise BpfFormatError(f"{self.what}: ends at byte {len(self.data)}, in the middle of a record at {self.at}")
        fields = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return fields

    def records(self, layout: struct.Struct, count: int) -> list[tuple[Any, ...]]:
        """`count` records in a row. BpfFormatError when they are not all there."""
        end = self.at + layout.size * count
        if end > len(self.data):
            raise BpfFormatError(f"{self.what}: the record at {self.at} claims {count} entries, which end past the data")
        fields = list(layout.iter_unpack(self.data[self.at : end]))
        self.at = end
        return fields


_U32 = struct.Struct("<I")
_U32X2 = struct.Struct("<II")
_U32X3 = struct.Struct("<III")
_S32 = struct.Struct("<i")
_ENUM = struct.Struct("<Ii")
_ENUM64 = struct.Struct("<IIi")
_ENUM64U = _U32X3
HEADER = struct.Struct("<HBBI")
SECTIONS = struct.Struct("<4I")


def header(data: bytes, what: str) -> tuple[int, int]:
    """(bytes of header, bytes of fixed header) of .BTF or .BTF.ext. BpfFormatError: wrong magic or version."""
    magic, version, _flags, length = Reader(data, what).take(HEADER)
    if magic == 0x9FEB:
        raise BpfFormatError(f"{what}: is big-endian; compile for -target bpfel")
    if magic != 0xEB9F or version != 1:
        raise BpfFormatError(f"{what}: starts with magic {magic:#06x}, version {version}; 0xeb9f, version 1 is expected")
    if not HEADER.size + SECTIONS.size <= length <= len(data):
        raise BpfFormatError(f"{what}: claims a header of {length} bytes in {len(data)} bytes")
    return length, HEADER.size


def section(data: bytes, base: int, offset: int, length: int, what: str) -> bytes:
    """A part of the data, at `offset` from the header's end. BpfFormatError when it is not within."""
    if base + offset + length > len(data):
        raise BpfFormatError(f"{what}: bytes {offset}..{offset + length} are past the end of the data")
    return data[base + offset : base + offset + length]


class _Parser:
    """Reads the type section, one record after the other."""

    def __init__(self, data: bytes, strings: Strings) -> None:
        self.reader, self.strings = Reader(data, "BTF types"), strings

    def types(self) -> list[Type]:
        types: list[Type] = [Void()]
        while self.reader.at < len(self.reader.data):
            if len(types) > MAX_TYPES:
                raise BpfFormatError(f"BTF: more than {MAX_TYPES} types")
            types.append(self.type(len(types)))
        for id_, type_ in enumerate(types):
            for other in _references(type_):
                if other >= len(types):
                    raise BpfFormatError(f"BTF: type {id_} ({type_.kind}) refers to type {other} of {len(types)}")
        return types

    def type(self, id_: int) -> Type:
        name_at, info, size_or_type = self.reader.take(_U32X3)
        name = self.strings[name_at]
        kind, count, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        if kind in _ALIASES:
            return Alias(_ALIASES[kind], name, size_or_type)
        match kind:
            case 1:
                (encoding,) = self.reader.take(_U32)
                bits = encoding & 0xFF
                if size_or_type not in (1, 2, 4, 8, 16) or not 0 < bits <= 8 * size_or_type or encoding >> 16 & 0xFF:
                    raise BpfFormatError(f"BTF: type {id_} is an integer of {bits} bits in {size_or_type} bytes")
                return Int(name, size_or_type, bits, bool(encoding >> 24 & 1))
            case 2:
                return Ptr(size_or_type)
            case 3:
                element, _index, length = self.reader.take(_U32X3)
                return Array(element, length)
            case 4 | 5:
                return self.struct("struct" if kind == 4 else "union", name, size_or_type, count, flag)
            case 6:
                values = tuple((self.strings[at], value) for at, value in self.reader.records(_ENUM, count))
                if not flag:
                    values = tuple((label, value & 0xFFFFFFFF) for label, value in values)
                return self.enum(id_, name, size_or_type, flag, values)
            case 7:
                return Fwd(name, flag)
            case 12:
                return Func(name, size_or_type, count)
            case 13:
                params = self.reader.records(_U32X2, count)
                return FuncProto(size_or_type, tuple((self.strings[at], type_) for at, type_ in params))
            case 14:
                return Var(name, size_or_type, *self.reader.take(_U32))
            case 15:
                variables = self.reader.records(_U32X3, count)
                return DataSec(name, size_or_type, tuple((v[0], v[1], v[2]) for v in variables))
            case 16:
                if size_or_type not in (2, 4, 8, 12, 16):
                    raise BpfFormatError(f"BTF: type {id_} is a floating-point number of {size_or_type} bytes")
                return Float(name, size_or_type)
            case 17:
                return DeclTag(name, size_or_type, *self.reader.take(_S32))
            case 19:
                wide = self.reader.records(_ENUM64 if flag else _ENUM64U, count)
                return self.enum(id_, name, size_or_type, flag, tuple((self.strings[a], h << 32 | low) for a, low, h in wide))
        raise BpfFormatError(f"BTF: type {id_} is of the unknown kind {kind}")

    def struct(self, kind: str, name: str, size: int, count: int, bit_fields: bool) -> Struct:
        members = []
        for at, type_, offset in self.reader.records(_U32X3, count):
            bits = offset >> 24 if bit_fields else 0
            offset = offset & 0xFFFFFF if bit_fields else offset
            if offset + bits > 8 * size:
                raise BpfFormatError(
                    f"BTF: {kind} {name}: field {self.strings[at] or '(anonymous)'} is at bit {offset} of {8 * size}"
                )
            members.append(Member(self.strings[at], type_, offset, bits))
        return Struct(kind, name, size, tuple(members))

    def enum(self, id_: int, name: str, size: int, signed: bool, values: tuple[tuple[str, int], ...]) -> Enum:
        if size not in (1, 2, 4, 8):
            raise BpfFormatError(f"BTF: type {id_} is an enumeration of {size} bytes")
        return Enum(name, size, signed, values)


def _references(type_: Type) -> list[int]:
    """The types that a type names."""
    match type_:
        case Struct():
            return [member.type for member in type_.members]
        case FuncProto():
            return [type_.type, *(param for _, param in type_.params)]
        case DataSec():
            return [variable for variable, _, _ in type_.vars]
        case Ptr() | Array() | Alias() | Func() | Var() | DeclTag():
            return [type_.type]
        case _:
            return []


class Btf:
    """The types of an object, by id. Type 0 is void."""

    def __init__(self, types: list[Type], strings: Strings) -> None:
        self.types, self.strings = types, strings
        self._dtypes: dict[int, np.dtype[Any]] = {}
        self._fields_left = MAX_FIELDS
        self._names: dict[tuple[str, str], int] = {}
        self._tags: dict[int, list[DeclTag]] = {}
        for id_, type_ in enumerate(types):
            self._names.setdefault((type_.kind, type_.name), id_)
            if isinstance(type_, DeclTag):
                self._tags.setdefault(type_.type, []).append(type_)

    @staticmethod
    def parse(data: bytes) -> Btf:
        """A `.BTF` section. BpfFormatError says what is wrong with it."""
        length, fixed = header(data, "BTF")
        type_at, type_length, string_at, string_length = SECTIONS.unpack_from(data, fixed)
        strings = Strings(section(data, length, string_at, string_length, "BTF strings"), "BTF strings")
        return Btf(_Parser(section(data, length, type_at, type_length, "BTF types"), strings).types(), strings)

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, id_: int) -> Type:
        """The type with an id, as it is written. BpfFormatError if there is none."""
        if not 0 <= id_ < len(self.types):
            raise BpfFormatError(f"BTF: there is no type {id_}; the last is {len(self.types) - 1}")
        return self.types[id_]

    def resolve_id(self, id_: int) -> int:
        """The id of what is behind typedefs and qualifiers. BpfFormatError when they go round in a circle."""
        start = id_
        for _ in range(MAX_CHAIN):
            type_ = self[id_]
            if not isinstance(type_, Alias):
                return id_
            id_ = type_.type
        raise BpfFormatError(f"BTF: type {start} is cyclic, or has over {MAX_CHAIN} typedefs and qualifiers in a row")

    def resolve(self, id_: int) -> Type:
        """The type behind typedefs and qualifiers. BpfFormatError when they go round in a circle."""
        return self.types[self.resolve_id(id_)]

    def sizeof(self, id_: int) -> int:
        """Bytes of a value of this type, or of a variable.

        BpfFormatError: it has no size (void, function, incomplete), is cyclic or too big.
        """
        count, start = 1, id_
        variable = self[id_]
        if isinstance(variable, Var):
            id_ = variable.type
        for _ in range(MAX_CHAIN):
            type_ = self.resolve(id_)
            if not isinstance(type_, Array):
                break
            count *= type_.count
            id_ = type_.type
        else:
            raise BpfFormatError(f"BTF: type {start} is cyclic, or an array of over {MAX_CHAIN} dimensions")
        match type_:
            case Int() | Float() | Struct() | Enum() | DataSec():
                size = type_.size
            case Ptr():
                size = 8
            case _:
                raise BpfFormatError(f"BTF: {self.describe(start)} has no size")
        if count * size >= MAX_BYTES:
            raise BpfFormatError(f"BTF: {self.describe(start)} takes {count * size} bytes; the limit is {MAX_BYTES - 1}")
        return count * size

    def describe(self, id_: int) -> str:
        """A type for people: its kind and name, as in C where it has one."""
        type_ = self[id_]
        return f"{type_.kind} {type_.name}" if type_.name else f"{type_.kind} (type {id_})"

    def find(self, name: str, kind: str) -> int:
        """The id of the first type with this name and kind (`struct`, `union`, `enum`, `typedef`, `var`, `func`, ...).

        An unnamed type is also found by the name that a typedef gives it. KeyError if there is none.
        """
        found = self._names.get((kind, name))
        if found is not None:
            return found
        alias = self._names.get(("typedef", name))
        if alias is not None:
            behind = self.resolve_id(alias)
            if self.types[behind].kind == kind:
                return behind
        raise KeyError(f"there is no {kind} {name} in this type information")

    def is_kernel_function(self, name: str) -> bool:
        """Whether a function is declared with `__ksym`, for the kernel to define."""
        section = self.types[self._names.get(("datasec", ".ksyms"), 0)]
        variables = section.vars if isinstance(section, DataSec) else ()
        return any(self.types[id_].kind == "func" and self.types[id_].name == name for id_, _, _ in variables)

    def enum(self, name: str) -> dict[str, int]:
        """The enumerators of `enum NAME` with their values. KeyError if there is none."""
        type_ = self.types[self.find(name, "enum")]
        assert isinstance(type_, Enum)
        return dict(type_.values)

    def decl_tags(self, id_: int) -> dict[str, list[str]]:
        """The tags of a structure's fields, by field name; those of the structure itself under the empty name."""
        id_ = self.resolve_id(id_)
        type_ = self.types[id_]
        out: dict[str, list[str]] = {}
        for tag in self._tags.get(id_, ()):
            field = ""
            if isinstance(type_, Struct) and tag.component >= 0:
                if tag.component >= len(type_.members):
                    raise BpfFormatError(f"BTF: tag {tag.name} is on field {tag.component} of {self.describe(id_)}")
                field = type_.members[tag.component].name
            out.setdefault(field, []).append(tag.name)
        return out

    # ---- dtypes ------------------------------------------------------------------------------------------------

    def dtype(self, id_: int) -> np.dtype[Any]:
        """The NumPy dtype of a type, laid out as in C.

        Structures and unions become structured dtypes with offsets and item size (fields of a union overlap; fields of
        anonymous members are lifted into the outer structure), arrays sub-arrays, enumerations and pointers integers.
        BpfFormatError: bit fields, types without a size, fields outside their structure, cyclic types.
        """
        return self._dtype(id_, 0)

    def _dtype(self, id_: int, depth: int) -> np.dtype[Any]:
        if depth > MAX_NESTING:
            raise BpfFormatError(f"BTF: type {id_} is cyclic, or nested over {MAX_NESTING} deep")
        id_ = self.resolve_id(id_)
        if id_ not in self._dtypes:
            try:
                self._dtypes[id_] = self._make_dtype(id_, depth)
            except BpfFormatError:
                raise
            except (ValueError, TypeError) as error:  # beyond what NumPy can hold, as too many array dimensions
                raise BpfFormatError(f"BTF: {self.describe(id_)} has no dtype: {error}") from None
        return self._dtypes[id_]

    def _make_dtype(self, id_: int, depth: int) -> np.dtype[Any]:
        import numpy as np  # verifying does without it, and starts sooner

        size = self.sizeof(id_)
        match self.types[id_]:
            case Int(signed=signed) | Enum(signed=signed):
                return np.dtype("V16") if size == 16 else np.dtype(f"<{'i' if signed else 'u'}{size}")
            case Float():
                return np.dtype(f"<f{size}") if size in (2, 4, 8) else np.dtype(f"V{size}")
            case Ptr():
                return np.dtype("<u8")
            case Array(type=element, count=count):
                inner = self._dtype(element, depth + 1)
                return np.dtype((inner.base, (count, *inner.shape)))
            case Struct() as type_:
                fields = self._fields(type_)
                return np.dtype(
                    {
                        "names": list(fields),
                        "formats": [self._dtype(field, depth + 1) for field, _ in fields.values()],
                        "offsets": [offset for _, offset in fields.values()],
                        "itemsize": size,
                    }
                )
        raise BpfFormatError(f"BTF: {self.describe(id_)} has no dtype")

    def _fields(self, outer: Struct) -> dict[str, tuple[int, int]]:
        """(type, byte offset) of a structure's fields by name, those of anonymous members among them."""
        fields: dict[str, tuple[int, int]] = {}
        self._spend(outer)
        waiting = [(outer, member, 0) for member in reversed(outer.members)]
        while waiting:
            parent, member, base = waiting.pop()
            where = f"BTF: {outer.kind} {outer.name or '(anonymous)'}: field {member.name or '(anonymous)'}"
            if member.bits or member.offset % 8:
                raise BpfFormatError(f"{where} is a bit field, which arrays cannot show; use a whole integer")
            offset = member.offset // 8
            if offset + self.sizeof(member.type) > parent.size:
                raise BpfFormatError(f"{where} ends past the {parent.size} bytes of its structure")
            inner = self.resolve(member.type)
            if not member.name and isinstance(inner, Struct):
                self._spend(inner)
                waiting += [(inner, nested, base + offset) for nested in reversed(inner.members)]
                continue
            if member.name in fields or not member.name:
                raise BpfFormatError(f"{where} has no name, or one that another field has")
            fields[member.name] = (member.type, base + offset)
        return fields

    def _spend(self, type_: Struct) -> None:
        """Count the fields that are looked at: types can be written so that they expand beyond all bounds."""
        self._fields_left -= len(type_.members)
        if self._fields_left < 0:
            raise BpfFormatError(f"BTF: {type_.kind} {type_.name}: is cyclic, or types expand to over {MAX_FIELDS} fields")
