"""The configuration file: read as it is, edited so that comments and order stay.

Owns its syntax, and that two who edit it at once both get their way. Doesn't know which settings
there are. Imports the standard library (tomli where Python has no tomllib), `llamalite.errors`,
`llamalite.locks` and `places`; tomlkit only to edit.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llamalite.config.places import config_path
from llamalite.errors import InvalidParameter, LlamaliteError
from llamalite.locks import open_lock, wait_for_lock

_LOCK_TIMEOUT_S = 10.0
_PRIVATE = 0o600  # it may hold keys


def read_config() -> dict[str, Any]:
    """Return what the configuration file says; empty if there is none.

    Raises:
        InvalidParameter: it can't be read or isn't TOML, or `LLAMALITE_CONFIG` names a file that
            isn't there.
    """
    path = config_path()
    content = _read(path)
    if content is None and os.environ.get("LLAMALITE_CONFIG"):
        raise InvalidParameter(
            f"LLAMALITE_CONFIG: there is no file {path}: make it with 'llamalite config init', or "
            "unset the variable",
            param="LLAMALITE_CONFIG",
        )
    return parse_toml(content or "", str(path))


def parse_toml(content: str, where: str) -> dict[str, Any]:
    """Return what TOML text says.

    Raises:
        InvalidParameter: it is no TOML; the message begins with `where` and names line and column.
    """
    if not content.strip():
        return {}
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        parsed: dict[str, Any] = toml.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"{where} is not valid TOML: {error}: correct it there") from None
    return parsed


def set_value(keys: Sequence[str], value: Any) -> Path:
    """Put a value into the file, making file, folder and tables on demand; return its path.

    Args:
        keys: tables from the outermost, then the key. Below a line `#key = …` of its table is its
            place.
        value: text, number, bool, or lists and dicts of them.

    Raises:
        InvalidParameter: the file isn't TOML, or holds a value where a table is needed.
        LlamaliteError: it can't be written.
    """

    def change(root: Any, make_table: Any) -> None:
        table = root
        for key in keys[:-1]:
            if key not in table:
                table[key] = make_table()
            table = table[key]
        table[keys[-1]] = value

    def insert(content: str) -> str | None:
        import tomlkit

        *tables, key = keys
        line = f"{key} = {tomlkit.item(value).as_string()}"
        return _below_comment(content, ".".join(tables), key, line)

    return _edit(change, insert)


def remove_value(keys: Sequence[str]) -> Path:
    """Take a value or table that is there out of the file; errors as in set_value.

    Tables that this empties go, too, but for those that hold comments.
    """

    def change(root: Any, _make_table: Any) -> None:
        tables = [root]
        for key in keys[:-1]:
            tables.append(tables[-1][key])
        del tables[-1][keys[-1]]
        for outer, key in zip(tables[-2::-1], keys[-2::-1], strict=True):
            if key in outer and not _is_bare(outer[key]):
                return
            outer.pop(key, None)

    return _edit(change)


def _is_bare(table: Any) -> bool:
    """Say whether a table, of tomlkit or none, holds neither values nor comments."""
    is_commented = hasattr(table, "as_string") and "#" in table.trivia.comment + table.as_string()
    return not table and not is_commented


def write_config(content: str, *, replace: bool) -> Path:
    """Write the whole file and return its path.

    Raises:
        InvalidParameter: there is one, and it isn't to be replaced.
        LlamaliteError: it can't be written.
    """
    with _held() as path:
        if _is_there(path) and not replace:
            raise InvalidParameter(f"there is a file {path}: --force writes over it")
        _write(path, content)
    return path


def _edit(
    change: Callable[[Any, Callable[[], Any]], None],
    insert: Callable[[str], str | None] = lambda _: None,
) -> Path:
    """Edit the file and return its path.

    Args:
        change: does it to nested tables, given a way to make more.
        insert: returns the text with the change at a better place; None = there is none.
    """
    import copy

    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    with _held() as path:
        content = _read(path) or ""
        wanted = copy.deepcopy(parse_toml(content, str(path)))
        try:
            document = tomlkit.parse(content)
            change(wanted, dict)
            if (edited := insert(content)) is None or not _says(edited, wanted, path):
                change(document, tomlkit.table)
                edited = tomlkit.dumps(document)
        except (TOMLKitError, TypeError, AttributeError, KeyError) as error:
            raise InvalidParameter(
                f"{path} is not laid out as it must be ({error}): edit it by hand"
            ) from None
        # NOTE: what tomlkit can't edit rightly, such as tables in odd places, must not be kept.
        if not _says(edited, wanted, path):
            raise InvalidParameter(f"{path} is written in a way that only you can edit")
        _write(path, edited)
    return path


def _says(content: str, wanted: dict[str, Any], path: Path) -> bool:
    """Say whether a file's text means what is wanted, empty tables aside."""
    try:
        return bool(_without_empty(parse_toml(content, str(path))) == _without_empty(wanted))
    except InvalidParameter:
        return False


