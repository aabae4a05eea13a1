from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from chat_shapes import CALL, CONVERSATIONS, RESULT, SHAPES, THOUGHT, TOOL, USER

from llamalite.errors import InvalidParameter, TemplateError
from llamalite.text.chat_template import ChatTemplate

SHORT_TOOL = {"type": "function", "function": {"name": "now", "description": "é", "parameters": {}}}


def render(source: str, messages: list = [USER], **options: object) -> str:  # noqa: B006
    return ChatTemplate(source, "<s>", "</s>").render(messages, **options)


def test_smollm2_adds_its_own_system_message():
    assert render(SHAPES["smollm2"]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi 🙂 <there><|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama_31_says_the_date_and_lists_tools():
    text = render(SHAPES["llama-3.1"], [USER, CALL, RESULT], tools=[SHORT_TOOL])
    assert text == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        f"Today: {datetime.now().strftime('%d %b %Y')}\n\n"
        '{\n    "type": "function",\n    "function": {\n        "name": "now",\n'
        '        "description": "é",\n        "parameters": {}\n    }\n}\n\n<|eot_id|>'
        "<|start_header_id|>user<|end_header_id|>\n\nHi 🙂 <there><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "weather", "parameters": {"city": "Zürich", "days": [1, 2]}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"sunny"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_qwen25_writes_tool_calls_and_results():
    assert render(SHAPES["qwen2.5"], [USER, CALL, RESULT], tools=[SHORT_TOOL]) == (
        "<|im_start|>system\nYou are Qwen.\n\n# Tools\n\n<tools>\n"
        '{"type": "function", "function": {"name": "now", "description": "é", "parameters": {}}}\n'
        "</tools><|im_end|>\n<|im_start|>user\nHi 🙂 <there><|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}\n'
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_qwen3_drops_old_thoughts_and_keeps_the_last():
    again = {"role": "user", "content": "Why?"}
    assert render(SHAPES["qwen3"], [USER, THOUGHT, again], enable_thinking=False) == (
        "<|im_start|>user\nHi 🙂 <there><|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert render(SHAPES["qwen3"], [USER, THOUGHT], add_generation_prompt=False) == (
        "<|im_start|>user\nHi 🙂 <there><|im_end|>\n"
        "<|im_start|>assistant\n<think>\nhm\n</think>\n\nHello<|im_end|>\n"
    )


def test_mistral_puts_tools_before_the_last_question():
    assert render(SHAPES["mistral"], [USER, CALL, RESULT], tools=[SHORT_TOOL]) == (
        '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "now", "description": "é",'
        ' "parameters": {}}}][/AVAILABLE_TOOLS][INST] Hi 🙂 <there>[/INST]'
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}'
        ', "id": "abc123456"}]</s>[TOOL_RESULTS] {"content": sunny}[/TOOL_RESULTS]'
    )


def test_gemma3_takes_contents_in_parts():
    assert render(SHAPES["gemma3"], CONVERSATIONS["content parts"]) == (
        "<s><start_of_turn>user\n<start_of_image>What?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_deepseek_and_phi3():
    assert render(SHAPES["deepseek"], CONVERSATIONS["three turns"]) == (
        "<s> Be brief.\n<｜User｜>Hi 🙂 <there><｜Assistant｜>\n\nHello<｜end▁of▁sentence｜>"
        "<｜User｜>Why?\n<｜Assistant｜><think>\n"
    )
    assert render(SHAPES["phi3"]) == "<s><|user|>\nHi 🙂 <there><|end|>\n<|assistant|>\n"


def test_recursive_macros_generation_blocks_and_documents():
    documents = [{"title": "a", "text": "one\ntwo"}]
    text = render(SHAPES["macros"], [USER, THOUGHT], tools=[TOOL], documents=documents)
    assert text == (
        "// weather: Says <how> it's outside: 21 °C & sunny\n"
        "weather({ city: string, days: integer[], unit: any })"
        " requires city, daysDocument 1 of 1: A one two\n"
        'User> Hi 🙂 <there>\n<think>\nhm\n</think>\n\nHello</s>\n["user","assistant"]'
    )


@pytest.mark.parametrize(
    ("shape", "conversation", "words"),
    [
        ("mistral", "two questions", "roles must alternate user/assistant/user/assistant/..."),
        ("mistral", "an unknown role", "Only user and assistant roles are supported!"),
        ("gemma", "with a system message", "System role not supported"),
    ],
)
def test_raise_exception_carries_the_templates_own_words(shape, conversation, words):
    with pytest.raises(TemplateError) as error:
        render(SHAPES[shape], CONVERSATIONS[conversation])
    assert words.rstrip(".") in str(error.value)
    assert "refuses these messages at line" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{% if %}", "can't be parsed at line 2: Expected an expression"),
        ("{% nope %}", "unknown tag 'nope'"),
        ("{{ 'x'|nope }}", "No filter named 'nope'"),
        ("{% for x in y %}", "can't be parsed at line 1"),
        ("{% include 'x' %}", "can't load other templates"),
        ("x" * 200_000, "200000 characters long"),
    ],
)
def test_a_source_that_is_no_template_is_refused_when_it_is_made(source, words):
    with pytest.raises(TemplateError) as error:
        ChatTemplate(source)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{{ 1 // 0 }}", "fails at line 2: integer division or modulo by zero"),
        ("{% macro m() %}\n\n{{ 'a' + 1 }}{% endmacro %}\n{{ m() }}", "line 3: can only concat"),
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ range|tojson }}", "not JSON serializable"),
        ("{{ raise_exception('a\nb') }}", "a b"),
        ("{{ raise_exception({'a': 1}) }}", "{'a': 1}"),
        ("{{ 1e308 ** 2 }}", "fails at line 1"),
        ("{{ messages.pop() }}", "access to attribute 'pop' of 'list' object is unsafe"),
    ],
)
def test_whatever_a_template_raises_becomes_one_line_with_its_place(source, words):
    with pytest.raises(TemplateError) as error:
        render(source)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_long_messages_of_templates_are_cut():
    with pytest.raises(TemplateError) as error:
        render("{{ raise_exception('a' * 100000) }}")
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    "messages",
    [[], None, "hello", {"role": "user"}, ["hi"], [{"content": "hi"}], [{"role": 3}], [USER, None]],
)
def test_messages_without_roles_are_refused(messages):
    with pytest.raises(InvalidParameter) as error:
        render("x", messages)
    assert error.value.param == "messages"


