"""A server that listens: the app under waitress, until it is told to end.

Owns the listening socket, its threads and the order in which things end. Imports waitress and its
siblings.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import waitress.server
import waitress.wasyncore
from waitress.channel import HTTPChannel

from llamalite.config import ServerConfig
from llamalite.errors import InvalidParameter
from llamalite.server.app import App

_log = logging.getLogger("llamalite.server")
_SPARE_THREADS = 8
_MOST_THREADS = 128
_DRAIN_S = 30.0
_POLL_S = 0.05
_BACKLOG = 1024


class LiveServer:
    """The app, listening in threads of its own from the moment it is made.

    Args:
        app: what answers.
        config: where to listen.
        drain_s: seconds that running answers have when it ends.

    Raises:
        InvalidParameter: the address can't be listened on.
    """

    def __init__(self, app: App, config: ServerConfig, drain_s: float = _DRAIN_S) -> None:
        self.app, self._drain_s = app, drain_s
        options = app.site.options
        n_threads = min(options.n_parallel + options.n_queue, _MOST_THREADS) + _SPARE_THREADS
        app.site.most_at_once = n_threads - _SPARE_THREADS
        self._map: dict[int, Any] = {}
        self._server: Any = waitress.server.create_server(
            app,
            map=self._map,
            sockets=[_listen(config.host, config.port)],
            threads=n_threads,
            connection_limit=config.max_connections,
            channel_timeout=max(int(config.timeout_s), 1),
            channel_request_lookahead=1,  # so that hang-ups are noticed
            max_request_body_size=app.site.config.max_body_bytes + 1,
            clear_untrusted_proxy_headers=True,
            ident="llamalite",
        )
        self.host, self.port = config.host, int(self._server.effective_port)
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="llamalite-web", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it answers, as a client on this computer writes it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Say whether it answers."""
        return not self._is_over.is_set()

    def _loop(self) -> None:
        # NOTE: it ends when the map of sockets is empty.
        waitress.wasyncore.loop(timeout=1, map=self._map, use_poll=True)

    def _in_loop(self, action: Any) -> None:
        """Do something in the thread that the sockets belong to."""
        self._server.trigger.pull_trigger(action)

    def stop(self) -> None:
        """Take no more connections, let answers end within the time, and close everything."""
        with self._lock:
            if self._is_over.is_set():
                return
            self._is_over.set()
        self._in_loop(lambda: waitress.wasyncore.dispatcher.close(self._server))
        dispatcher = self._server.task_dispatcher
        deadline = time.monotonic() + self._drain_s
        while dispatcher.active_count or dispatcher.queue:
            if time.monotonic() > deadline:
                _log.warning("%d answers are cut off", dispatcher.active_count)
                break
            time.sleep(_POLL_S)
        self.app.site.close()
        dispatcher.shutdown(timeout=5)
        self._in_loop(self._close_channels)
        self._thread.join(5)

    def _close_channels(self) -> None:
        for channel in list(self._map.values()):
            if isinstance(channel, HTTPChannel):
                channel.handle_close()
        self._server.trigger.close()


def _listen(host: str, port: int) -> socket.socket:
    name = host.strip("[]")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidParameter(
            f"{host}:{port} can't be listened on ({reason}): choose another --host or --port",
            param="port",
        ) from None
