"""What `check_grammar` lets through, libllama must take: it would abort or hang otherwise."""

from __future__ import annotations

import random

from llamalite.constraint import check_grammar
from llamalite.core.model import Model
from llamalite.errors import ConstraintError
from llamalite.ffi.library import Library

N_TRIED = 4000
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


def test_accepted_grammars_are_accepted_natively(library: Library, model: Model) -> None:
    rng = random.Random(20)
    accepted = 0
    for _ in range(N_TRIED):
        text = random_grammar(rng)
        try:
            check_grammar(text)
        except ConstraintError:
            continue
        sampler = library.llama_sampler_init_grammar(model.vocab.handle, text.encode(), b"root")
        assert sampler, text
        library.llama_sampler_free(sampler)
        accepted += 1
    assert accepted > N_TRIED // 50
