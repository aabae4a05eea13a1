"""Modelfiles: Ollama's way to write down a model with settings, read into a preset and back.

May import `names`, `text`, `config` and `errors`.
"""

from __future__ import annotations

from llamalite.models.modelfile.preset import format_modelfile, parse_modelfile

__all__ = ["format_modelfile", "parse_modelfile"]
