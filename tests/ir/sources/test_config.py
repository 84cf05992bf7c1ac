"""What is taken from config.json beside the model itself."""

import pytest
from graphwright.ir.sources.config import facts


@pytest.mark.parametrize(
    ("stated", "found"),
    [([256, 64], [64, 256]), ([], None), ([64, "256"], None), ([64, True], None), ([0], None), (64, None)],
)
def test_widths_that_vectors_may_be_cut_to_are_those_that_it_lists(stated, found):
    assert facts({"matryoshka_dimensions": stated}, "embedding").get("matryoshka_dimensions") == found
