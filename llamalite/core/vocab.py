"""A model's vocabulary: text to tokens and back.

Imports numpy, `ffi` and `llamalite.errors`.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.errors import InvalidParameter, TokenizeError
from llamalite.ffi.structs import TOKEN_NULL, TokenAttr, VocabType

if TYPE_CHECKING:
    from llamalite.core.model import Model

_SPECIAL = (
    "bos", "eos", "eot", "sep", "nl", "pad", "mask",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip
_NO_TEXT = int(TokenAttr.CONTROL | TokenAttr.UNKNOWN)
_USER_DEFINED = int(TokenAttr.USER_DEFINED)
_MAX_TEXT_BYTES = 2**31 - 1
_FLAT = "tokens must be a flat list of token ids"


class Vocab:
    """The tokens of a model. Every method may be called from any thread.

    Attributes:
        n_tokens: size of the vocabulary.
        kind: tokenizer family.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lib = model.library
        self._handle: int = self._lib.llama_model_get_vocab(model.handle)
        self.n_tokens: int = self._lib.llama_vocab_n_tokens(self._handle)
        self.kind = VocabType(self._lib.llama_vocab_type(self._handle))
        self._pieces: dict[int, bytes] = {}
        self._eog: dict[int, bool] = {}

    @property
    def handle(self) -> int:
        """`llama_vocab *`; lives as long as the model."""
        self._model.handle  # noqa: B018  raises when the model is closed
        return self._handle

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Turn text into token ids.

        Args:
            text: any text without lone surrogates.
            add_special: let the model add BOS/EOS as it is configured to.
            parse_special: read control tokens written out in the text as such.

        Raises:
            TokenizeError: the text isn't encodable, or the model has no tokenizer.
        """
        if self.kind == VocabType.NONE:
            raise TokenizeError(f"{self._model.path} has no tokenizer: pass token ids instead")
        if not isinstance(text, str):
            raise TokenizeError(f"text is wanted to tokenize, not {type(text).__name__}")
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizeError(
                f"the text holds a lone surrogate at character {error.start}, which is no "
                "character: remove it"
            ) from None
        if len(encoded) > _MAX_TEXT_BYTES:
            raise TokenizeError(f"the text has {len(encoded)} bytes, more than 2 GiB: split it")
        room = len(encoded) + 8
        for _ in range(2):
            tokens = np.empty(room, np.int32)
            with self._model.in_use():
                count: int = self._lib.llama_tokenize(
                    self._handle, encoded, len(encoded), tokens.ctypes.data, room,
                    add_special, parse_special,
                )  # fmt: skip
            if count >= 0:
                return [int(token) for token in tokens[:count].tolist()]
            room = -count
        raise TokenizeError(f"libllama can't tokenize this text of {len(encoded)} bytes")

    def detokenize(
        self, tokens: Iterable[int], *, remove_special: bool = False, unparse_special: bool = True
    ) -> str:
        """Turn token ids into text; bytes that are no UTF-8 become U+FFFD.

        Args:
            tokens: token ids.
            remove_special: leave out the BOS/EOS that tokenize adds.
            unparse_special: write control tokens out.
        """
        ids = self.as_array(tokens)
        room = 8 * len(ids) + 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            with self._model.in_use():
                count: int = self._lib.llama_detokenize(
                    self._handle, ids.ctypes.data, len(ids), ctypes.addressof(buffer), room,
                    remove_special, unparse_special,
                )  # fmt: skip
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = -count
        raise TokenizeError(f"libllama can't turn these {len(ids)} tokens into text")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return one token's bytes, not always valid UTF-8 by themselves.

        Args:
            token: token id.
            special: write control tokens out; they are empty otherwise.
        """
        if special:
            return self._read_piece(self.check(token), True)
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(self.check(token), False)
        return known

    def _read_piece(self, token: int, special: bool) -> bytes:
        room = 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            address = ctypes.addressof(buffer)
            with self._model.in_use():
                count: int = self._lib.llama_token_to_piece(
                    self._handle, token, address, room, 0, special
                )
            if count >= 0:
                return buffer.raw[:count]
            room = -count
        raise TokenizeError(f"libllama can't turn token {token} into text")

    def all_pieces(self) -> list[bytes]:
        """Return the bytes of every token, control tokens written out with 0xFF in front.

        Source: the marking is llguidance's.
        """
        to_piece, handle = self._lib.llama_token_to_piece, self._handle
        room = 512
        buffer = ctypes.create_string_buffer(room)
        address = ctypes.addressof(buffer)
        pieces = []
        with self._model.in_use():  # PERF: once, not for each of up to 260,000 tokens
            for token in range(self.n_tokens):
                count = to_piece(handle, token, address, room, 0, True)
                piece = buffer.raw[:count] if count >= 0 else self._read_piece(token, True)
                if piece and self._is_marked(token, piece):
                    piece = b"\xff" + piece
                pieces.append(piece)
        return pieces

    def _is_marked(self, token: int, piece: bytes) -> bool:
        attributes = self._lib.llama_vocab_get_attr(self._handle, token)
        if attributes & _NO_TEXT:
            return True
        is_own = attributes & _USER_DEFINED
        return bool(is_own) and piece.startswith(b"<") and piece.endswith(b">")

    def in_use(self) -> AbstractContextManager[int]:
        """Keep other threads from closing the model meanwhile; raises EngineClosed if it is."""
        return self._model.in_use()

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of the `llama_vocab` and of `llama_tokenize`; good as long as the model."""
        tokenize = ctypes.cast(self._lib.llama_tokenize, ctypes.c_void_p).value
        assert tokenize is not None
        return self.handle, tokenize

    def check(self, token: int) -> int:
        """Return the token id as an int.

        Raises:
            InvalidParameter: it isn't in the vocabulary; libllama would read past its tables.
        """
        try:
            number = operator.index(token)
        except TypeError:
            raise InvalidParameter(f"{token!r} is no token id", param="tokens") from None
        if not 0 <= number < self.n_tokens:
            raise InvalidParameter(
                f"token {number} is not in the vocabulary of {self.n_tokens} tokens", param="tokens"
            )
        return number

    def is_eog(self, token: int) -> bool:
        """Say whether the token ends a generation (EOS, EOT and the like)."""
        known = self._eog.get(token)
        if known is None:
            known = self._lib.llama_vocab_is_eog(self.handle, self.check(token))
            self._eog[token] = known
        return known

    @cached_property
    def eog_tokens(self) -> frozenset[int]:
        """All tokens that end a generation."""
        is_eog, handle = self._lib.llama_vocab_is_eog, self.handle
        return frozenset(token for token in range(self.n_tokens) if is_eog(handle, token))

    @cached_property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Which tokens show no text because they are no text, ends of a generation left out.

        bool[n_tokens].
        """
        attribute, handle = self._lib.llama_vocab_get_attr, self.handle
        no_text = int(TokenAttr.CONTROL | TokenAttr.UNKNOWN)  # PERF: an IntFlag is slow to test
        table = np.fromiter(
            (attribute(handle, token) & no_text != 0 for token in range(self.n_tokens)), np.bool_
        )
        table[list(self.eog_tokens)] = False
        return table

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens this model has, by llama.h's names (bos, eos, fim_pre …)."""
        ids = {}
        for name in _SPECIAL:
            symbol = f"llama_vocab_{name}"
            if self._lib.has(symbol):
                token = getattr(self._lib, symbol)(self.handle)
                if token != TOKEN_NULL:
                    ids[name] = token
        return ids

    @property
    def adds_bos(self) -> bool:
        """Say whether tokenizing with add_special puts BOS in front."""
        return bool(self._lib.llama_vocab_get_add_bos(self.handle))

    def attributes(self, token: int) -> TokenAttr:
        """Return what kind of token it is."""
        return TokenAttr(self._lib.llama_vocab_get_attr(self.handle, self.check(token)))

    def text_of(self, name: str) -> str:
        """Return how a special token is written, such as "<s>" for bos; "" if there is none."""
        token = self.special_tokens.get(name)
        return "" if token is None else self.piece(token, special=True).decode("utf-8", "replace")

    def as_array(self, tokens: Iterable[int]) -> npt.NDArray[np.int32]:
        """Return int32[n] of token ids, each checked.

        Raises:
            InvalidParameter: one is not in the vocabulary.
        """
        if isinstance(tokens, str | bytes | bytearray | Mapping):
            raise InvalidParameter(_FLAT, param="tokens")
        try:
            ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens))
        except (TypeError, ValueError):
            raise InvalidParameter(_FLAT, param="tokens") from None
        if ids.size == 0:
            return np.empty(0, np.int32)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InvalidParameter(_FLAT, param="tokens")
        for bad in (int(ids.min()), int(ids.max())):
            self.check(bad)
        return ids.astype(np.int32, copy=False)
