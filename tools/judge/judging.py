"""The two judges of a run: one that may steer passes, and one on rows that nothing was tuned on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...backends.measuring.workloads import prose
from ...ir.errors import DataError
from ...ir.inputs.probe import probes
from ...ir.inputs.text import TextEncoder
from ...ir.program import Program
from ...passes.common.texts import with_texts
from ...passes.manager.contract import Feed
from ..config import RunConfig
from . import data as files
from .data import GROUPED, Data, Row
from .quality import BATCH, Encoder, Fidelity, Judge, Runner, batches, judge, labels_tell

FEW = 64  # below this many rows, the same rows tune and judge
TUNING = 200  # rows that tune, at most
BUILT_IN = 128  # sentences to compare on where no data is given
CALIBRATION, GIVEN = 64, 256  # rows to calibrate on: of the data, of a file given for it
SAMPLE = 64  # rows that other questions may be asked about
SEPARATE = ("similarity", "retrieval")  # both texts of a row are read, each by itself
TRAINING = 50_000  # rows of that file to train on, at most


@dataclass(frozen=True)
class Judging:
    """tune and final score a runner. calibration: feeds of real texts; training: more of them. rows: how many
    judge. said: what was guessed about the data. tokenizer: what texts are read with. sample: rows that
    judge, for `paired` models with both their texts."""

    tune: Judge
    final: Judge
    calibration: Sequence[Feed]
    training: Sequence[Feed]
    rows: int
    source: str
    said: tuple[str, ...] = ()
    tokenizer: bytes = b""
    sample: Sequence[Row] = ()
    paired: bool = False

    def of(self, program: Program) -> tuple[Judge, Judge]:
        """tune and final for a program, whose texts its own tokenizer reads."""
        content = program.tokenizer.get("tokenizer.json", self.tokenizer)
        if not self.tokenizer or content == self.tokenizer:
            return self.tune, self.final
        encoder = TextEncoder(content, program.inputs, program.info, program.symbols)
        return _with(self.tune, encoder), _with(self.final, encoder)


def _with(judge: Judge, encoder: Encoder) -> Judge:
    """A judge that reads its texts with another tokenizer."""
    if isinstance(judge, Fidelity):
        return replace(judge, own=[feed for _, feed in batches(judge.rows, encoder)])
    return replace(judge, encoder=encoder)  # type: ignore[type-var]


def read_data(config: RunConfig, program: Program) -> Data | None:
    """The user's rows, or built-in sentences; None for a model that has no tokenizer to read texts with.

    Raises:
        DataError: the file can't be read, or the model can't read texts.
    """
    if "tokenizer.json" not in program.tokenizer:
        if config.data:
            raise DataError(
                f"{config.data} holds texts and the model has no tokenizer.json to read them with; "
                "put it beside the model"
            )
        return None
    if config.data:
        return files.read(config.data, program.task, config.task, config.columns, config.samples, config.seed)
    sentences = random.Random(config.seed).sample(prose(), BUILT_IN)
    return Data("built-in sentences", "fidelity", tuple(Row(i, text) for i, text in enumerate(sentences, 1)))


def read_calibration(config: RunConfig, program: Program) -> Data | None:
    """The texts of the file given to calibrate and train on; None without one.

    Raises:
        DataError: the file can't be read, or the model can't read texts.
    """
    if config.calibrate is None:
        return None
    if "tokenizer.json" not in program.tokenizer:
        raise DataError(
            f"{config.calibrate} holds texts and the model has no tokenizer.json to read them with; "
            "put it beside the model"
        )
    return files.read(config.calibrate, program.task, "fidelity", None, TRAINING, config.seed)


def judging(
    data: Data | None, program: Program, reference: Runner, seed: int, texts: Data | None = None
) -> Judging:
    """Judges on rows of text, or on probe inputs where there are none.

    Args:
        texts: what to calibrate and train on; by default some of the rows that tune.

    Raises:
        DataError: the rows don't fit the model: a wrong label, or outputs that can't serve the task.
    """
    if data is None:
        feeds: Sequence[Feed] = probes(program, seed)
        mask = next((spec for spec in program.inputs if spec.role == "attention_mask"), None)
        fidelity = Fidelity(feeds, reference, *((mask.name, (), (), mask.hidden) if mask else (None,)))
        return Judging(fidelity, fidelity, feeds, (), len(feeds), "probe inputs")
    encoder = TextEncoder(program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols)
    labels_tell(data)
    tuning, final, said = _split(data, seed)
    rows = tuning.rows[:CALIBRATION] if texts is None else texts.rows
    step = -(-len(rows) // GIVEN)
    few = _texts(rows[::step])
    feeds = [_told(feed, [few[i] for i in chosen]) for chosen, feed in batches(few, encoder)]
    return Judging(
        judge(program, tuning, encoder, reference, seed),
        judge(program, final, encoder, reference, seed),
        feeds,
        Feeds(_texts(rows), encoder),
        len(final.rows),
        data.path,
        (*data.said, *said, *(texts.said if texts else ())),
        program.tokenizer["tokenizer.json"],
        final.rows[:SAMPLE],
        data.task not in SEPARATE and any(row.pair for row in final.rows),
    )


class Feeds(Sequence[Feed]):
    """Rows in batches, encoded when one is asked for: most runs train nothing."""

    def __init__(self, rows: Sequence[Row], encoder: Encoder) -> None:
        self.rows, self.encoder = rows, encoder

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        chosen = self.rows[number * BATCH : (number + 1) * BATCH]
        second = [row.pair or "" for row in chosen]
        feed = self.encoder([str(row.text) for row in chosen], second if any(second) else None)
        return _told(feed, chosen)


def _told(feed: Feed, rows: Sequence[Row]) -> Feed:
    """The feed and the texts of its rows, for passes that read them by another tokenizer."""
    pairs = [row.pair or "" for row in rows]
    return with_texts(feed, [str(row.text) for row in rows], pairs if any(pairs) else None)


def _split(data: Data, seed: int) -> tuple[Data, Data, tuple[str, ...]]:
    """Rows that may tune and rows that judge, apart where there are enough."""
    count = len(data.rows)
    if count < FEW:
        return data, data, (f"{data.path} has only {count} rows, so the same rows tune and judge",)
    groups = _groups(data)
    most = max(1, len(groups) * min(TUNING, count // 4) // count)
    chosen = {row for group in random.Random(seed).sample(groups, most) for row in group}
    tuning = tuple(row for i, row in enumerate(data.rows) if i in chosen)
    final = tuple(row for i, row in enumerate(data.rows) if i not in chosen)
    parts = replace(data, rows=tuning), replace(data, rows=final)
    if data.task not in ("fidelity", "retrieval") and any(
        len({str(row.label) for row in part.rows}) < 2 for part in parts
    ):
        return data, data, (f"{data.path} has few labels but one, so the same rows tune and judge",)
    return *parts, ()


def _groups(data: Data) -> list[list[int]]:
    """Numbers of the rows that stay together: each by itself, or a query's."""
    if data.task not in GROUPED:
        return [[number] for number in range(len(data.rows))]
    found: dict[str, list[int]] = {}
    for number, row in enumerate(data.rows):
        found.setdefault(str(row.text), []).append(number)
    return list(found.values())


def _texts(rows: Sequence[Row]) -> list[Row]:
    """Rows whose text is one string, as calibration reads it."""
    return [replace(row, text=row.text if isinstance(row.text, str) else " ".join(row.text)) for row in rows]
