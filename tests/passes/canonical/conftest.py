"""What canonical passes are tried on, captured once."""

import pytest
import torch
from canonical import Redundant
from graphwright.ir.capture import capture


@pytest.fixture(scope="package")
def redundant():
    torch.manual_seed(0)
    return capture(Redundant().eval(), inputs=(torch.randn(2, 3, 4),))
