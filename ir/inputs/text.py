"""Texts to arrays, as a program's inputs want them. Needs only tokenizers and NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BundleError, InputError
from ..spec import InputSpec
from .texts import listed

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class TextEncoder:
    """A program's tokenizer: truncates to what the model takes, pads to the longest text of the call.

    tokenizer: the content of tokenizer.json. info: "max_length" (tokens, special ones included) and
    "pad_token_id" are read from it. Safe to call from several threads.

    Raises:
        BundleError: tokenizer.json can't be read, or the package tokenizers is not installed.
    """

    def __init__(
        self,
        tokenizer: bytes,
        inputs: Sequence[InputSpec],
        info: Mapping[str, Any],
        symbols: Mapping[str, tuple[int, int]],
    ) -> None:
        self.tokenizer = _load(tokenizer)
        self.inputs = tuple(spec for spec in inputs if not spec.given_by)  # a memory is empty
        self.pad = int(info.get("pad_token_id") or 0)
        ids = next((spec for spec in inputs if spec.role == "token_ids"), None)
        if ids is None:
            raise BundleError("the model takes no token ids, so texts can't be encoded for it")
        self.fixed = ids.shape[1] if len(ids.shape) > 1 and isinstance(ids.shape[1], int) else None
        limits = [symbols[dim][1] for dim in ids.shape[1:2] if isinstance(dim, str) and dim in symbols]
        limits += [int(info["max_length"])] if info.get("max_length") else []
        limits += [self.fixed] if self.fixed else []
        if limits:
            self.tokenizer.enable_truncation(min(limits))

    def __call__(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays by input name: (texts, longest) each, padded on the right.

        pairs: second segments, one a text. Raises InputError for no texts, or something that is no text.
        """
        return self.pad_together(self.tokenize(texts, pairs))

    def tokenize(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Encoding]:
        """Each text's tokens, truncated and not padded. Raises InputError as `texts.listed`."""
        firsts = listed(texts)
        if pairs is None:
            return self.tokenizer.encode_batch(firsts)
        seconds = listed(pairs, "pairs")
        if len(firsts) != len(seconds):
            raise InputError(
                f"there are {len(firsts)} texts and {len(seconds)} pairs; give one for each text"
            )
        return self.tokenizer.encode_batch(list(zip(firsts, seconds, strict=True)))

    def words(self, texts: Sequence[Sequence[str]]) -> tuple[dict[str, np.ndarray], list[list[int | None]]]:
        """A feed for texts already split into words, and the word that each token is of (None: special)."""
        encodings = self.tokenizer.encode_batch([list(words) for words in texts], is_pretokenized=True)
        return self.pad_together(encodings), [list(encoding.word_ids) for encoding in encodings]

    def token_id(self, token: str) -> int | None:
        """The id of a token, None for one the vocabulary doesn't have."""
        return self.tokenizer.token_to_id(token)

    def pad_together(self, encodings: Sequence[Encoding], length: int | None = None) -> dict[str, np.ndarray]:
        """One feed of texts tokenized before, padded on the right to the longest, or to a length."""
        longest = max(len(encoding) for encoding in encodings)
        length = self.fixed or length or max(1, longest)
        if longest > length:
            raise InputError(f"the model takes {length} tokens, and its tokenizer adds more by itself")
        feed = {}
        for spec in self.inputs:
            if len(spec.shape) != 2:
                raise InputError(f"the input {spec.name!r} has no row a text: pass arrays to run()")
            array = np.full((len(encodings), length), self._padding(spec), dtype=spec.dtype)
            for row, encoding in zip(array, encodings, strict=True):
                row[: len(encoding)] = _values(spec, encoding)
            feed[spec.name] = array
        return feed

    def _padding(self, spec: InputSpec) -> float:
        if spec.role == "attention_mask":
            return spec.hidden
        return self.pad if spec.role == "token_ids" else spec.low


def _values(spec: InputSpec, encoding: Encoding) -> Sequence[int] | np.ndarray:
    if spec.role == "token_ids":
        return encoding.ids
    if spec.role == "attention_mask":
        return spec.masking(np.asarray(encoding.attention_mask, bool))
    if spec.role == "token_type_ids":
        return encoding.type_ids
    if spec.role == "position_ids":
        return range(spec.low, spec.low + len(encoding))
    raise InputError(f"the input {spec.name!r} ({spec.role}) is not made from text: pass arrays to run()")


def _load(content: bytes) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise BundleError("texts need the package tokenizers: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"tokenizer.json can't be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
