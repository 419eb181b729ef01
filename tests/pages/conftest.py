"""One browser for all tests, and the pages that they look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_paramcheck import param_page

from .browser import Browser, browser, need_browser
from .models import Bottleneck, ResNet50, Transformer, book_mlp


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser; without one the tests that need it are skipped."""
    need_browser()
    with browser(tmp_path_factory.mktemp("profile")) as driven:
        yield driven


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser, and what holds of every page: nothing on the console, nothing loaded."""
    chromium.looks()
    yield chromium
    assert chromium.said() == []
    assert [url for url in chromium.requests() if not url.startswith("file:")] == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: the folder that ``SCREENSHOTS`` names, for the documentation."""
    return Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def mlp_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book's MLP with a loss and an optimizer."""
    path = tmp_path_factory.mktemp("mlp") / "mlp.html"
    net = book_mlp()
    param_page(
        net,
        path,
        inputs=torch.rand(2, 4, generator=torch.Generator().manual_seed(0)),
        loss=lambda out: out.square().mean(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        title="The MLP of the book",
    )
    return path


@pytest.fixture(scope="session")
def transformer_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied transformer of 12 layers of which one gets no gradient, two losses, two groups."""
    path = tmp_path_factory.mktemp("transformer") / "transformer.html"
    torch.manual_seed(0)
    model = Transformer()
    several = [p for p in model.parameters() if p.dim() > 1]
    single = [p for p in model.parameters() if p.dim() < 2]
    tokens = torch.randint(0, 500, (2, 17))
    param_page(
        model,
        path,
        inputs=tokens[:, :-1],
        loss={
            "next token": lambda out: nn.functional.cross_entropy(
                out.flatten(0, 1), tokens[:, 1:].flatten()
            ),
            "z-loss": lambda out: out.logsumexp(-1).square().mean(),
        },
        optimizer=torch.optim.AdamW(
            [{"params": several, "weight_decay": 0.1}, {"params": single, "weight_decay": 0.0}],
            lr=3e-4,
        ),
        title="Transformer, 12 layers",
    )
    return path


@pytest.fixture(scope="session")
def resnet_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-50 half frozen, a block in no group, a NaN, compared with what it started from."""
    path = tmp_path_factory.mktemp("resnet") / "resnet.html"
    torch.manual_seed(0)
    model = ResNet50()
    for block in model.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for part in (model.conv1, model.bn1, model.layer1):
        part.requires_grad_(False)
    left_out = set(model.layer4[2].parameters())
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad and p not in left_out], lr=0.05
    )
    images = torch.rand(4, 3, 32, 32)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        model.fc.bias[3] = float("nan")
    model.fc.requires_grad_(False)
    param_page(
        model,
        path,
        inputs=images,
        loss=lambda out: out[:, :3].square().mean(),
        optimizer=optimizer,
        before=before,
        title="ResNet-50",
    )
    return path
