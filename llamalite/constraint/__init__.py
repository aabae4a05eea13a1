"""Constraints on what may be generated: GBNF grammars, checked before libllama sees them.

Imports `llamalite.errors` and what lies below it; calls nothing native.
"""

from __future__ import annotations

from llamalite.constraint.gbnf import check_grammar

__all__ = ["check_grammar"]
