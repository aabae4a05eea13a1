"""GBNF grammars: which tokens may come next, by libllama's grammar sampler.

Owns what keeps that sampler from aborting the process: it does when it is told of a token that
doesn't fit. Imports numpy, `ffi`, `constraint`, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import codecs
import ctypes
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.constraint.gbnf import check_grammar
from llamalite.core.candidates import Logits, array_of, room_for
from llamalite.core.owned import Owned
from llamalite.errors import ConstraintError

if TYPE_CHECKING:
    from llamalite.core.vocab import Vocab

_N_WITNESSES = 16
_LIMIT_S, _LIMIT_A_TOKEN_S = 0.2, 5e-6
"""Processor time of a native call, some fifty times what usual grammars take."""


class GrammarMatcher(Owned):
    """Follows one answer through a GBNF grammar; a `constraint.matcher.Matcher`.

    Tokens that show no text, such as control tokens, are never allowed, but for the end of
    generation: libllama takes them for the text of their names. And the end is not allowed in the
    midst of a character, where libllama allows it.

    Args:
        vocab: the vocabulary of the answer.
        text: the grammar; checked here, because some builds abort or hang on faulty ones.
        root: name of the start rule.

    Raises:
        ConstraintError: the grammar is faulty; of every method: libllama takes too long over it, as
            over alternatives that begin alike and contain themselves.

    Source: llama_sampler_init_grammar.
    """

    def __init__(self, vocab: Vocab, text: str, root: str = "root") -> None:
        check_grammar(text, root)
        library = vocab._model.library
        handle = library.llama_sampler_init_grammar(
            vocab.handle, text.encode("utf-8"), root.encode("utf-8")
        )
        if not handle:
            raise ConstraintError("libllama can't parse this grammar", param="grammar")
        self._own(vocab, handle)

    def _own(self, vocab: Vocab, handle: int) -> None:
        library = vocab._model.library
        super().__init__(handle, library.llama_sampler_free, vocab._model)
        self._vocab, self._library = vocab, library
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._witnesses: deque[int] = deque(maxlen=_N_WITNESSES)
        self._allowed: int | None = None
        self._is_over: bool | None = None

    def clone(self) -> GrammarMatcher:
        """Return a matcher in the same place that goes its own way; the grammar isn't read again.

        Source: llama_sampler_clone.
        """
        twin = GrammarMatcher.__new__(GrammarMatcher)
        with self.in_use() as handle:
            copied = self._library.llama_sampler_clone(handle)
            if not copied:
                raise ConstraintError("libllama can't copy this grammar", param="grammar")
            twin._own(self._vocab, copied)
        twin._utf8.setstate(self._utf8.getstate())
        twin._witnesses.extend(self._witnesses)
        twin._allowed, twin._is_over = self._allowed, self._is_over
        return twin

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        if self._is_over is None:
            self._is_over = self._find_over()
        return self._is_over

    def _find_over(self) -> bool:
        ends = self._vocab.eog_tokens
        if ends and not self.allows(min(ends)):
            return False
        # PERF: what came before can often come again, and then the vocabulary needn't be asked.
        recent = np.array(self._witnesses, np.int32)
        if len(recent) and self._fitting(recent).any():
            return False
        every = np.arange(self._vocab.n_tokens, dtype=np.int32)
        fitting = every[self._fitting(every)]
        more = fitting[~np.isin(fitting, list(ends))]
        self._witnesses.extend(more[:1].tolist())
        return not len(more)

    def allows(self, token: int) -> bool:
        """Say whether a token may come next; changes nothing.

        Raises:
            InvalidParameter: it isn't in the vocabulary.
        """
        if token != self._allowed:
            one = np.array([self._vocab.check(token)], np.int32)
            if not self._fitting(one)[0]:
                return False
            self._allowed = token
        return True

    def mask(self, logits: Logits) -> bool:
        """Set what may not come next to -inf, in place; False if nothing is left.

        Args:
            logits: float32[n_vocab].
        """
        ids = np.flatnonzero(logits > -np.inf).astype(np.int32)
        fitting = self._fitting(ids)
        logits[ids[~fitting]] = -np.inf
        return bool(fitting.any())

    def _fitting(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return bool[n]: which of these tokens may come next."""
        candidates = room_for(len(ids))
        candidates["id"], candidates["logit"] = ids, 0
        array = array_of(candidates)
        self._call("llama_sampler_apply", ctypes.addressof(array), len(ids))
        fitting: npt.NDArray[np.bool_] = np.equal(candidates["logit"], 0)
        fitting &= ~self._vocab.unseen[ids]
        if self._utf8.getstate()[0]:
            fitting &= ~np.isin(ids, list(self._vocab.eog_tokens))
        return fitting

    def _call(self, name: str, argument: int, n_tokens: int) -> None:
        # NOTE: what is ambiguous takes several times longer with each character, so the first slow
        # call is the last that can be waited for.
        started = time.thread_time()
        getattr(self._library, name)(self.handle, argument)
        if time.thread_time() - started > _LIMIT_S + n_tokens * _LIMIT_A_TOKEN_S:
            raise ConstraintError(
                "the grammar has too many readings of this answer to follow them all: let "
                "alternatives that contain themselves begin differently",
                param="grammar",
            )

    def accept(self, token: int) -> None:
        """Go on past a token.

        Raises:
            ConstraintError: it isn't allowed here.
        """
        if not self.allows(token):
            raise ConstraintError(
                f"the grammar doesn't allow token {token} here: choose another", param="grammar"
            )
        self._call("llama_sampler_accept", token, 1)
        self._allowed = None
        self._is_over = True if self._vocab.is_eog(token) else None
        self._witnesses.append(token)
        self._utf8.decode(self._vocab.piece(token))
