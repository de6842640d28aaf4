"""A protocol as a user names it: a folder with protocol.toml, an object, a C source, or the name of a shipped protocol.

# protocol.toml
name = "udp"
ip_protocol = 17
source = "udp.bpf.c"              # or: object = "udp.bpf.o"
ports = [0, 65535]                # optional: destination ports that it takes
slowpath = "slowpath:UdpSlowPath" # optional: module:Class, the module in the folder
migrate = "migrate:migrate"       # optional: module:function that fills this version's maps from another's, see migration.py
steer = "port"                    # optional: what decides which core a flow lives on, "flow" (default) or the local "port"
"""

from __future__ import annotations

import difflib
import keyword
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from chamelio import toolchain
from chamelio.messages import Refusal

MANIFEST = "protocol.toml"
SHIPPED = toolchain.PACKAGE / "protocols"
TEMPLATE, TEMPLATE_IP_PROTOCOL = "ping", 253
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of protocol.toml."""

    name: str
    ip_protocol: int
    source: str | None = None
    object: str | None = None
    ports: tuple[int, int] = (0, 65535)
    slowpath: str | None = None
    migrate: str | None = None
    steer: Literal["flow", "port"] = "flow"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises Refusal, with the key that is wrong."""
    path = folder / MANIFEST
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Refusal("usage", f"{folder} is no protocol: it has no {MANIFEST}", "name a folder with one, or an object") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refusal("usage", f"{path} cannot be read: {error}") from None
    known = Manifest.__struct_fields__
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(known)}"
            raise Refusal("usage", f"{path}: there is no key {key!r}", hint)
    try:
        manifest = msgspec.convert(values, Manifest)
    except msgspec.ValidationError as error:
        raise Refusal("usage", f"{path}: {error}") from None
    if (manifest.source is None) == (manifest.object is None):
        raise Refusal("usage", f"{path}: it needs either `source` or `object`", 'e.g. source = "udp.bpf.c"')
    return manifest


def read_object(path: Path) -> bytes:
    """An object's bytes; a C source is built. Raises Refusal and BuildError."""
    if not path.exists():
        raise Refusal("usage", f"there is no file {path}")
    if path.is_dir():
        raise Refusal("usage", f"{path} is a folder", "name an object or a .bpf.c source")
    if path.suffix == ".c":
        return toolchain.bpf_object(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal("failed", f"{path} cannot be read: {error.strerror}") from None


def find_folder(text: str) -> Path | None:
    """The folder of a protocol: a folder by path, else a shipped protocol by name; None for a file. Raises Refusal."""
    path = Path(text)
    if path.is_dir():
        return path
    if path.is_file():
        return None
    shipped = sorted(p.parent.name for p in SHIPPED.glob(f"*/{MANIFEST}"))
    if text in shipped:
        return SHIPPED / text
    close = difflib.get_close_matches(text, shipped, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped protocols: {', '.join(shipped) or 'none'}"
    raise Refusal("usage", f"there is no file, folder or shipped protocol {text!r}", hint)


def read_protocol(text: str) -> tuple[Manifest, bytes]:
    """The manifest and object of what a user named; a file's name makes its manifest. Raises Refusal and BuildError."""
    folder = find_folder(text)
    if folder is not None:
        manifest = read_manifest(folder)
        return manifest, read_object(folder / str(manifest.source or manifest.object))
    path = Path(text)
    return Manifest(path.name.split(".")[0].lower(), 0, object=text), read_object(path)


def new_folder(name: str, parent: Path, ip_protocol: int = TEMPLATE_IP_PROTOCOL) -> Path:
    """Make a folder for a new protocol: the shipped `ping` under another name, which works at once. Raises Refusal."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Refusal(
            "usage", f"{name!r} cannot be a protocol's name", "it becomes part of C and Python names: a-z, then a-z, 0-9 and '_'"
        )
    folder = parent / name
    try:
        folder.mkdir(parents=True)
        for source in sorted(p for p in (SHIPPED / TEMPLATE).iterdir() if p.is_file()):
            target = folder / _renamed(source.name, name)
            target.write_text(_renamed(source.read_text(), name).replace(str(TEMPLATE_IP_PROTOCOL), str(ip_protocol)))
    except FileExistsError:
        raise Refusal("usage", f"{folder} exists already", "choose another name, or remove it") from None
    except OSError as error:
        raise Refusal("failed", f"{folder} cannot be made: {error.strerror}") from None
    return folder


def copy_folder(name: str, target: Path) -> Path:
    """Copy the folder of a shipped protocol, to be changed: another version of it, of the same name. Raises Refusal."""
    source = find_folder(name)
    if source is None:
        raise Refusal("usage", f"{name} is a file", "name a shipped protocol or a folder")
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__init__.py", "__pycache__"))
    except FileExistsError:
        raise Refusal("usage", f"{target} exists already", "choose another name, or remove it") from None
    except OSError as error:
        raise Refusal("failed", f"{target} cannot be made: {error.strerror}") from None
    return target


def _renamed(text: str, name: str) -> str:
    """The template's text with its name replaced wherever it is a word or begins one."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    text = re.sub(rf"(?<![A-Za-z]){TEMPLATE}(?![a-z])", name, text)
    text = re.sub(rf"\b{TEMPLATE.capitalize()}(?=[A-Z])", camel, text)
    return re.sub(rf"\b{TEMPLATE.upper()}_", f"{name.upper()}_", text)
