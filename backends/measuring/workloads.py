"""Workloads: the calls that builds are timed on. Shapes that people deploy, and real unequal sentences."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np

from ...ir.errors import MeasureError, short
from ...ir.inputs.cached import cache_of
from ...ir.inputs.memory import remembering
from ...ir.inputs.probe import feed
from ...ir.inputs.text import TextEncoder
from ...ir.program import Program
from ...ir.spec import InputSpec
from ..bundles.feeds import Feed, sized_by

BATCHES = ("1", "8")  # for inputs without a length, such as images
MOST_TOKENS = 1 << 17  # of one call: the length of a long context, or a thousand texts of usual length
MOST_ROWS = 1024  # of one call, where a row's size is the model's: a thousand images are half a gigabyte
MOST_BYTES = 1 << 30  # of its inputs
_NAME = re.compile(
    r"(?P<batch>[1-9]\d{0,5})(x(?P<length>[1-9]\d{0,6}))?|mixed:(?P<count>[1-9]\d{0,5})", re.ASCII
)
FRAME = 8  # a smallest length beyond this is what convolutions need for one frame
MOST_FRAMES = 1 << 16  # samples that a default workload has at most: four seconds of sound
IMAGE = 224  # pixels to a side where that is free
_TEXT = ("token_ids", "attention_mask", "token_type_ids", "position_ids")
# Modules whose documentation is prose of every length; importing them costs nothing and runs nothing.
_PROSE = ("argparse", "collections", "datetime", "fractions", "heapq", "json", "logging", "pathlib", "random",
          "shutil", "statistics", "string", "subprocess", "textwrap", "threading", "zipfile")  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """One call. feed: arrays by input name."""

    name: str
    feed: Feed = field(repr=False)


def default_names(program: Program) -> tuple[str, ...]:
    """The workloads that suit the program's inputs: by batch and length for text, by batch for the rest."""
    main, length = _main(program)
    if length is None:
        low, high = _bounds(program, main.shape[0]) if main.shape else (1, 1)
        return tuple(dict.fromkeys(str(min(max(int(batch), low), high)) for batch in BATCHES))
    cache = cache_of(program)
    low, high = _bounds(program, cache.past if cache else length)
    if cache:
        high = min(high, _bounds(program, cache.mask)[1] - _bounds(program, cache.tokens)[0])
    unit = low if low > FRAME else 1
    sizes = [
        (1, min(128, MOST_FRAMES // unit) * unit),
        (8, min(128, MOST_FRAMES // unit) * unit),
        (1, 16 * unit),
    ]
    names = [f"{batch}x{min(max(size, low), high)}" for batch, size in sizes]
    if not cache and any(spec.role == "attention_mask" for spec in program.inputs):
        names.append("mixed:32")
    fixed = main.shape[0] if isinstance(main.shape[0], int) else None
    if fixed:
        names = [re.sub(r"^\d+x", f"{fixed}x", name).replace(":32", f":{fixed}") for name in names]
    return tuple(dict.fromkeys(names))


def workloads(
    program: Program,
    names: Sequence[str] | None = None,
    texts: Sequence[str] = (),
    seed: int = 0,
) -> list[Workload]:
    """Workloads by name.

    Args:
        program: its input specs, tokenizer and bounds are used; its graph is not.
        names: "8x128" is a batch of 8 at length 128, random ids and no padding; where the program takes a
            cache, one token each over 128 that are cached. "8" is a batch of 8 for inputs without a length,
            "mixed:32" 32 sentences padded to the longest. None takes `default_names`.
        texts: where the sentences of mixed workloads come from; otherwise Python's own documentation.
        seed: of the ids and of the choice of sentences.

    Raises:
        MeasureError: a name that says no shape, or a shape that the program doesn't take.
    """
    chosen = default_names(program) if names is None else names
    return [Workload(name, _feed(program, name, texts, seed)) for name in dict.fromkeys(chosen)]


def fitting(feed: Feed, programs: Iterable[Program]) -> Feed:
    """A call with ids that every program has a row for, and an empty memory for those that take one; itself
    where it is one already.

    Ids beyond the smallest table, of a program whose vocabulary was pruned, are taken modulo its rows: what
    they mean is another matter, and takes no time.
    """
    bounds: dict[str, tuple[int, int]] = {}
    programs = list(programs)
    for program in programs:
        feed = remembering(program.inputs, feed)
    for spec in (spec for program in programs for spec in program.inputs if spec.high):
        low, high = bounds.get(spec.name, (spec.low, spec.high or 0))
        bounds[spec.name] = max(low, spec.low), min(high, spec.high or 0)
    wrapped = {
        name: (feed[name] - low) % (high - low) + low
        for name, (low, high) in bounds.items()
        if name in feed and feed[name].size and not low <= feed[name].min() <= feed[name].max() < high
    }
    return {**feed, **wrapped} if wrapped else feed


def fitted(workloads: Sequence[Workload], programs: Iterable[Program]) -> list[Workload]:
    """The same workloads with feeds that fit every program; those that do already are the same objects."""
    chosen = list(programs)
    feeds = [fitting(workload.feed, chosen) for workload in workloads]
    return [
        workload if feed is workload.feed else Workload(workload.name, feed)
        for workload, feed in zip(workloads, feeds, strict=True)
    ]


def shortest(workloads: Iterable[Workload]) -> Workload:
    """That with the fewest numbers to a call."""
    return min(workloads, key=lambda workload: sum(array.size for array in workload.feed.values()))


def names_in(text: str) -> tuple[str, ...]:
    """The names in "1x128, 8x128", each once.

    Raises:
        MeasureError: as `check_name`.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        check_name(name)
    return names


def check_name(name: str) -> None:
    """Refuse what says no shape, and what no machine should be asked for.

    Raises:
        MeasureError: the name, and what would be one.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise MeasureError(
            f"{short(name)} is no shape; write batch x length (8x128), a batch (8) or a "
            "number of unequal sentences (mixed:32)"
        )
    rows, length = int(found["batch"] or found["count"]), int(found["length"] or 0)
    if not length and rows > MOST_ROWS:
        raise MeasureError(f"{name} is a call of {rows:,} rows; name one of at most {MOST_ROWS:,}")
    if rows * length > MOST_TOKENS:
        raise MeasureError(
            f"{name} is a call of {rows * length:,} tokens; name one of at most {MOST_TOKENS:,}"
        )


def _feed(program: Program, name: str, texts: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    check_name(name)
    found = _NAME.fullmatch(name)
    assert found is not None
    if found["count"]:
        return _sentences(program, name, int(found["count"]), texts, rng)
    length = int(found["length"]) if found["length"] else None
    return _random(program, name, int(found["batch"]), length, rng)


def _random(
    program: Program, name: str, batch: int, length: int | None, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    sizes: dict[str, int] = {}
    main, axis = _main(program)
    if length and axis is None:
        raise MeasureError(f"the workload {name} has a length and the model has none; write {batch}")
    wanted: dict[int | str, int] = {main.shape[0]: batch} if main.shape else {}
    cache = cache_of(program)
    if cache:
        past, tokens = length or 1, _bounds(program, cache.tokens)[0]
        wanted |= {cache.past: past, cache.tokens: tokens, cache.mask: past + tokens}
    elif axis is not None:
        wanted[axis] = length or _bounds(program, axis)[1]
    for dim, size in wanted.items():
        low, high = _bounds(program, dim)
        if not low <= size <= high:
            edge = f"at least {low}" if size < low else f"at most {high}"
            raise MeasureError(f"the workload {name} needs {dim} = {size} and the model takes {edge}")
        if isinstance(dim, str):
            sizes[dim] = size
    for spec in program.inputs:
        usual = IMAGE if spec.role == "pixel_values" else length or 1
        for dim in spec.shape:
            if isinstance(dim, str):
                low, high = _bounds(program, dim)
                sizes.setdefault(dim, min(max(low, usual), high))
    need = sum(
        prod(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        * np.dtype(spec.dtype).itemsize
        for spec in program.inputs
    )
    if need > MOST_BYTES:
        raise MeasureError(
            f"the workload {name} is {need / 1e6:,.0f} MB of inputs, and at most {MOST_BYTES / 1e6:,.0f} are "
            "made; name smaller sizes, as in 1x128"
        )
    return feed(program, sizes, rng=rng)


def _sentences(
    program: Program, name: str, count: int, texts: Sequence[str], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Texts through the program's tokenizer; without one, random ids of as many words as the texts have."""
    mask = next((spec for spec in program.inputs if spec.role == "attention_mask"), None)
    if cache_of(program):
        raise MeasureError(
            f"the workload {name} has unequal sentences and the model takes one token over a cache; write "
            "batch x cached tokens (1x128)"
        )
    if mask is None:
        raise MeasureError(f"the workload {name} has unequal sentences and the model takes no attention mask")
    low, high = _bounds(program, mask.shape[0])
    if not low <= count <= high:
        raise MeasureError(f"the workload {name} is a batch of {count} and the model takes {low} to {high}")
    source = list(texts) or prose()
    picked = [source[i] for i in rng.choice(len(source), count, replace=count > len(source))]
    if "tokenizer.json" in program.tokenizer and all(spec.role in _TEXT for spec in program.inputs):
        content = program.tokenizer["tokenizer.json"]
        return TextEncoder(content, program.inputs, program.info, program.symbols)(picked)
    low, high = _bounds(program, mask.shape[1])
    lengths = np.clip([len(text.split()) + 2 for text in picked], low, high)
    longest = int(lengths.max()) if isinstance(mask.shape[1], str) else high
    made = _random(program, name, count, longest, rng)
    made[mask.name] = mask.masking(np.arange(longest) < lengths[:, None])
    return made


@cache
def prose() -> list[str]:
    """Sentences of 4 to 40 plain words from the standard library's documentation, sorted."""
    documents = []
    for name in _PROSE:
        module = importlib.import_module(name)
        members = [member for _, member in inspect.getmembers(module) if callable(member)]
        documents += [inspect.getdoc(item) or "" for item in (module, *members)]
    sentences = {
        " ".join(sentence.split())
        for document in documents
        for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", document)
    }
    plain = re.compile(r"[A-Z][A-Za-z,;'’ -]+[.!?]")
    return sorted(s for s in sentences if plain.fullmatch(s) and 4 <= len(s.split()) <= 40)


def _main(program: Program) -> tuple[InputSpec, int | str | None]:
    """The input that says how large a call is, and its axis of tokens, frames or samples, if it has one."""
    main = sized_by(program.inputs)
    if main.role in ("token_ids", "decoder_token_ids"):
        return main, main.shape[1] if len(main.shape) > 1 else 1
    if main.role == "pixel_values":
        return main, None
    return main, next((dim for dim in main.shape[1:] if isinstance(dim, str)), None)


def _bounds(program: Program, dim: int | str) -> tuple[int, int]:
    return (dim, dim) if isinstance(dim, int) else program.symbols.get(dim, (1, 1 << 20))
