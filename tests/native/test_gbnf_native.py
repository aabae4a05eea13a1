"""What `check_grammar` lets through, libllama must take: it would abort or hang otherwise."""

from __future__ import annotations

import random

from support.grammars import random_grammar

from llamalite.constraint import check_grammar
from llamalite.core.model import Model
from llamalite.errors import ConstraintError
from llamalite.ffi.library import Library

N_TRIED = 4000


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
