"""Say whether a model fits into this computer's memory, and with how long a context.

Usage:
  llamalite fit [--ctx-size=N] [--gpu-layers=N] [--parallel=N] [--ubatch-size=N]
                [--cache-type=T] [--cache-type-k=T] [--cache-type-v=T]
                [--json] [--quiet] [--] MODEL

MODEL is whatever 'llamalite run' takes: of one that isn't on this computer the header alone is
read, and nothing is kept. Weights, cache and buffers are worked out from the header, and compared
with what is free now in RAM and on each GPU. Exit code 5, and a line on stderr, if it doesn't fit.

Options:
  -c, --ctx-size=N      tokens of context, of all sequences together; 0 = as the model was trained
                        (default: that, but at most 8192 for each sequence)
  --gpu-layers=N        layers on the GPU: a number, all, or auto for the most that fit
                        [default: auto]
  --parallel=N          sequences at once [default: 1]
  --ubatch-size=N       most tokens computed at once [default: 512]
  --cache-type=T        type of cached keys and values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1,
                        q4_0 or iq4_nl (default: f16)
  --cache-type-k=T      of keys alone
  --cache-type-v=T      of values alone
  --json                print JSON
  -q, --quiet           no notices
  -h, --help            print this
"""

from __future__ import annotations

import json

from llamalite.cli import terminal
from llamalite.cli.headers import open_header
from llamalite.cli.options import Options, parse, shown
from llamalite.errors import DoesNotFit, InvalidParameter
from llamalite.models.fit.cache_size import CACHE_TYPES
from llamalite.models.fit.machine import this_machine
from llamalite.models.fit.plan import plan, refusal
from llamalite.models.fit.report import lines, to_dict

_LAYERS = {"all": -1, "auto": None}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "fit", argv)
    if options is None:
        return 0
    settings = {
        "n_ctx": options.whole("--ctx-size", 0),
        "n_gpu_layers": _layers(options),
        "n_seq_max": options.whole("--parallel", 1),
        "n_ubatch": options.whole("--ubatch-size", 1),
        **_cache_types(options),
    }
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    with open_header(options.text("MODEL") or "", say) as found:
        made = plan(found.reader, this_machine(), **settings)
    if options.flag("--json"):
        terminal.write(json.dumps(to_dict(made), ensure_ascii=False) + "\n")
    else:
        shown_lines = (x if x.isprintable() else terminal.one_line(x) for x in lines(made))
        terminal.write("".join(f"{line}\n" for line in shown_lines))
    if not made.fits:
        raise DoesNotFit(refusal(made))
    return 0


def _layers(options: Options) -> int | None:
    text = options.text("--gpu-layers") or "auto"
    return _LAYERS[text] if text in _LAYERS else options.whole("--gpu-layers", -1)


def _cache_types(options: Options) -> dict[str, int]:
    found: dict[str, int] = {}
    for field, option in (("type_k", "--cache-type-k"), ("type_v", "--cache-type-v")):
        name = "--cache-type" if options.text(option) is None else option
        text = options.text(name)
        if text is None:
            continue
        if text.lower() not in CACHE_TYPES:
            raise InvalidParameter(
                f"{name} is {shown(text)}, and a cache can have the types {', '.join(CACHE_TYPES)}",
                param=name,
            )
        found[field] = CACHE_TYPES[text.lower()]
    return found
