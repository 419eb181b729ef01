"""A fixture has the type of its function. Never run: ``mypy tests/typing`` reads it.

Each ``type: ignore`` marks a wrong call that has to be an error (an ignore that nothing needs
is one itself). pyright reads the same comments.
"""

from __future__ import annotations

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


def wrong_calls(model: nn.Module) -> None:
    fixtures.assert_grads_none()(model, allow_zeros=True)  # type: ignore[call-arg]
    fixtures.assert_finite()(model, 3)  # type: ignore[arg-type]
    fixtures.assert_shapes()(model, (2,))  # type: ignore[call-overload]
    fixtures.assert_manifest()(model, file="x")  # type: ignore[call-arg]
    with fixtures.assert_unchanged()(model, buffer=False):  # type: ignore[call-arg]
        pass
    with fixtures.assert_frozen()(model):  # type: ignore[attr-defined]
        pass
