"""/props and /slots, and the settings that llama-server's answers repeat.

Source: llama.cpp tools/server/README.md (b11434).
"""

from __future__ import annotations

import math
from typing import Any

import falcon
import msgspec

from llamalite import __version__
from llamalite.config import SamplingConfig
from llamalite.engine.request import EngineOptions
from llamalite.server.problems import refuse
from llamalite.server.served import ServedModel
from llamalite.server.site import Site

_SAME = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma",
    "xtc_probability", "xtc_threshold", "typical_p", "repeat_last_n", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "mirostat", "mirostat_tau", "mirostat_eta", "ignore_eos", "min_keep",
    "adaptive_target", "adaptive_decay",
)  # fmt: skip
_RANDOM_SEED = 2**32 - 1


def generation_settings(
    sampling: SamplingConfig, served: ServedModel, *, stream: bool
) -> dict[str, Any]:
    """Return how tokens are chosen, by llama-server's names."""
    limit = -1 if sampling.max_tokens is None else sampling.max_tokens
    return {
        **{name: getattr(sampling, name) for name in _SAME},
        "seed": _RANDOM_SEED if sampling.seed is None else sampling.seed,
        "n_predict": limit,
        "max_tokens": limit,
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers),
        "samplers": ["typ_p" if s == "typical_p" else s for s in sampling.samplers],
        "stop": list(sampling.stop),
        "logit_bias": [
            {"token": token, "bias": None if bias == -math.inf else bias}
            for token, bias in sampling.logit_bias.items()
        ],
        "grammar": sampling.grammar or "",
        "n_keep": 0,
        "n_discard": 0,
        "n_probs": 0,
        "stream": stream,
        "post_sampling_probs": False,
        "lora": [],
        "n_ctx": served.facts.n_ctx,
        "model": served.public_name,
    }


class Props:
    """Describes the server and a model."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_get(self, http: falcon.Request, response: falcon.Response) -> None:
        """Describe the model that `?model=` names, or the default one; loads none."""
        served = self._site.loaded(http.get_param("model"))
        options = self._site.options
        said = {
            "total_slots": options.n_parallel,
            "is_sleeping": served is None,
            "build_info": f"llamalite-{__version__}",
            "modalities": {"vision": False, "audio": False},
            "chat_template_caps": {},
        }
        if served is not None:
            said |= _described(served, options)
        response.data = msgspec.json.encode(said)


def _described(served: ServedModel, options: EngineOptions) -> dict[str, Any]:
    vocab = served.vocab
    return {
        "default_generation_settings": {
            "id": 0,
            "id_task": -1,
            "n_ctx": served.facts.n_ctx,
            "speculative": False,
            "is_processing": False,
            "params": generation_settings(served.sampling, served, stream=True),
        },
        "total_slots": options.n_parallel,
        "model_alias": served.public_name,
        "model_path": served.resolved.path.name,  # where it lies is nobody's business
        "chat_template": served.prompting.source,
        "bos_token": vocab.text_of("bos"),
        "eos_token": vocab.text_of("eos"),
        "build_info": f"llamalite-{__version__} libllama-{served.facts.library}",
    }


class Slots:
    """Says how many answers are being computed."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_get(self, http: falcon.Request, response: falcon.Response) -> None:
        """List the slots of a loaded model; with `fail_on_no_slot`, 503 if none is free."""
        served = self._site.loaded(http.get_param("model"))
        if served is None:
            response.data = b"[]"
            return
        stats, facts = served.engine.stats(), served.facts
        if http.get_param("fail_on_no_slot") == "1" and stats.n_running >= facts.n_parallel:
            raise refuse(503, "no slot available", kind="unavailable_error")
        slots = [
            {
                "id": index,
                "n_ctx": facts.n_ctx,
                "speculative": False,
                "is_processing": index < stats.n_running,
            }
            for index in range(facts.n_parallel)
        ]
        response.data = msgspec.json.encode(slots)


class SlotAction:
    """Saving and restoring slots comes with a later version."""

    def on_post(self, http: falcon.Request, _response: falcon.Response, **_params: Any) -> None:
        """Refuse."""
        action = http.get_param("action") or ""
        if action in ("save", "restore"):
            raise refuse(
                501, f"/slots?action={action} isn't supported yet", kind="not_supported_error",
                code="not_supported", param="action",
            )  # fmt: skip
        raise refuse(
            400, "action must be save or restore: the cache is kept by itself here, and needs no "
            "erasing", param="action",
        )  # fmt: skip