@pytest.mark.parametrize("tools", ["f", [3], {"name": "f"}, [{"name": {1, 2}}]])
def test_tools_that_are_no_schemas_are_refused(tools):
    with pytest.raises(InvalidParameter) as error:
        render("x", tools=tools)
    assert error.value.param == "tools"


def test_values_that_are_not_json_never_reach_a_template():
    with pytest.raises(InvalidParameter, match=r"messages\[0\]\.content is a object"):
        render("x", [{"role": "user", "content": object()}])
    with pytest.raises(InvalidParameter, match="tool is a function") as error:
        render("x", tool=lambda: None)
    assert error.value.param == "tool"


def test_messages_that_nest_without_end_are_refused():
    content: list = []
    content.append(content)
    with pytest.raises(InvalidParameter, match="nests more than"):
        render("x", [{"role": "user", "content": content}])


def test_a_template_cannot_change_the_callers_messages():
    messages = [{"role": "user", "content": ["a"]}]
    with pytest.raises(TemplateError):
        render("{{ messages[0].content.append('b') }}", messages)
    assert messages == [{"role": "user", "content": ["a"]}]


def test_none_counts_as_absent_in_a_message():
    source = "{{ 'content' in messages[0] }} {{ messages[0].content is defined }}"
    assert render(source, [{"role": "user", "content": None}]) == "False False"


def test_tools_choose_among_named_templates():
    template = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "documents"})
    assert template.render([USER]) == "plain"
    assert template.render([USER], tools=[]) == "tools"
    assert ChatTemplate({"default": "plain"}).render([USER], tools=[TOOL]) == "plain"
    assert ChatTemplate({"default": "plain", "rag": "documents"}, name="rag").render([USER]) == (
        "documents"
    )


def test_a_broken_named_template_does_no_harm_until_it_is_used():
    template = ChatTemplate({"default": "fine", "tool_use": "{% broken %}"})
    assert template.render([USER]) == "fine"
    with pytest.raises(TemplateError, match="unknown tag 'broken'"):
        template.render([USER], tools=[TOOL])


def test_named_templates_without_a_default_say_which_there_are():
    with pytest.raises(TemplateError, match="rag, tool_use"):
        ChatTemplate({"tool_use": "x", "rag": "y"}).render([USER])
    with pytest.raises(TemplateError, match="'nope'"):
        ChatTemplate({"default": "x"}, name="nope")


def test_variables_pass_through_and_win_over_special_tokens():
    source = "{{ bos_token }}{{ flag }}{{ tools is none }}{{ documents is none }}"
    assert render(source, flag={"a": [1.5, None]}) == "<s>{'a': [1.5, None]}TrueTrue"
    assert render(source, flag=1, bos_token="<b>", documents=[]) == "<b>1TrueFalse"


def test_one_template_renders_in_many_threads():
    template = ChatTemplate("{% for i in range(200) %}{{ messages[0].content }}{% endfor %}")
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda i: template.render([{"role": "u", "content": str(i)}]), range(64))
    assert list(texts) == [str(i) * 200 for i in range(64)]


@pytest.mark.parametrize("shape", ["qwen3", "mistral", "llama-3.1", "smollm2"])
def test_long_conversations_stay_within_the_allowance(shape):
    turn = [
        {"role": "user", "content": "word " * 400},
        {"role": "assistant", "content": "ok " * 900},
    ]
    assert len(render(SHAPES[shape], turn * 400 + turn[:1], tools=[TOOL])) > 1_800_000


def test_one_huge_message_stays_within_the_allowance():
    message = {"role": "user", "content": "<think>" + "word " * 1_000_000}
    assert len(render(SHAPES["qwen3"], [message, THOUGHT, message])) > 10_000_000
