"""What stands in for layers while a program trains, as it is chosen."""

import pytest
import torch
from graphwright.passes.recover.teaching import chain as chains


@pytest.fixture
def chosen(monkeypatch):
    """What stood in for each link at each step: (share, number, module or None), in training."""
    seen = []
    through = chains.through

    def recording(program, terms, cut, choose):
        def noted(number, share):
            link = choose(number, share)
            if torch.is_grad_enabled():
                seen.append((share, link is None, link in list(cut.links)))
            return link

        return through(program, terms, cut, noted)

    monkeypatch.setattr(chains, "through", recording)
    return seen
