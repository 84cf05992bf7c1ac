"""What a program is compiled at serves the calls it was asked for and any text that it takes."""

from dataclasses import replace

import pytest
from graphwright.backends.bundles.record import Padding
from graphwright.backends.tvm.build.sizes import LONGEST, covering

BOTH, NEITHER = Padding("batch", "length", ()), Padding(None, None, ())


@pytest.mark.parametrize(
    ("bound", "longest", "found"),
    [
        (64, None, [(1, 9), (8, 48), (1, 64)]),
        (64, 48, [(1, 9), (8, 48)]),
        (40, 512, [(1, 9), (8, 40)]),
        (1 << 30, None, [(1, 9), (8, 48), (1, LONGEST)]),
        (1 << 30, 256, [(1, 9), (8, 48), (1, 256)]),
    ],
)
def test_unequal_sentences_stand_for_others_and_the_longest_text_has_its_place(make, bound, longest, found):
    program = make.encoder(symbols={"batch": (1, 64), "length": (1, bound)}, info={"max_length": longest})
    feeds = [make.feed(1, 9), make.feed(8, 37, 5), make.feed(8, 40, 1), make.feed(1, 9, seed=1)]
    assert [tuple(each.values()) for each in covering(program, BOTH, feeds)] == found


def test_what_cannot_be_padded_is_compiled_as_it_is(make):
    program = replace(make.encoder(), symbols={"batch": (1, 64), "length": (1, 99)})
    assert covering(program, NEITHER, [make.feed(1, 5, 2)]) == [{"batch": 1, "length": 5}]
