import pytest

from llamalite.text.bos import needs_bos
from llamalite.text.chat_template import ChatTemplate


@pytest.mark.parametrize(
    ("prompt", "bos_token", "add_bos", "expected"),
    [
        ("Hello", "<s>", True, True),
        ("<s>Hello", "<s>", True, False),
        ("<s>Hello", "<s>", False, False),
        ("Hello", "<s>", False, False),
        ("Hello <s>", "<s>", True, True),
        ("Hello", "", True, True),
        ("", "<s>", True, True),
    ],
)
def test_bos_is_added_once_and_only_where_the_vocabulary_asks(prompt, bos_token, add_bos, expected):
    assert needs_bos(prompt, bos_token, add_bos) is expected


@pytest.mark.parametrize(
    "source", ["{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"]
)
def test_a_prompt_has_one_bos_whether_or_not_its_template_writes_it(source):
    prompt = ChatTemplate(source, "<s>").render([{"role": "user", "content": "hi"}])
    added = "<s>" if needs_bos(prompt, "<s>", add_bos=True) else ""
    assert added + prompt == "<s>hi"
