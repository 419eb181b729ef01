"""The network and the batch that most sections of the chapter look at.

Both are function-scoped fixtures: a test marked ``params`` gets them on the device it runs on,
and nothing here has to know about devices.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

#: Several processes to each test: collected where the folder is named.
_RANKS = Path(__file__).parent / "recipes" / "ranks"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = any("ranks" in Path(str(arg).partition("::")[0]).parts for arg in config.args)
    return True if collection_path == _RANKS and not named else None


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
