"""Recipes of the checkpoint assertions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from pytest_paramcheck import assert_manifest

from . import Recipe


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _against_the_manifest(model: nn.Module) -> None:
    path = Path(_FOLDER.name, "linear.txt")
    # On meta: a manifest holds no values, and none may be drawn while the call is watched.
    committed = nn.Linear(3, 2, device="meta", dtype=torch.float32)
    assert_manifest(committed, path=path, update=True)
    assert_manifest(model, path=path)


#: One folder for all calls, because the message names the file; gone when the tests are.
_FOLDER = tempfile.TemporaryDirectory()

RECIPES = {
    "assert_manifest": Recipe(_linear, lambda: nn.Linear(4, 2), _against_the_manifest),
}
