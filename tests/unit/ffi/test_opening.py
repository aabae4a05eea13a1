"""How libraries are opened, told from the calls; nothing here ran on Windows or macOS."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamalite.errors import LibraryIncompatible
from llamalite.ffi import opening


class Loader:
    """Stands in for ctypes.CDLL and for what Python offers on Windows alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuse: str = "") -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refuse = refuse
        self.mode = 0
        monkeypatch.setattr(opening.ctypes, "CDLL", self.open)
        monkeypatch.setattr(opening, "_searched", {})
        monkeypatch.setattr("os.add_dll_directory", self.add, raising=False)
        windows = SimpleNamespace(SEM_FAILCRITICALERRORS=1, SetErrorMode=self.set_mode)
        monkeypatch.setitem(sys.modules, "msvcrt", windows)

    def open(self, path: str, **options: Any) -> object:
        self.calls.append(("open", path))
        assert options == {}, "ctypes' own mode is the one that searches the DLL's folder"
        if self.refuse and self.refuse in path:
            raise OSError(f"[WinError 126] The specified module\n could not be found: {path}")
        return object()

    def add(self, folder: str) -> object:
        self.calls.append(("search", folder))
        return object()

    def set_mode(self, mode: int) -> int:
        before, self.mode = self.mode, mode
        return before


def test_windows_searches_the_folder_first_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(monkeypatch)
    monkeypatch.setattr("sys.platform", "win32")
    opening.open_shared(tmp_path / "ggml-base.dll")
    opening.open_shared(tmp_path / "ggml.dll")
    assert loader.calls == [
        ("search", str(tmp_path)),
        ("open", str(tmp_path / "ggml-base.dll")),
        ("open", str(tmp_path / "ggml.dll")),
    ]
    assert list(opening._searched) == [str(tmp_path)]


def test_windows_opens_backends_ahead_and_passes_over_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(monkeypatch, refuse="cuda")
    monkeypatch.setattr("sys.platform", "win32")
    paths = [tmp_path / f"ggml-{name}.dll" for name in ("cpu-x64", "cuda", "rpc")]
    assert opening.open_ahead(paths) == [paths[0], paths[2]]
    assert [path for call, path in loader.calls if call == "open"] == list(map(str, paths))
    assert loader.mode == 0


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_elsewhere_ggml_opens_its_backends_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    loader = Loader(monkeypatch)
    monkeypatch.setattr("sys.platform", system)
    assert opening.open_ahead([tmp_path / "libggml-cpu-x64.so"]) == []
    assert loader.calls == []


def test_a_relative_path_is_made_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(monkeypatch)
    monkeypatch.chdir(tmp_path)
    opening.open_shared(Path("libllama.so"))
    assert loader.calls == [("open", str(tmp_path / "libllama.so"))]


def test_a_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Loader(monkeypatch, refuse="llama")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(LibraryIncompatible) as caught:
        opening.open_shared(tmp_path / "llama.dll")
    assert "WinError 126] The specified module could not be found" in str(caught.value)
    assert "llamalite lib install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_signature_names_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> object:
        raise OSError(
            f"dlopen({path}, 0x0006): tried: '{path}' (code signature in <1E> '{path}' not valid "
            "for use in process: library load disallowed by system policy)"
        )

    monkeypatch.setattr(opening.ctypes, "CDLL", refuse)
    with pytest.raises(LibraryIncompatible) as caught:
        opening.open_shared(tmp_path / "libllama.dylib")
    assert f"run `xattr -dr com.apple.quarantine {tmp_path}`" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's loader")
def test_the_real_loader_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("hello")
    with pytest.raises(LibraryIncompatible, match=r"can't be loaded here: .*file too short"):
        opening.open_shared(tmp_path / "libllama.so")