def _without_empty(said: Any) -> Any:
    if not isinstance(said, dict):
        return said
    inner = {key: _without_empty(value) for key, value in said.items()}
    return {key: value for key, value in inner.items() if value != {}}


def _below_comment(content: str, table: str, key: str, line: str) -> str | None:
    """Return the text with a line added below `#key = …` in its table, or None if that isn't there.

    Args:
        content: of a file.
        table: its name as headers spell it; "" = above all of them.
        key: that has no value yet.
        line: sets it.
    """
    lines = content.splitlines(keepends=True)
    headers = [at for at, text in enumerate(lines) if re.match(r"#?\[", text)]
    starts = [at for at in headers if lines[at].startswith(f"[{table}]")] if table else [-1]
    for start in starts:
        end = next((at for at in headers if at > start), len(lines))
        for at in range(start + 1, end):
            if re.match(rf"#\s?{re.escape(key)}\s*=", lines[at]):
                ending = "\r\n" if lines[at].endswith("\r\n") else "\n"
                return "".join(
                    [
                        *lines[:at],
                        lines[at].rstrip("\r\n") + ending,
                        line + ending,
                        *lines[at + 1 :],
                    ]
                )
    return None


def _read(path: Path) -> str | None:
    """Return the file's text, None if there is no file."""
    try:
        return path.read_bytes().decode("utf-8-sig") if _is_there(path) else None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidParameter(
            f"{path} is not valid UTF-8 (byte {error.start}): convert it first"
        ) from None
    except OSError as error:
        raise InvalidParameter(f"{path} can't be read ({error.strerror or error})") from None


def _is_there(path: Path) -> bool:
    """Say whether there is a file.

    Raises:
        InvalidParameter: something else is there. A pipe would block whoever opens it, a device
            has no end, and neither is to be replaced by a file.
    """
    if not path.exists():
        return False
    if not path.is_file():
        raise InvalidParameter(f"{path} is no regular file: give settings another place")
    return True


def _write(path: Path, content: str) -> None:
    """Replace the file at once; its permissions stay."""
    import tempfile

    handle, fresh = tempfile.mkstemp(prefix=".config-", dir=path.parent)
    try:
        with open(handle, "wb") as stream:
            stream.write(content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(fresh, path.stat().st_mode & 0o777 if path.exists() else _PRIVATE)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


@contextlib.contextmanager
def _held() -> Iterator[Path]:
    """Lend the file's path (a link followed) while no other process edits it."""
    path = Path(os.path.realpath(config_path()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file stays: removing it would let two processes lock two files of one name.
        handle = open_lock(path.with_name(f".{path.name}.lock"), _PRIVATE)
        try:
            if not wait_for_lock(handle, _LOCK_TIMEOUT_S):
                raise LlamaliteError(
                    f"{path} has been in use by another program for 10 s: try again"
                )
            yield path
        finally:
            os.close(handle)
    except OSError as error:
        raise LlamaliteError(
            f"{path} can't be written ({error.strerror or error}): set LLAMALITE_CONFIG to another"
        ) from None
