"""Answer over HTTP, as OpenAI's API does, with models of this computer.

Usage:
  llamalite serve [options] [--api-key=KEY]... [--cors-origin=ORIGIN]... [--allowed-host=NAME]...
                  [--verbose]... [--] [MODEL]...

The MODELs are loaded at once, and fetched if they aren't here; the first answers requests that
name none. Others that are installed are loaded when a request names them, and unloaded when nobody
has for a while or the next doesn't fit. Without MODEL nothing is loaded before it is asked for.
What isn't given is as configured (`llamalite config show`), else as stated in brackets.

Where:
  --host=ADDRESS                address to listen on [default 127.0.0.1]
  --port=N                      0 = any that is free [default 8080]
  --api-key=KEY                 a key that clients must show; may be repeated
  --api-key-file=FILE           file of keys, one a line
  --cors-origin=ORIGIN          web pages that may ask, * = all; may be repeated
  --allowed-host=NAME           name the server goes by, * = any; may be repeated
  --timeout=S                   seconds a connection may idle [default 600]

Models:
  -a, --alias=NAME              what to call the first MODEL
  --parallel=N                  answers computed at once by each model [default 4]
  --models-max=N                models loaded at once, 0 = as many as fit [default 0]
  --keep-alive=S                seconds an unused model stays, -1 = for good [default 300]
  --no-autoload                 the first MODEL answers, whatever name a request has
  --strict                      refuse fields that nobody knows

Machine:
  -c, --ctx-size=N              context of each answer in tokens, 0 = the model's own
  -b, --batch-size=N            most tokens computed in one call [default 2048]
  --ubatch-size=N               most tokens computed at once [default 512]
  -t, --threads=N               threads for decoding [default physical cores]
  --threads-batch=N             threads for prefill [default as --threads]
  --gpu-layers=N                layers on the GPU, -1 = all [default as many as fit]
  --cache-type-k=T              type of cached keys: f16, q8_0, q4_0 … [default f16]
  --cache-type-v=T              type of cached values [default f16]
  --template=NAME               chat template: a name, a file, or Jinja text
  --force                       load models even if they don't fit into memory

Output:
  -q, --quiet                   no notices
  -v, --verbose                 native log on stderr; -vv more
  -h, --help                    print this
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from llamalite.cli import terminal
from llamalite.cli.flags import SETTING_FIELDS, by_option, read_settings
from llamalite.cli.options import Options, parse, read_file
from llamalite.errors import InvalidParameter

if TYPE_CHECKING:
    from llamalite.config import ServerConfig
    from llamalite.server.site import SiteConfig

_POLL_S = 0.5
_never = threading.Event()
_SERVER_FIELDS = {"--host": "host", "--port": "port", "--timeout": "timeout_s"}
_SITE_FIELDS = {"--models-max": "models_max", "--keep-alive": "keep_alive_s"}


class _Ended(BaseException):
    """A signal asks the server to end."""


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "serve", argv)
    if options is None:
        return 0
    return serve(options)


def serve(options: Options) -> int:
    """Listen until a signal; return the exit code."""
    from llamalite.ffi import native_log

    _log_to_stderr(options.flag("--quiet"))
    native_log.configure({0: None, 1: "info"}.get(options.count("--verbose"), "debug"))
    where, site = read_server(options)
    settings = read_settings(options)
    n_parallel = options.whole("--parallel", 1) or 4
    say = terminal.be_silent if options.flag("--quiet") else terminal.say
    signal.signal(signal.SIGTERM, _end)
    try:
        return _listen(where, site, n_parallel, settings, say)
    except InvalidParameter as error:
        raise by_option(error, {**SETTING_FIELDS, **_SERVER_FIELDS, **_SITE_FIELDS}) from None
    except _Ended:
        return 0


def _log_to_stderr(is_quiet: bool) -> None:
    """Let the server's log, what went wrong inside it too, reach its owner."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("llamalite.server", "llamalite.engine"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR if is_quiet else logging.INFO)
        logger.propagate = False


def _listen(
    where: ServerConfig, site: SiteConfig, n_parallel: int, settings: dict[str, Any], say: Any
) -> int:
    from llamalite.engine.request import EngineOptions
    from llamalite.server.app import create_app
    from llamalite.server.live import LiveServer

    app = create_app(site, EngineOptions(n_parallel=n_parallel), say=say, **settings)
    live = LiveServer(app, where)
    try:
        _warn(where.host, site, say)
        app.site.preload()
        terminal.write(_greeting(live.address, site))
        while live.is_running:
            _never.wait(_POLL_S)  # without a limit it can't be interrupted on Windows
    except (_Ended, KeyboardInterrupt):
        say("ending: running answers may finish; once more to cut them off")
    finally:
        live.stop()
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def read_server(options: Options) -> tuple[ServerConfig, SiteConfig]:
    """Return where to listen and how to answer, from options over what is configured.

    Raises:
        InvalidParameter: an option's value is wrong.
    """
    from dataclasses import replace

    from llamalite.config import load_config
    from llamalite.server.site import LOOPBACK, SiteConfig

    configured = load_config().server
    given: dict[str, Any] = {
        "host": options.text("--host"),
        "port": options.whole("--port", 0),
        "timeout_s": options.number("--timeout"),
    }
    where = replace(configured, **{name: v for name, v in given.items() if v is not None})
    keys = (*options.texts("--api-key"), *_keys_in(options.text("--api-key-file")))
    said: dict[str, Any] = {
        "models_max": options.whole("--models-max", 0),
        "keep_alive_s": options.number("--keep-alive"),
        "alias": options.text("--alias"),
    }
    hosts = tuple(options.texts("--allowed-host"))
    if not hosts and where.host in LOOPBACK:
        hosts = LOOPBACK
    site = SiteConfig(
        models=tuple(options.texts("MODEL")),
        api_keys=keys or configured.api_keys,
        cors_origins=tuple(options.texts("--cors-origin")) or configured.cors_origins,
        allowed_hosts=hosts,
        autoload=not options.flag("--no-autoload"),
        strict=options.flag("--strict"),
        **{name: value for name, value in said.items() if value is not None},
    )
    return where, site


def _keys_in(path: str | None) -> list[str]:
    if path is None:
        return []
    lines = [line.strip() for line in read_file(path, "--api-key-file").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidParameter(f"--api-key-file: {path} holds no key")
    return keys


def _warn(host: str, site: SiteConfig, say: Any) -> None:
    from llamalite.server.site import LOOPBACK

    if host not in LOOPBACK and not site.api_keys:
        say(
            f"WARNING: everybody who reaches {host} can use this server: give it an --api-key, or "
            "leave --host out"
        )


def _greeting(address: str, site: SiteConfig) -> str:
    key = ' -H "Authorization: Bearer $KEY"' if site.api_keys else ""
    body = '{"messages":[{"role":"user","content":"Hello"}]}'
    return f"listening on {address}; try: curl {address}/v1/chat/completions{key} -d '{body}'\n"
