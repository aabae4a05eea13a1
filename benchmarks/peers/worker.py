"""Runs one peer in a process of its own: `python -m peers.worker JOB RESULT`, in its environment.

JOB and RESULT are JSON files. A job is {"peer", "model", "n_parallel", "n_ctx" (of each sequence),
"n_threads", "options", "loads"}; the result holds the peer's facts and the records of each load.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from peers.replay import Peer


def make(job: dict[str, Any]) -> Peer:
    """Load the peer that the job names; only its own packages need be there."""
    if job["peer"] == "llamalite":
        from peers.llamalite_peer import LlamalitePeer as Made
    elif job["peer"] == "bare":
        from peers.bare_peer import BarePeer as Made
    elif job["peer"] == "xllamacpp":
        from peers.xllamacpp_peer import XllamacppPeer as Made
    else:
        from peers.llama_cpp_python_peer import LlamaCppPythonPeer as Made
    return Made(job)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.perf_counter()
    peer = make(job)
    load_s = time.perf_counter() - started
    records = [peer.replay(load) for load in job["loads"]]
    result = {"facts": peer.facts(), "load_s": load_s, "loads": records}
    Path(sys.argv[2]).write_text(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
