"""Dispatch of commands, and what becomes of errors: one line on stderr and an exit code.

Owns the tables of commands and of exit codes. Imports commands only when they are asked for, so
that `--version` and usage errors take no longer than Python's own start.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys

from llamalite import __version__, errors
from llamalite.cli import terminal

COMMANDS = {
    "run": "Answer a prompt",
    "serve": "Answer over HTTP, as OpenAI's API does, with models of this computer",
    "pull": "Fetch models from the Hugging Face Hub or another address",
    "list": "List the models on this computer",
    "show": "Print what a model file says about itself",
    "fit": "Say whether a model fits into this computer's memory, and with how long a context",
    "rm": "Remove models, or names of models",
    "import": "Take a GGUF file into the store",
    "alias": "Give a model another name",
    "cp": "Give a model's file or a preset a second name",
    "create": "Make a preset over a model from a Modelfile",
    "verify": "Check models' files against their digests",
    "prune": "Remove what downloads and removals left behind",
    "config": "Show and change settings",
    "lib": "Fetch, list, choose and remove the native library, libllama",
    "doctor": "Say what works on this machine, what doesn't, and what to do about it",
}
"""What each command does: the first sentence of its module, `llamalite.cli.NAME`."""

SECOND_NAMES = {"ls": "list", "remove": "rm"}

_LATER = "it comes with a later version"
_NONE_LOADED = "a model is loaded only as long as the command or program runs that uses it"
_ELSEWHERE = {
    "chat": f"{_LATER}; 'llamalite run' answers a prompt",
    "ps": f"{_NONE_LOADED}; 'llamalite list' shows those on this computer",
    "stop": f"{_NONE_LOADED}; Ctrl-C ends it",
    "push": "models are not uploaded from here; 'hf upload' does that",
    "quantize": "models are not converted here; 'llamalite pull owner/repo:QUANT' fetches a "
    "quantization that is to be had",
    "download": "use 'llamalite pull'",
    "info": "use 'llamalite show'",
    "delete": "use 'llamalite rm'",
}
"""What to say of commands that similar programs have, and there are none here."""

_HELP = "Print this, or a command's help"
_EXITS = """\
Exit codes: 0 done, 1 other failure, 2 wrong usage or request, 3 library, 4 GGUF file, 5 model,
6 decoding, 7 engine, 8 download, 70 internal error, 130 interrupted, 141 output closed.
LLAMALITE_DEBUG=1 shows tracebacks too.
"""

EXIT_CODES: dict[type[BaseException], int] = {
    errors.LlamaliteError: 1,
    errors.RequestError: 2,
    errors.LibraryError: 3,
    errors.GGUFError: 4,
    errors.ModelError: 5,
    errors.DecodeError: 6,
    errors.EngineError: 7,
    errors.DownloadError: 8,
    OSError: 1,
    Exception: 70,
    KeyboardInterrupt: 130,
    BrokenPipeError: 141,  # as shells report a program that SIGPIPE ended
}
"""Families of errors to exit codes; a class takes the code of its nearest ancestor here."""


def exit_code(error: type[BaseException]) -> int:
    """Return the exit code of an error class."""
    return next(EXIT_CODES[cls] for cls in error.__mro__ if cls in EXIT_CODES)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises.

    Args:
        argv: the arguments; None = those of this process.
    """
    terminal.prepare_output()
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("LLAMALITE_DEBUG"):
            import traceback

            traceback.print_exc()
        return report(error)


def dispatch(argv: list[str]) -> int:
    """Run the command that `argv` names and return its exit code."""
    if not argv:
        terminal.show_on_stderr(overview())
        return 2
    name, rest = argv[0], argv[1:]
    if name in {"--version", "-V"}:
        terminal.write(f"llamalite {__version__}\n")
        return 0
    if name in {"help", "--help", "-h"}:
        if not rest or rest[0] == "help":
            terminal.write(overview())
            return 0
        name, rest = rest[0], ["--help"]
    name = SECOND_NAMES.get(name, name)
    if name not in COMMANDS:
        raise _unknown(name)
    code: int = importlib.import_module(module_of(name)).main(rest)
    return code


def module_of(name: str) -> str:
    """Return the module of a command; one called like a keyword of Python has a `_` behind it."""
    return f"llamalite.cli.{name}" + "_" * keyword.iskeyword(name)


def spelled(name: str) -> str:
    """Return a command's names as the overview and the README print them: `list, ls`."""
    return ", ".join([name, *(other for other, first in SECOND_NAMES.items() if first == name)])


def overview() -> str:
    """Return what `llamalite help` prints."""
    rows = {**{spelled(name): does for name, does in COMMANDS.items()}, "help": _HELP}
    width = max(map(len, rows))
    commands = "".join(f"  {names:<{width}}  {does}\n" for names, does in rows.items())
    return (
        f"llamalite {__version__}: runs GGUF language models on this computer.\n\n"
        "Usage:\n"
        "  llamalite COMMAND [ARGUMENT...]\n"
        "  llamalite COMMAND --help\n"
        "  llamalite --version\n\n"
        f"Commands:\n{commands}\n{_EXITS}"
    )


def report(error: BaseException) -> int:
    """Print one line about an error on stderr, unless it needs none; return its exit code."""
    if isinstance(error, BrokenPipeError | KeyboardInterrupt):
        terminal.abandon_output(error)
    elif isinstance(error, errors.LlamaliteError):
        terminal.complain(str(error))
    elif isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else " (while writing the output)"
        terminal.complain(f"{error.strerror or error}{where}")
        terminal.abandon_output(error)
    else:
        terminal.complain(
            f"internal error, {type(error).__name__}: {error} (please report it, with what "
            "LLAMALITE_DEBUG=1 prints)"
        )
    return exit_code(type(error))


def _unknown(name: str) -> errors.InvalidParameter:
    from difflib import get_close_matches

    if name.startswith("-"):
        return errors.InvalidParameter(
            f"unknown option {name}; options come after a command, see 'llamalite --help'"
        )
    if name in _ELSEWHERE:
        return errors.InvalidParameter(f"there is no command {name!r}: {_ELSEWHERE[name]}")
    near = get_close_matches(name, [*COMMANDS, *SECOND_NAMES, "help"], 2)
    hint = f"commands are {', '.join(COMMANDS)}, help"
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    return errors.InvalidParameter(f"unknown command {name!r}: {hint}")
