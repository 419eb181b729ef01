"""What ``reset_parameters()`` writes, and what it need not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import whole
from .test_conventions import message, outcome


class Scaled(nn.Linear):
    """A layer with a scale of its own; its reset writes it or does not."""

    def __init__(self, *, resets: bool, trains: bool = True) -> None:
        super().__init__(4, 3)
        self.resets = resets
        self.scale = nn.Parameter(torch.ones(3), requires_grad=trains)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, "resets", False):
            nn.init.ones_(self.scale)


class Net(nn.Module):
    """Resets its layers, all of them or all but the last."""

    def __init__(self, *, resets: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Scaled(resets=True) for _ in range(3))
        self.resets = resets

    def reset_parameters(self) -> None:
        for layer in self.layers[: self.resets]:
            layer.reset_parameters()


def test_a_parameter_that_a_reset_leaves_is_named() -> None:
    assert message("check_reset_parameters", lambda: nn.Sequential(Scaled(resets=False))) == whole(
        r"""
        not reset: 0.scale (model)

          0.scale  as it was: 0.reset_parameters() leaves it

          hint: let it write every parameter that trains: a model built on meta has nothing else
        """
    )
    assert outcome("check_reset_parameters", lambda: Scaled(resets=True)) == "ok"


def test_a_layer_that_the_outer_reset_forgets_is_named() -> None:
    assert outcome("check_reset_parameters", lambda: Net(resets=2)) == (
        "not reset: layers.2.weight, layers.2.bias, layers.2.scale (model)"
    )
    assert outcome("check_reset_parameters", lambda: Net(resets=3)) == "ok"


def test_a_reset_that_writes_a_part_says_how_much() -> None:
    class Half(nn.Linear):
        def reset_parameters(self) -> None:
            with torch.no_grad():
                self.weight[:2].normal_()
                self.bias.zero_()

    assert "8 of 16 values as they were" in message("check_reset_parameters", lambda: Half(4, 4))


def test_what_a_reset_need_not_write() -> None:
    class OwnOnly(nn.Module):
        """Every module resets its own: so does FSDP ask it of a model built on meta."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.own = nn.Linear(3, 3), nn.Parameter(torch.ones(2))
            self.register_buffer("table", torch.arange(3.0))

        def reset_parameters(self) -> None:
            nn.init.ones_(self.own)

    class New(OwnOnly):
        def reset_parameters(self) -> None:
            self.own = nn.Parameter(torch.ones(2))

    class Needs(OwnOnly):
        def reset_parameters(self, std: float) -> None: ...  # type: ignore[override]

    class Raises(OwnOnly):
        def reset_parameters(self) -> None:
            raise NotImplementedError

    class Normed(OwnOnly):
        def __init__(self) -> None:
            super().__init__()
            nn.utils.parametrizations.weight_norm(self, "own", dim=None)

        def reset_parameters(self) -> None: ...

    for model in (OwnOnly, New, Raises, Normed):
        assert outcome("check_reset_parameters", model) == "ok"
    assert outcome("check_reset_parameters", lambda: Scaled(resets=False, trains=False)) == "ok"
    for model in (Needs, nn.Identity, lambda: nn.Linear(3, 3)):
        assert outcome("check_reset_parameters", model).startswith("skip: ")


class Attention(nn.Module):
    """Projections, the last of which is scaled by its reset; each resets itself as well."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.out = nn.Linear(4, 12), nn.LayerNorm(4), nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)


class Tower(nn.Module):
    """Layers of its own kind without resets; ``writes`` says which it writes."""

    def __init__(self, *, writes: int, listed: bool = True) -> None:
        super().__init__()
        kept = [nn.Parameter(torch.ones(3)) for _ in range(4)]
        self.scales = nn.ParameterList(kept) if listed else nn.ModuleList(map(Scale, kept))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(4))
        self.norm = nn.LayerNorm(3)
        self.writes = writes

    def reset_parameters(self) -> None:
        for scale in list(self.scales)[: self.writes]:
            nn.init.ones_(getattr(scale, "scale", scale))


class Scale(nn.Module):
    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale


class Loop(Tower):
    """Writes the weights of the first layers of a list."""

    def reset_parameters(self) -> None:
        for mlp in self.mlps[: self.writes]:
            nn.init.xavier_uniform_(mlp[0].weight)
        for scale in self.scales:
            nn.init.ones_(scale)


class Head(nn.Module):
    """A head on somebody else's weight."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.bias = weight, nn.Parameter(torch.zeros(7))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bias)


def test_what_resets_itself_need_not_be_reset_from_outside() -> None:
    for model in (Attention, lambda: nn.Sequential(Attention(), Tower(writes=4))):
        assert outcome("check_reset_parameters", model) == "ok"


def test_parameters_in_a_list_are_of_the_module_that_has_it() -> None:
    for writes, said in ((0, "scales.{0..3}"), (3, "scales.3"), (4, "")):
        found = outcome("check_reset_parameters", lambda writes=writes: Tower(writes=writes))
        assert found == (f"not reset: {said} (model)" if said else "ok")


def test_modules_without_a_reset_are_written_all_or_none() -> None:
    for writes, said in ((0, ""), (1, "scales.{1..3}.scale"), (4, "")):
        found = outcome(
            "check_reset_parameters", lambda writes=writes: Tower(writes=writes, listed=False)
        )
        assert found == (f"not reset: {said} (model)" if said else "ok")


def test_a_layer_of_a_list_is_written_where_most_are() -> None:
    for writes, said in ((0, ""), (1, ""), (2, ""), (3, "mlps.3.0.weight"), (4, "")):
        found = outcome("check_reset_parameters", lambda writes=writes: Loop(writes=writes))
        assert found == (f"not reset: {said} (model)" if said else "ok")


def test_a_parameter_that_others_hold_is_theirs_to_reset() -> None:
    def tied() -> nn.Module:
        emb = nn.Embedding(7, 3)
        return nn.ModuleDict({"emb": emb, "head": Head(emb.weight)})

    assert outcome("check_reset_parameters", tied) == "ok"
    assert outcome("check_reset_parameters", lambda: Head(nn.Parameter(torch.ones(3)))) == (
        "not reset: weight (model)"
    )


def test_a_reset_is_asked_of_a_build_of_its_own() -> None:
    run = CaseRun(ModelCase(lambda: Net(resets=2), name="model"))
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    with pytest.raises(ParamCheckError):
        run_check(CHECKS["check_reset_parameters"], run)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, before[name])
