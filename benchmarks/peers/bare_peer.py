"""The bare loop over libllama: the most that any program on the same library can give."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bare import BareBatch
from peers.replay import Peer

from llamalite.core.ready import ready_library


class BarePeer(Peer):
    """Options: "unified" and "flash_attn", as BareBatch takes them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._library = ready_library()
        self._loop = BareBatch(
            self._library,
            Path(job["model"]),
            n_seq=job["n_parallel"],
            n_ctx=job["n_ctx"],
            n_threads=job["n_threads"],
            **job["options"],
        )

    def replay(self, load: dict[str, Any]) -> list[dict[str, Any]]:
        requests = load["requests"]
        sent = time.perf_counter()
        times, _ = self._loop.run([one["prompt"] for one in requests], requests[0]["n_tokens"])
        return [
            {"sent": sent, "times": ours, "n_evaluated": len(one["prompt"])}
            for one, ours in zip(requests, times, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        return {"version": self._library.release}

    def close(self) -> None:
        self._loop.close()
