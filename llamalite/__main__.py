"""`python -m llamalite` and the console script: hands over to `llamalite.cli`."""

from __future__ import annotations

import sys

from llamalite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
