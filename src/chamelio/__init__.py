"""Chamelio: a fast shared network stack for tenant-defined protocols.

Applications find here what they use of TCP; it is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chamelio.sockets.stream import create_connection, create_server, open_connection, start_server

__version__ = "0.1.0"
__all__ = ["create_connection", "create_server", "open_connection", "start_server"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from chamelio.sockets import stream

        return getattr(stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
