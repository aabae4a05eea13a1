"""Chat templates by name, for models that bring none, and the choice of the one to use.

The sources are written from the published prompt formats. Formats without a system role take the
system text where their authors put it: into the first user turn. Vicuna and Alpaca were trained
behind a fixed sentence, which stands when no system message is given. Knows no Jinja machinery and
no tokens. Imports `llamalite.errors` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llamalite.errors import TemplateError

_SPLIT_SYSTEM = """\
{%- if messages[0].role == 'system' -%}
{%- set system, turns = messages[0].content, messages[1:] -%}
{%- else -%}
{%- set system, turns = none, messages -%}
{%- endif -%}
"""

# For formats without a system role: the system text opens the first user turn.
_FOLD_SYSTEM = (
    _SPLIT_SYSTEM
    + """\
{%- if system is not none and (not turns or turns[0].role != 'user') -%}
{{- raise_exception('this format has no system role: a user message must follow the system one') -}}
{%- endif -%}
{%- set opening = system ~ '\\n\\n' if system is not none else '' -%}
"""
)

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_LLAMA2 = (
    _FOLD_SYSTEM.replace("system ~ '\\n\\n'", "'<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n'")
    + """\
{%- for message in turns -%}
{%- if message.role == 'assistant' -%}
{{- ' ' + message.content|trim + ' ' + eos_token -}}
{%- else -%}
{{- bos_token + '[INST] ' + (opening if loop.first else '') + message.content|trim + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)

_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
{{- message.content|trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_MISTRAL = (
    _FOLD_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
{%- if message.role == 'assistant' -%}
{{- ' ' + message.content|trim + eos_token -}}
{%- else -%}
{{- '[INST] ' + (opening if loop.first else '') + message.content + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)

_GEMMA = (
    _FOLD_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{- '<start_of_turn>' + role + '\\n' -}}
{{- (opening if loop.first else '') + message.content|trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
)

_PHI3 = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""

_ZEPHYR = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""

_VICUNA = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{{- system if system is not none else 'A chat between a curious user and an artificial \
intelligence assistant. The assistant gives helpful, detailed, and polite answers to the \
user\\'s questions.' -}}
{{- ' ' -}}
{%- for message in turns -%}
{%- if message.role == 'assistant' -%}
{{- 'ASSISTANT: ' + message.content + eos_token -}}
{%- else -%}
{{- 'USER: ' + message.content + ' ' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
)

_ALPACA = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{{- system if system is not none else 'Below is an instruction that describes a task. Write a \
response that appropriately completes the request.' -}}
{{- '\\n\\n' -}}
{%- for message in turns -%}
{%- if message.role == 'assistant' -%}
{{- '### Response:\\n' + message.content + eos_token + '\\n\\n' -}}
{%- else -%}
{{- '### Instruction:\\n' + message.content + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""
)

# DeepSeek V2.5, V3 and R1.
_DEEPSEEK = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{{- system if system is not none -}}
{%- for message in turns -%}
{%- if message.role == 'assistant' -%}
{{- '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' -}}
{%- else -%}
{{- '<｜User｜>' + message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
"""
)

_COMMAND_R = """\
{{- bos_token -}}
{%- set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT', 'tool': 'SYSTEM'} -%}
{%- for message in messages -%}
{{- '<|START_OF_TURN_TOKEN|><|' + names[message.role] + '_TOKEN|>' -}}
{{- message.content|trim + '<|END_OF_TURN_TOKEN|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}
{%- endif -%}
"""

_OPENCHAT = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '' if message.role == 'system' else 'GPT4 Correct ' + message.role.title() + ': ' -}}
{{- message.content + '<|end_of_turn|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'GPT4 Correct Assistant:' -}}{%- endif -%}
"""

# Trained into no model; a base model goes on from it, and any other understands it.
_PLAIN = """\
{%- for message in messages -%}
{{- message.role + ': ' + message.content + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant:' -}}{%- endif -%}
"""

PLAIN = "plain"

_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "chatml": _CHATML,
        "llama2": _LLAMA2,
        "llama3": _LLAMA3,
        "mistral": _MISTRAL,
        "gemma": _GEMMA,
        "phi3": _PHI3,
        "zephyr": _ZEPHYR,
        "vicuna": _VICUNA,
        "alpaca": _ALPACA,
        "deepseek": _DEEPSEEK,
        "command-r": _COMMAND_R,
        "openchat": _OPENCHAT,
        PLAIN: _PLAIN,
    }
)

TEMPLATE_NAMES: tuple[str, ...] = tuple(_TEMPLATES)


@dataclass(frozen=True)
class ChosenTemplate:
    """The template to use.

    Attributes:
        source: what `ChatTemplate` takes: Jinja text, or the model's own templates by name.
        name: where it comes from, for people: one of TEMPLATE_NAMES, a name the model gave, "model"
            for the model's own, "inline" for text that was passed.
        notice: what the caller must tell the user, or None.
    """

    source: str | Mapping[str, str]
    name: str
    notice: str | None = None


def named_template(name: str) -> str:
    """Return the Jinja source of a template known by name.

    Raises:
        TemplateError: there is none of that name.
    """
    if name not in _TEMPLATES:
        raise TemplateError(_unknown(name, TEMPLATE_NAMES))
    return _TEMPLATES[name]


def choose_template(
    metadata_templates: Mapping[str, str], name: str | None = None
) -> ChosenTemplate:
    """Choose: what the user asked for, else the model's own, else the bare default with a notice.

    Args:
        metadata_templates: the model's own by name; the unnamed one is "default".
        name: one of the model's own names, one of TEMPLATE_NAMES, or Jinja text; None or "" leave
            the choice to the model.

    Raises:
        TemplateError: `name` is neither a known name nor Jinja text.
    """
    own = {key: source for key, source in metadata_templates.items() if source}
    if name:
        return _named_choice(own, name)
    if own:
        return ChosenTemplate(own["default"] if own.keys() == {"default"} else own, "model")
    notice = (
        f"the model has no chat template; using the bare form '{PLAIN}': if answers are poor, "
        f"choose the model's own format with --template ({', '.join(TEMPLATE_NAMES)})"
    )
    return ChosenTemplate(_PLAIN, PLAIN, notice)


def _named_choice(own: Mapping[str, str], name: str) -> ChosenTemplate:
    if name in own:
        return ChosenTemplate(own[name], name)
    if name in _TEMPLATES:
        return ChosenTemplate(_TEMPLATES[name], name)
    if "{{" in name or "{%" in name:
        return ChosenTemplate(name, "inline")
    raise TemplateError(_unknown(name, (*own, *TEMPLATE_NAMES)))


def _unknown(name: str, known: tuple[str, ...]) -> str:
    shown = name if len(name) <= 60 else name[:60] + "…"
    return f"there is no chat template named {shown!r}; choose one of {', '.join(known)}"
