"""How a teacher and a student read one text: by one tokenizer, or by two, of whose tokens words are made.

Zhao et al., 2019, arXiv:1909.11687, train a student of a smaller vocabulary beside a teacher that keeps its
own. There both predict masked words; here what each holds of a word is compared, the mean over its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .....ir.program import Program
from ....common.texts import read_alike, reader, told
from ....manager.contract import Feed
from .words import Side, numbered, side, words

Values = Sequence[torch.Tensor]


class Reading:
    """Both read the student's feed, token by token."""

    alike = True

    def given(self, feed: Feed) -> Feed:
        """The teacher's feed of the same rows."""
        return feed

    def above(self, feed: Feed, values: Values) -> Values:
        """The teacher's values on that as they are compared.

        Args:
            feed: the student's.
        """
        return values

    def below(self, feed: Feed, values: Values) -> Values:
        """The student's, likewise."""
        return values


SAME = Reading()


def reading(teacher: Program, student: Program) -> Reading:
    """How both read a text.

    Raises:
        InputError: the teacher takes what is not made from text.
    """
    return SAME if read_alike(teacher, student) else ByWords(teacher, student)


class ByWords(Reading):
    """Each reads the texts beside the student's ids by its own tokenizer. Where each token has a vector the
    means over words are compared: over what both tokenizers take from the same characters before they split
    it into pieces. Special tokens count as words, by their order; what else there is is left out."""

    alike = False

    def __init__(self, teacher: Program, student: Program) -> None:
        self.programs = teacher, student
        self.readers = reader(teacher), reader(student)
        # By the feed's identity, which holds as long as the feed is held.
        self._known: dict[int, tuple[Feed, Feed, Side, Side]] = {}

    def given(self, feed: Feed) -> Feed:
        return self._read(feed)[1]

    def above(self, feed: Feed, values: Values) -> Values:
        return [self._read(feed)[2].means(value) for value in values]

    def below(self, feed: Feed, values: Values) -> Values:
        return [self._read(feed)[3].means(value) for value in values]

    def _read(self, feed: Feed) -> tuple[Feed, Feed, Side, Side]:
        if id(feed) not in self._known:
            texts, pairs = told(feed)
            read = [each.tokenize(texts, pairs) for each in self.readers]
            given = self.readers[0].pad_together(read[0])
            names = [[words(one) for one in encodings] for encodings in read]
            numbers, count = numbered(*names)
            above, below = (
                side(program, each, encodings, own, numbers, count)
                for program, each, encodings, own in zip(
                    self.programs, (given, feed), read, names, strict=True
                )
            )
            self._known[id(feed)] = feed, given, above, below
        return self._known[id(feed)]
