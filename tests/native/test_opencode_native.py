"""opencode's command line for a prompt, with the real library and a real model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llamalite import LLM
from llamalite.ffi.library import Library

ROOT = Path(__file__).parents[2]
PROMPT = "Name one fruit."


def test_run_takes_a_prompt_as_opencode_does(
    library: Library, llm: LLM, smollm2: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "TinyLlama-1B.Q4_1.gguf").symlink_to(smollm2)
    done = subprocess.run(
        [
            sys.executable, "-m", "llamalite", "run", "--model", "tinyllama", "--prompt", PROMPT,
            "-t", "0", "--max-tokens", "8",
        ],
        env={
            **os.environ,
            "LLAMALITE_HOME": str(tmp_path),
            "LLAMALITE_LIB": str(library.files.folder),
            "LLAMALITE_SELFTEST": "0",
            "LLAMALITE_N_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages = [{"role": "user", "content": PROMPT}]
    assert done.stdout == llm.chat(messages, temperature=0.0, max_tokens=8).text.rstrip("\n") + "\n"
