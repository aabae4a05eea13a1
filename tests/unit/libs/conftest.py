from __future__ import annotations

from pathlib import Path

import pytest

_NETWORK_SETTINGS = (
    "LLAMALITE_LIB",
    "LLAMALITE_OFFLINE",
    "LLAMALITE_GITHUB_URL",
    "HF_HUB_OFFLINE",
    *(name for stem in ("http_proxy", "https_proxy", "all_proxy") for name in (stem, stem.upper())),
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty LLAMALITE_HOME and none of the user's settings."""
    from llamalite.libs import reach

    for name in _NETWORK_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("LLAMALITE_HOME", str(home))
    reach.forget_answers()
    return home
