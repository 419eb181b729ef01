"""A fixture has the type of its function. Never run: ``mypy tests/typing`` reads it.

Each ``type: ignore`` marks a wrong call that has to be an error (an ignore that nothing needs
is one itself). pyright reads the same comments.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pytest_paramcheck.plugin import fixtures


def right_calls(model: nn.Module) -> None:
    fixtures.assert_tied()(model, "emb.weight", "head.weight")
    fixtures.assert_grads_none()(model, nn.LayerNorm, allow_zero=True)
    fixtures.assert_shapes()(torch.ones(2), (2,))
    fixtures.assert_shapes()(model, {"weight": (2, None)}, partial=True)
    fixtures.assert_manifest()(model, "encoder", update=True)
    with fixtures.assert_unchanged()(model, "emb", buffers=False), fixtures.assert_updated()(model):
        pass


def right_calls_about_training(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with fixtures.assert_averaged()(model, model.state_dict(), 0.9, buffers="keep"):
        pass
    with fixtures.assert_averaged()(model, model, lambda before: before / (before + 1)):
        pass
    fixtures.assert_checkpoint()("model.pt", key="model")
    fixtures.assert_finite()(Path("model.safetensors"), key="model")
    fixtures.assert_resumes()(lambda: {"model": model}, lambda objects: objects["model"](1))
    fixtures.assert_loaded()(model, Path("x.pt"), rename={"module": ""}, dtypes=True)
    fixtures.assert_loaded()(model, {}, rename=lambda key: key.upper())
    fixtures.assert_optimizer_covers()(optimizer, model, masters=True)
    fixtures.assert_optimizer_covers()(optimizer, model, masters=lambda name, parameter: None)
    fixtures.assert_grads_present()(model, grad="main_grad")
    fixtures.assert_grads_reach()(model, torch.sum, backward=lambda loss: loss.backward())


def wrong_calls_about_training(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    fixtures.assert_averaged()(model, model, buffers="mean")  # type: ignore[arg-type]
    fixtures.assert_checkpoint()(model)  # type: ignore[arg-type]
    fixtures.assert_resumes()(model, 3)  # type: ignore[arg-type]
    fixtures.assert_loaded()(model, {}, rename=3)  # type: ignore[arg-type]
    fixtures.assert_optimizer_covers()(optimizer, model, masters=3)  # type: ignore[arg-type]
    fixtures.assert_grads_present()(model, grad=3)  # type: ignore[arg-type]


def wrong_calls(model: nn.Module) -> None:
    fixtures.assert_grads_none()(model, allow_zeros=True)  # type: ignore[call-arg]
    fixtures.assert_finite()(model, 3)  # type: ignore[arg-type]
    fixtures.assert_shapes()(model, (2,))  # type: ignore[call-overload]
    fixtures.assert_manifest()(model, file="x")  # type: ignore[call-arg]
    with fixtures.assert_unchanged()(model, buffer=False):  # type: ignore[call-arg]
        pass
    fixtures.assert_tied()(model, "a", by="value")  # type: ignore[arg-type]
    with fixtures.assert_changed()(model, more_than="1"):  # type: ignore[arg-type]
        pass
    with fixtures.assert_frozen()(model):  # type: ignore[attr-defined]
        pass
