import pytest

from llamalite.errors import TemplateError
from llamalite.text.chat_template import ChatTemplate
from llamalite.text.templates import TEMPLATE_NAMES, choose_template, named_template

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request."
)

# name: (a conversation with a system message, one user message alone), BOS and EOS as <s> and </s>.
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]",
        "<s>[INST] Hi [/INST]",
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": (
        "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]",
        "<s>[INST] Hi [/INST]",
    ),
    "gemma": (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello"
        "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n",
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n"
        "<|assistant|>\n",
        "<|user|>\nHi</s>\n<|assistant|>\n",
    ),
    "vicuna": (
        "<s>Be brief. USER: Hi ASSISTANT: Hello</s>USER: Bye ASSISTANT:",
        f"<s>{VICUNA} USER: Hi ASSISTANT:",
    ),
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n"
        "### Instruction:\nBye\n\n### Response:\n",
        f"<s>{ALPACA}\n\n### Instruction:\nHi\n\n### Response:\n",
    ),
    "deepseek": (
        "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>"
        "<｜User｜>Bye<｜Assistant｜>",
        "<s><｜User｜>Hi<｜Assistant｜>",
    ),
    "command-r": (
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "openchat": (
        "<s>Be brief.<|end_of_turn|>GPT4 Correct User: Hi<|end_of_turn|>"
        "GPT4 Correct Assistant: Hello<|end_of_turn|>GPT4 Correct User: Bye<|end_of_turn|>"
        "GPT4 Correct Assistant:",
        "<s>GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:",
    ),
    "plain": (
        "system: Be brief.\nuser: Hi\nassistant: Hello\nuser: Bye\nassistant:",
        "user: Hi\nassistant:",
    ),
}


def test_every_name_has_an_expectation():
    assert set(EXPECTED) == set(TEMPLATE_NAMES)


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_a_named_template_writes_its_published_format(name):
    template = ChatTemplate(named_template(name), "<s>", "</s>")
    assert template.render([SYSTEM, *TURNS]) == EXPECTED[name][0]
    assert template.render(TURNS[:1]) == EXPECTED[name][1]


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "phi3", "zephyr", "command-r"])
def test_without_a_generation_prompt_the_last_message_ends_the_text(name):
    template = ChatTemplate(named_template(name), "<s>", "</s>")
    short = template.render(TURNS[:1], add_generation_prompt=False)
    full = template.render(TURNS[:1])
    assert full.startswith(short)
    assert "assistant" in full[len(short) :] or "model" in full or "CHATBOT" in full
    assert short != full


@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma"])
def test_a_system_message_alone_has_no_place_in_formats_that_fold_it(name):
    with pytest.raises(TemplateError, match="system"):
        ChatTemplate(named_template(name)).render([SYSTEM])


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(TemplateError) as error:
        named_template("nope")
    assert "'nope'" in str(error.value)
    assert all(name in str(error.value) for name in TEMPLATE_NAMES)


def test_the_users_choice_wins_over_the_models_own():
    assert choose_template({"default": "own"}, "gemma").source == named_template("gemma")
    inline = choose_template({"default": "own"}, "{{ messages[0].content }}")
    assert (inline.source, inline.name) == ("{{ messages[0].content }}", "inline")


def test_a_name_the_model_gave_wins_over_a_known_one():
    chosen = choose_template({"default": "own", "chatml": "its chatml"}, "chatml")
    assert (chosen.source, chosen.name, chosen.notice) == ("its chatml", "chatml", None)


def test_the_models_own_is_used_by_default_and_says_nothing():
    assert choose_template({"default": "own"}) == choose_template({"default": "own"}, "")
    chosen = choose_template({"default": "own"})
    assert (chosen.source, chosen.notice) == ("own", None)


def test_several_own_templates_stay_together_for_tools():
    own = {"default": "no tools", "tool_use": "with tools"}
    template = ChatTemplate(choose_template(own).source)
    messages = [{"role": "user", "content": "hi"}]
    assert template.render(messages) == "no tools"
    assert template.render(messages, tools=[{"name": "f"}]) == "with tools"


@pytest.mark.parametrize("own", [{}, {"default": ""}])
def test_without_any_template_the_bare_default_is_said_aloud(own):
    chosen = choose_template(own)
    assert chosen.name == "plain"
    assert chosen.source == named_template("plain")
    assert "no chat template" in chosen.notice
    assert "chatml" in chosen.notice
    assert "\n" not in chosen.notice


def test_an_unknown_choice_lists_the_models_names_too():
    with pytest.raises(TemplateError, match="rag") as error:
        choose_template({"default": "own", "rag": "x"}, "nope")
    assert "chatml" in str(error.value)
    assert "\n" not in str(error.value)
