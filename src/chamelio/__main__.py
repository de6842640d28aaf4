"""`python -m chamelio` is the command `chamelio`."""

import sys

from chamelio.cli import main

sys.exit(main())
