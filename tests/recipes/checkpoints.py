"""Recipes of the checkpoint assertions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    assert_checkpoint,
    assert_loaded,
    assert_manifest,
    assert_resumes,
    assert_roundtrip,
)

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


class _Forgets(nn.Linear):
    """A layer whose state_dict leaves its bias out."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        del state["bias"]
        return state


def _with_checkpoint(model: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def _half_loaded() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model, state = _with_checkpoint(_linear())
    del state["bias"]
    return model, state


def _saved(values: list[float]) -> Path:
    path = Path(tempfile.mkdtemp(dir=_FOLDER.name), "model.pt")
    torch.save({"weight": torch.tensor(values, device="cpu")}, path)
    return path


class _Resumes(nn.Linear):
    """A linear layer that trains itself, with a number that decides how."""

    def __init__(self, saves: bool) -> None:
        super().__init__(3, 2)
        self.saves, self.rate = saves, 1.0

    def get_extra_state(self) -> float:
        return self.rate if self.saves else 1.0

    def set_extra_state(self, rate: float) -> None:
        self.rate = rate


def _resumed(model: nn.Module) -> None:
    """Trains what it builds, never the model that it is given."""
    saves = bool(model.saves)

    def step(built: _Resumes) -> None:
        built.rate /= 2
        with torch.no_grad():
            built.weight.sub_(built.rate)

    assert_resumes(lambda: _Resumes(saves), step)


RECIPES = {
    "assert_resumes": Recipe(
        lambda: _Resumes(True), lambda: _Resumes(False), _resumed, runs_user_code=True
    ),
    "assert_checkpoint": Recipe(
        lambda: _saved([0.5, 1.0]), lambda: _saved([0.5, torch.nan]), assert_checkpoint
    ),
    "assert_roundtrip": Recipe(
        _linear, lambda: _Forgets(3, 2), assert_roundtrip, runs_user_code=True
    ),
    "assert_loaded": Recipe(
        lambda: _with_checkpoint(_linear()), _half_loaded, lambda pair: assert_loaded(*pair)
    ),
    "assert_manifest": Recipe(_linear, lambda: nn.Linear(4, 2), _against_the_manifest),
}
