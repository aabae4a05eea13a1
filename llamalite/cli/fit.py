"""Say whether a model fits into this computer's memory, and with how long a context.

Usage:
  llamalite fit [--ctx-size=N] [--gpu-layers=N] [--parallel=N] [--ubatch-size=N]
                [--cache-type=T] [--cache-type-k=T] [--cache-type-v=T]
                [--json] [--quiet] [--] MODEL

MODEL is whatever 'llamalite run' takes: of one that isn't on this computer the header alone is
read, and nothing is kept. Weights, cache and buffers are worked out from the header, and compared
with what is free now in RAM and on each GPU. What isn't given is as configured for the model or in
general. Exit code 5, and a line on stderr, if it doesn't fit.

Options:
  -c, --ctx-size=N      tokens of context, of all sequences together; 0 = as the model was trained
                        (default that, but at most 8192 for each sequence)
  --gpu-layers=N        layers on the GPU: a number, all, or auto for the most that fit
                        (default auto)
  --parallel=N          sequences at once [default: 1]
  --ubatch-size=N       most tokens computed at once (default 512)
  --cache-type=T        type of cached keys and values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1,
                        q4_0 or iq4_nl (default f16)
  --cache-type-k=T      of keys alone
  --cache-type-v=T      of values alone
  --json                print JSON
  -q, --quiet           no notices
  -h, --help            print this
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamalite.cli import terminal
from llamalite.cli.flags import SETTING_FIELDS, by_option
from llamalite.cli.headers import open_header
from llamalite.cli.options import Options, parse
from llamalite.config.layers import effective
from llamalite.errors import DoesNotFit, InvalidParameter
from llamalite.models.fit.cache_size import cache_types
from llamalite.models.fit.machine import this_machine
from llamalite.models.fit.plan import plan, refusal
from llamalite.models.fit.report import lines, to_dict
from llamalite.models.locate import Located

_LAYERS = {"all": -1, "auto": None}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "fit", argv)
    if options is None:
        return 0
    given = _given(options)
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    with open_header(options.text("MODEL") or "", say) as found:
        made = plan(
            found.reader,
            this_machine(),
            projector=found.projector,
            n_seq_max=options.whole("--parallel", 1),
            **_settings(given, found.located),
        )
    if options.flag("--json"):
        terminal.write(json.dumps(to_dict(made), ensure_ascii=False) + "\n")
    else:
        shown_lines = (x if x.isprintable() else terminal.one_line(x) for x in lines(made))
        terminal.write("".join(f"{line}\n" for line in shown_lines))
    if not made.fits:
        raise DoesNotFit(refusal(made))
    return 0


def _given(options: Options) -> dict[str, Any]:
    """Return the settings that were given, by the names of ModelConfig."""
    both = options.text("--cache-type")
    given = {
        "n_ctx": options.whole("--ctx-size", 0),
        "n_ubatch": options.whole("--ubatch-size", 1),
        "cache_type_k": options.text("--cache-type-k") or both,
        "cache_type_v": options.text("--cache-type-v") or both,
    }
    given = {name: value for name, value in given.items() if value is not None}
    text = options.text("--gpu-layers")
    if text is not None:
        given["n_gpu_layers"] = (
            _LAYERS[text] if text in _LAYERS else options.whole("--gpu-layers", -1)
        )
    return given


def _settings(given: Mapping[str, Any], located: Located) -> dict[str, Any]:
    """Return what `plan` takes: as given, else as configured for the model."""
    try:
        said = effective(given, located.names, located.preset).settings
    except InvalidParameter as error:
        raise by_option(error, SETTING_FIELDS) from None
    return {
        "n_ctx": said.get("n_ctx"),
        "n_gpu_layers": said.get("n_gpu_layers"),
        "n_ubatch": min(said["n_ubatch"], said["n_batch"]),
        **cache_types(said),
    }
