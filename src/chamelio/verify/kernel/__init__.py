"""What kernel-style BPF programs may see and call: tables for `chamelio verify`. These programs are verified, never run.

The facts are those of Linux 6.18; `tests/verify/kernel` holds the tables against a kernel.
"""

from chamelio.verify.kernel.contexts import CONTEXTS, SOCKETS, context_of
from chamelio.verify.kernel.helpers import HELPERS, UNSUPPORTED
from chamelio.verify.kernel.maps import MAPS
from chamelio.verify.kernel.names import helper_names

__all__ = ["CONTEXTS", "HELPERS", "MAPS", "SOCKETS", "UNSUPPORTED", "context_of", "helper_names"]
