from __future__ import annotations

import pytest

from llamalite.libs.transfer.wording import without_login


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hub.example/x", "https://hub.example/x"),
        ("https://a:hunter2@hub.example/x", "https://…@hub.example/x"),
        ("a:hunter2@hub.example:80", "…@hub.example:80"),
        ("https://a:hunter2@b/hunter2@hub.example", "https://…@hub.example"),
        ("https://a:://hunter2@hub.example", "https://…@hub.example"),
        ("https://hub.example/x?token=hunter2#hunter2", "https://hub.example/x"),
        ("https://hub.example/?mail=a@b&token=hunter2", "https://…"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert without_login(url) == shown
