"""Print the README's table of commands, made from the command line's; `--write` puts it there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from llamalite.cli.main import COMMANDS, spelled  # noqa: E402

README = ROOT / "README.md"
BETWEEN = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- /commands -->\n)", re.DOTALL)


def table() -> str:
    """Return the table as Markdown."""
    rows = [(spelled(name).replace(", ", "`, `"), does) for name, does in COMMANDS.items()]
    return "| Command | |\n|---|---|\n" + "".join(f"| `{name}` | {does} |\n" for name, does in rows)


if __name__ == "__main__":
    if "--write" in sys.argv:
        text = README.read_text(encoding="utf-8")
        README.write_text(BETWEEN.sub(lambda _: table(), text, count=1), encoding="utf-8")
    else:
        print(table(), end="")
