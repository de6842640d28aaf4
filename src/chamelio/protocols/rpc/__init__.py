"""Requests and responses: handlers in rpc.bpf.c, the slow path in slowpath.py, and for applications `serve` and `connect`."""

from __future__ import annotations

from chamelio.protocols.rpc.endpoint import Client, Handler, RemoteError, Server, connect, serve

__all__ = ["Client", "Handler", "RemoteError", "Server", "connect", "serve"]
