"""What tcp.h and states.h of a protocol's folder say: the numbers of entries and events, the names of states."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from chamelio.messages import Refusal
from chamelio.protocols.tcp import states
from chamelio.tenant.folder import find_folder

DEFINE = re.compile(r"^#define (TCP_\w+) (\d+)\b", re.MULTILINE)


class Contract:
    """`contract["TCP_SEND"]` is a number of tcp.h, `contract.states` the names of states in order."""

    def __init__(self, folder: Path) -> None:
        """Raises Refusal when the folder is not one of TCP's."""
        try:
            self._numbers = {name: int(number) for name, number in DEFINE.findall((folder / "tcp.h").read_text())}
            self.states = states.parse((folder / "states.h").read_text()).states
        except (OSError, ValueError) as error:
            raise Refusal("usage", f"{folder} is no TCP: {error}", "it needs a tcp.h and a states.h like those of `tcp`") from None
        self.events = {number: name[4:] for name, number in self._numbers.items() if name in EVENTS}

    def __getitem__(self, name: str) -> int:
        return self._numbers[name]


EVENTS = ("TCP_CONNECTED", "TCP_ACCEPTED", "TCP_DATA", "TCP_FIN", "TCP_WRITABLE", "TCP_ENDED", "TCP_GROWN")


@functools.cache
def contract(protocol: str = "tcp") -> Contract:
    """Of a protocol: a folder, or a shipped one's name. Raises Refusal."""
    folder = find_folder(protocol)
    if folder is None:
        raise Refusal("usage", f"{protocol} is not the folder of a protocol", "give a folder with protocol.toml, or `tcp`")
    return Contract(Path(folder))
