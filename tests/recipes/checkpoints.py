"""Recipes of the checkpoint assertions."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from pytest_paramcheck import assert_manifest

from . import Recipe


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _against_the_manifest(model: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "linear.txt")
        assert_manifest(_linear(), path=path, update=True)
        assert_manifest(model, path=path)


RECIPES = {
    "assert_manifest": Recipe(_linear, lambda: nn.Linear(4, 2), _against_the_manifest),
}
