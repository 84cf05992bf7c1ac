"""A tokenizer with fewer tokens that gives the same tokens for every text that used only the ones it keeps.

WordPiece takes the longest piece that fits, Unigram the best path: taking away pieces that a text doesn't use
changes nothing for it. BPE applies the merge of lowest rank that fits, so a token needs all merges that it is
made by, and their results. Words that used a token that is gone fall into smaller pieces, at worst into
single characters, which are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from ....ir.errors import PassError
from .files import pieces, references, written

MODELS = ("WordPiece", "Unigram", "BPE", "WordLevel")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Tokens:
    """The tokens of a tokenizer.json.

    ids: token -> id, added ones included.

    Args:
        files: the tokenizer's, by name.

    Raises:
        PassError: there is no tokenizer.json, or its model is of an unknown kind.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        if "tokenizer.json" not in files:
            raise PassError(
                "the model has no tokenizer.json that could be rewritten with its vocabulary: put it beside "
                "the model"
            )
        self.files = files
        self.content: dict[str, Any] = json.loads(files["tokenizer.json"])
        self.model: dict[str, Any] = self.content["model"]
        self.kind = self.model.get("type") or _kind(self.model)
        if self.kind not in MODELS:
            raise PassError(
                f"the tokenizer's model is {self.kind}, and one of {', '.join(MODELS)} can be rewritten"
            )
        self.vocabulary = pieces(self.model)
        self.added = {token["content"]: int(token["id"]) for token in self.content.get("added_tokens") or ()}
        self.ids = {**self.vocabulary, **self.added}

    @property
    def unknown(self) -> int:
        """The id of the token for what no other token says; any added one where there is none."""
        if self.kind == "Unigram" and self.model.get("unk_id") is not None:
            return int(self.model["unk_id"])
        return self.ids.get(self.model.get("unk_token") or "", min(self.added.values(), default=0))

    @property
    def fixed(self) -> set[int]:
        """Ids of the tokens that are no pieces of words: added and special ones, and the unknown one."""
        return {*self.added.values(), *_special(self.content), self.unknown}

    @property
    def spelled(self) -> set[int]:
        """Ids of the bytes that a character may fall into."""
        return {i for token, i in self.vocabulary.items() if _BYTE.fullmatch(token)}

    def needed(self, seen: Iterable[int], characters: bool = True) -> set[int]:
        """Ids of the tokens that must stay so that those seen do: added and special ones, single characters
        and bytes, and what BPE makes seen tokens from.

        characters: keep those of no seen token too.
        """
        names = {i: token for token, i in self.vocabulary.items()}
        kept = {*seen, *self.fixed}
        if self.kind == "Unigram":
            # What an unknown character costs is reckoned from the lowest score.
            scores = [score for _, score in self.model["vocab"]]
            kept.add(scores.index(min(scores)))
        used = {character for i in kept for character in self.core(names.get(i, ""))}
        for token, i in self.vocabulary.items():
            core = self.core(token)
            if len(core) == 1 and (characters or core in used):
                kept.add(i)
        kept |= self.spelled
        if self.kind == "BPE":
            kept |= {self.vocabulary[part] for i in sorted(kept) for part in self._parts(names.get(i, ""))}
        return kept

    def rewritten(self, kept: Sequence[int]) -> dict[str, bytes]:
        """The files with these ids alone, numbered anew in ascending order.

        Raises:
            PassError: the package tokenizers reads other ids from the result.
        """
        new = {old: i for i, old in enumerate(kept)}
        model = json.loads(self.files["tokenizer.json"])["model"]
        self._cut(model, new)
        names = {token: new[i] for token, i in self.ids.items() if i in new}
        files = written(self.files, model, new, names)
        if "merges.txt" in files:
            lines = files["merges.txt"].decode().splitlines()
            stays = (
                line for line in lines if line.startswith("#version") or self._stays(line.split(" "), names)
            )
            files["merges.txt"] = "".join(f"{line}\n" for line in stays).encode()
        return files

    def remodelled(self, model: Mapping[str, Any]) -> dict[str, bytes]:
        """The files with another model of the same kind, which has a token for each added one.

        Raises:
            PassError: as `rewritten`.
        """
        names = pieces(model)
        new = {i: names[token] for token, i in self.ids.items() if token in names}
        files = written(self.files, model, new, names)
        if "merges.txt" in files:
            merges = (" ".join(_pair(pair)) for pair in model.get("merges") or ())
            files["merges.txt"] = "".join(f"{line}\n" for line in ("#version: 0.2", *merges)).encode()
        return files

    def _cut(self, model: dict[str, Any], new: Mapping[int, int]) -> None:
        """Leaves the tokens that have new ids, in place."""
        if self.kind == "Unigram":
            model["vocab"] = [piece for i, piece in enumerate(model["vocab"]) if i in new]
            if model.get("unk_id") is not None:
                model["unk_id"] = new[model["unk_id"]]
            return
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
        if self.kind == "BPE":
            model["merges"] = [pair for pair in model["merges"] if self._stays(_pair(pair), model["vocab"])]

    def _stays(self, pair: Sequence[str], names: Mapping[str, int]) -> bool:
        """Whether both parts of a merge and its result are kept."""
        return len(pair) == 2 and all(part in names for part in (*pair, self._joined(*pair)))

    def _joined(self, left: str, right: str) -> str:
        return left + right.removeprefix(self.model.get("continuing_subword_prefix") or "")

    def core(self, token: str) -> str:
        """A token without the marks of its place in a word."""
        core = token.removeprefix(self.model.get("continuing_subword_prefix") or "")
        return core.removesuffix(self.model.get("end_of_word_suffix") or "") or token

    @cached_property
    def _ranks(self) -> dict[tuple[str, ...], int]:
        return {tuple(_pair(pair)): rank for rank, pair in enumerate(self.model["merges"])}

    def _parts(self, token: str) -> set[str]:
        """What BPE makes a token from, on the way from characters; nothing for one that no merges make."""
        if self.kind != "BPE" or len(self.core(token)) < 2:
            return set()
        prefix, suffix = (
            self.model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")
        )
        parts = list(self.core(token))
        if suffix and token.endswith(suffix):
            parts[-1] += suffix
        first = prefix if prefix and token.startswith(prefix) else ""
        parts = [(prefix if i else first) + part for i, part in enumerate(parts)]
        used = set(parts)
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            rank, at = min((self._ranks.get(pair, len(self._ranks)), i) for i, pair in enumerate(pairs))
            if rank == len(self._ranks):
                return set()
            parts[at : at + 2] = [self._joined(*pairs[at])]
            used.add(parts[at])
        return used & self.vocabulary.keys()


def _kind(model: Mapping[str, Any]) -> str:
    """Of a model that doesn't state it, as old files don't."""
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _pair(merge: str | Sequence[str]) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _special(content: Mapping[str, Any]) -> Iterator[int]:
    return (place[key] for place, key in references(content))
