"""Every place in a tokenizer's files where a token or an id stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ....ir.errors import PassError


def written(
    files: Mapping[str, bytes], model: Mapping[str, Any], new: Mapping[int, int], names: Mapping[str, int]
) -> dict[str, bytes]:
    """The files with another model in their tokenizer.json; merges.txt is left as it is.

    Args:
        files: with tokenizer.json, by name.
        new: old id -> new one, of every token that stands outside the model's vocabulary.
        names: token -> id, as they must come out.

    Raises:
        PassError: the package tokenizers reads other ids from the result.
    """
    files = dict(files)
    content = json.loads(files["tokenizer.json"])
    content["model"] = model
    for token in content.get("added_tokens") or ():
        token["id"] = new[int(token["id"])]
    for place, key in references(content):
        place[key] = new[place[key]]
    files["tokenizer.json"] = json.dumps(content, ensure_ascii=False).encode()
    if "vocab.txt" in files:
        held = pieces(model)
        files["vocab.txt"] = "".join(f"{token}\n" for token in sorted(held, key=held.__getitem__)).encode()
    if "vocab.json" in files:
        files["vocab.json"] = json.dumps(pieces(model), ensure_ascii=False).encode()
    if "added_tokens.json" in files:
        held = {token: new[i] for token, i in json.loads(files["added_tokens.json"]).items() if i in new}
        files["added_tokens.json"] = json.dumps(held, ensure_ascii=False).encode()
    if "tokenizer_config.json" in files:
        settings = json.loads(files["tokenizer_config.json"])
        if "added_tokens_decoder" in settings:
            decoder = settings["added_tokens_decoder"].items()
            settings["added_tokens_decoder"] = {str(new[int(i)]): t for i, t in decoder if int(i) in new}
            files["tokenizer_config.json"] = json.dumps(settings, ensure_ascii=False, indent=2).encode()
    _check(files["tokenizer.json"], names)
    return files


def pieces(model: Mapping[str, Any]) -> dict[str, int]:
    """token -> id, of a model's own vocabulary."""
    vocabulary = model["vocab"]
    return (
        {piece: i for i, (piece, _) in enumerate(vocabulary)}
        if isinstance(vocabulary, list)
        else dict(vocabulary)
    )


def references(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Every place outside the vocabulary where an id stands, as (container, key)."""
    padding = content.get("padding")
    if padding:
        yield padding, "pad_id"
    stack = [content.get("post_processor")]
    while stack:
        processor = stack.pop()
        if processor is None:
            continue
        stack += processor.get("processors") or ()
        for end in ("sep", "cls"):
            if end in processor:
                yield processor[end], 1
        for token in (processor.get("special_tokens") or {}).values():
            yield from ((token["ids"], i) for i in range(len(token["ids"])))


def _check(content: bytes, names: Mapping[str, int]) -> None:
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_str(content.decode()).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises nothing more specific
        raise PassError(f"the tokenizer could not be rewritten: {error}") from error
    for token, number in names.items():
        if found.get(token) != number:
            raise PassError(
                f"the tokenizer could not be rewritten: {token!r} has the id {found.get(token)} in it"
            )
