"""`python -m llamalite` and the console script: hands over to `llamalite.cli`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from llamalite.cli.main import main as run


def main(argv: list[str] | None = None) -> int:
    """Run the command line; doesn't return once a native library was opened.

    Args:
        argv: the arguments; None = those of this process.

    NOTE: drivers and backends have exit handlers of their own, and some hang or crash. By then
    everything is done and said, so the process ends without them, after Python's own.
    """
    code = run(argv)
    if "llamalite.ffi.library" in sys.modules:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
