"""Random GBNF grammars, good and faulty."""

from __future__ import annotations

import random

MARKS = ["", "", "", "", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}", "{0}", " {2,4}", "*?", "+?"]
TERMINALS = ['"x"', '"yz"', "[a-c]", "[^q]", ".", "b", "a", '""', r'"\x41\n"', "[é-ü]"]


def random_grammar(rng: random.Random) -> str:
    def item(depth: int) -> str:
        if depth > 2 or rng.random() < 0.7:
            return rng.choice(TERMINALS)
        return f"( {choice(depth + 1)} )" if rng.random() < 0.8 else "root"

    def sequence(depth: int) -> str:
        return " ".join(item(depth) + rng.choice(MARKS) for _ in range(rng.randint(1, 3)))

    def choice(depth: int) -> str:
        return " | ".join(sequence(depth) for _ in range(rng.randint(1, 3)))

    def rule() -> str:
        return f'"k" {choice(0)}' if rng.random() < 0.6 else choice(0)

    return f"root ::= {rule()}\na ::= {rule()} # a\nb ::= {rule()}"
