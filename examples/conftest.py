"""The network and the batch that most sections of the chapter look at.

Both are function-scoped fixtures: a test marked ``params`` gets them on the device it runs on,
and nothing here has to know about devices.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def batch() -> Tensor:
    """Two examples of four features."""
    return torch.rand(size=(2, 4))


@pytest.fixture
def lazy_net() -> nn.Sequential:
    """An MLP with one hidden layer, before any input told it its sizes."""
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1))


@pytest.fixture
def net(lazy_net: nn.Sequential, batch: Tensor) -> nn.Sequential:
    """The same MLP after one forward pass."""
    with torch.no_grad():
        lazy_net(batch)
    return lazy_net
