"""Print the README's command of a kind: the shell block that follows `<!-- command: KIND -->`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
found = re.search(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```sh\n(.*?)```", text, re.DOTALL)
if not found:
    sys.exit(f"the README has no command {sys.argv[1]!r}")
print(found.group(1).strip())
