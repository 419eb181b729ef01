"""What a model itself raises in a check: its own error, shown without frames of ours."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun


class TheirError(Exception):
    """Of the model, not of a check."""


class Net(nn.Module):
    """Has something for every check, and raises where it is told to."""

    raises = ""

    def __init__(self) -> None:
        super().__init__()
        self._may_raise("__init__")
        self.table = nn.Embedding(5, 3, padding_idx=0)
        self.norm = nn.LayerNorm(3)
        self.layer = nn.Linear(3, 2)
        self.scale = torch.ones(2)
        self.reset_parameters()

    def _may_raise(self, where: str) -> None:
        if where == self.raises:
            raise TheirError(where)

    def reset_parameters(self) -> None:
        self.layer.reset_parameters()

    def forward(self, ids: Tensor) -> Tensor:
        self._may_raise("forward")
        output: Tensor = self.layer(self.norm(self.table(ids))) * self.scale
        return output

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._may_raise("state_dict")
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._may_raise("load_state_dict")
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._may_raise("_apply")
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Any:
        self._may_raise("train")
        return super().train(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        self._may_raise("__deepcopy__")
        twin = type(self)()
        twin.load_state_dict(self.state_dict())
        return twin


class Optimizer(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        if Net.raises == "step":
            raise TheirError("step")
        super().step(closure)


def inputs() -> Tensor:
    if Net.raises == "inputs":
        raise TheirError("inputs")
    return torch.tensor([[1, 2, 0]])


def shown_frames(error: BaseException) -> list[str]:
    """The functions of the package that pytest would show."""
    return [
        frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith("pytest_paramcheck.")
        and not frame.f_locals.get("__tracebackhide__")
    ]


#: Where the model raises, and the checks that end with what it raised.
RAISED = {
    "__init__": {
        *("built_anew", "deterministic", "device_move", "dtype_move", "eval_unchanged"),
        *("init_complete", "optimizer_covers", "reset_parameters", "resume"),
        *("state_dict_roundtrip", "ties", "torch_save_roundtrip", "training_step"),
    },
    "forward": {"eval_unchanged", "grads_finite", "grads_reach", "resume", "training_step"},
    "inputs": {
        *("device_move", "dtype_move", "eval_unchanged", "grads_finite", "grads_reach"),
        *("resume", "training_step"),
    },
    "train": {"eval_unchanged"},
    "_apply": {"dtype_move"},
    "state_dict": {"resume", "state_dict_roundtrip", "torch_save_roundtrip"},
    "load_state_dict": {"state_dict_roundtrip", "torch_save_roundtrip"},
    "step": {"resume", "training_step"},
}


@pytest.mark.parametrize("place", RAISED)
def test_what_a_model_raises_is_shown_as_it_would_be_without_us(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ModelCase(
        Net,
        inputs=inputs,
        loss=lambda output: output.square().sum(),
        optimizer=lambda model: Optimizer(model.parameters(), lr=0.1),
    )
    raised: dict[str, list[str]] = {}
    for name, check in CHECKS.items():
        if not check.applies(case):
            continue
        run = CaseRun(case)
        assert run.model is not None
        with monkeypatch.context() as patch:
            patch.setattr(Net, "raises", place)
            try:
                run_check(check, run)
            except (NothingToCheck, ParamCheckError):
                pass
            except TheirError as error:
                raised[name.removeprefix("check_")] = shown_frames(error)

    assert raised == {name: [] for name in RAISED[place]}
