"""What the checks of moves say: of entries, of tensors in plain attributes, of complex ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from ..models import LM
from .messages import failure, whole

ROWS = torch.linspace(-1, 1, 12).reshape(4, 3)
BOTH = pytest.mark.parametrize("name", ["check_dtype_move", "check_device_move"])


def outcome(name: str, factory: Callable[[], nn.Module], **given: Any) -> str:
    try:
        run_check(CHECKS[name], CaseRun(ModelCase(factory, **{"name": "model", **given})))
    except NothingToCheck as nothing:
        return f"skip: {nothing}"
    except ParamCheckError as error:
        return str(error).partition("\n")[0]
    return "ok"


def message(name: str, factory: Callable[[], nn.Module], **given: Any) -> str:
    return failure(run_check, CHECKS[name], CaseRun(ModelCase(factory, name="model", **given)))


class Stays(nn.Linear):
    """Has a buffer that its own ``_apply`` leaves out, and a table that it only keeps."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.window = torch.ones(3)
        self.register_buffer("scale", torch.ones(1))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale
        return self


class Window(nn.Linear):
    """Multiplies by a plain tensor, and adds one of a list of tables."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.window = torch.ones(3)
        self.tables = [torch.arange(3)]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.window + self.tables[0])


class Careful(Window):
    def forward(self, x: Tensor) -> Tensor:
        table = self.tables[0].to(x.device)
        return nn.Linear.forward(self, x * self.window.to(x) + table)


class Registered(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("window", torch.ones(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.window)


class Aside(nn.Linear):
    """Keeps a tensor that no forward reads."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.shown = torch.ones(3)


def test_what_an_apply_leaves_out_is_named_and_plain_tensors_beside_it() -> None:
    assert message("check_dtype_move", Stays) == whole(
        r"""
        left behind by .to(float64): scale, window (model)

          scale   still float32: Stays has its own _apply()
          window  still Tensor 3 float32 cpu: a plain tensor, which .to() does not see

          hint: apply fn to it as well: super()._apply(fn) does
          hint: self.register_buffer('window', ...), persistent=False if not saved
        """
    )
    assert message("check_device_move", Stays) == whole(
        r"""
        left behind by .to(meta): scale, window (model)

          scale   still cpu: Stays has its own _apply()
          window  still Tensor 3 float32 cpu: a plain tensor, which .to() does not see

          hint: apply fn to it as well: super()._apply(fn) does
          hint: self.register_buffer('window', ...), persistent=False if not saved
        """
    )


def test_a_plain_tensor_that_a_moved_forward_fails_for_is_named() -> None:
    assert message("check_dtype_move", Window, inputs=ROWS) == whole(
        r"""
        left behind by .to(bfloat16): window (model)

          window  still Tensor 3 float32 cpu: a plain tensor, which .to() does not see; forward() \
                  then raises RuntimeError: mat1 and mat2 must have the same dtype, but got Float \
                  and BFloat16

          hint: self.register_buffer('window', ...), persistent=False if not saved
        """
    )
    assert outcome("check_device_move", Window, inputs=ROWS) == (
        "left behind by .to(meta): window, tables[0] (model)"
    )


def test_an_output_in_another_dtype_is_seen_too() -> None:
    class Last(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.gain = torch.ones(2)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.gain

    said = message("check_dtype_move", Last, inputs=ROWS)
    assert "; forward() then gives float32\n" in said


@BOTH
def test_what_a_forward_moves_itself_or_does_not_need_is_no_finding(name: str) -> None:
    for model in (Careful, Aside, Registered):
        assert outcome(name, model, inputs=ROWS) == "ok"
    for model in (Careful, Registered):
        assert outcome(name, model) == "ok"


@BOTH
def test_without_inputs_what_is_no_integer_is_named(name: str) -> None:
    assert outcome(name, Window).endswith(": window (model)")


@BOTH
def test_without_inputs_a_list_of_tables_is_left_alone(name: str) -> None:
    """Sizes of anchors: a forward makes tensors of them, where it needs them."""

    class Anchors(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.sizes = [torch.ones(2), torch.ones(3)]

    assert outcome(name, Anchors) == "ok"


@BOTH
def test_a_forward_that_fails_anyway_tells_nothing_of_plain_tensors(name: str) -> None:
    class Fails(Careful):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32 or x.is_meta:
                raise NotImplementedError
            return super().forward(x)

    class Shown(Fails):
        """An example for others, which no line of the class reads."""

        def __init__(self) -> None:
            super().__init__()
            self.example_input_array = torch.ones(2, 3)

    for model in (Fails, Shown):
        assert outcome(name, model, inputs=ROWS) == "ok"
    assert outcome(name, Shown) == "ok"


def test_of_a_class_without_source_the_values_alone_decide() -> None:
    namespace: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(WITHOUT_SOURCE, namespace)
    assert outcome("check_dtype_move", namespace["Made"]) == "ok"


WITHOUT_SOURCE = """
class Made(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.window = torch.ones(3)

    def forward(self, x):
        return super().forward(x * self.window)
"""


def test_meta_loses_ties_and_laziness_on_torchs_own_account() -> None:
    def shared() -> nn.Module:
        layer = nn.Linear(2, 2)
        return nn.Sequential(layer, layer)

    for model in (LM, shared, lambda: nn.LazyLinear(3), lambda: nn.LSTM(2, 2)):
        assert outcome("check_device_move", model) == "ok"


def test_a_flag_or_a_name_that_a_move_loses_is_seen_on_meta() -> None:
    class Thaws(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            return self.requires_grad_()

    class Drops(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            self.bias = None
            return self

    def thawed() -> nn.Module:
        return Thaws(3, 2).requires_grad_(False)

    assert outcome("check_device_move", thawed).endswith("weight, bias (model)")
    assert outcome("check_device_move", lambda: Drops(3, 2)) == "lost in the copy: bias (model)"


def test_a_model_that_refuses_meta_is_skipped() -> None:
    class Refuses(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            raise RuntimeError("stays where it is")

    assert outcome("check_device_move", lambda: Refuses(3, 2)) == (
        "skip: the model does not go to meta (RuntimeError: stays where it is)"
    )


class Rotary(nn.Linear):
    def __init__(self, real: bool) -> None:
        super().__init__(4, 4)
        turns = torch.polar(torch.ones(2), torch.ones(2))
        self.register_buffer("turns", torch.view_as_real(turns) if real else turns)


class Kept(Rotary):
    """Moves its complex buffer to a complex dtype, as some rotary embeddings do."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        turns = self.turns
        self.turns = None
        super()._apply(fn, recurse)
        self.turns = torch.view_as_complex(fn(torch.view_as_real(turns)).contiguous())
        return self


def test_a_complex_tensor_that_a_real_dtype_cuts_is_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = message("check_dtype_move", lambda: Rotary(real=False))
    assert said == whole(
        r"""
        imaginary part lost: turns (model)

          turns  complex64 before .to(float64), float64 after: .to(dtype) casts complex tensors to \
                 a real dtype as well

          hint: register torch.view_as_real(...) of it, and view_as_complex() it in forward()
        """
    )
    assert outcome("check_dtype_move", lambda: Rotary(real=True)) == "ok"
    assert outcome("check_dtype_move", lambda: Kept(real=False)) == "ok"
    # Nobody moves what is complex throughout to a real dtype.
    assert outcome("check_dtype_move", lambda: nn.Linear(3, 2, dtype=torch.complex64)) == (
        "skip: the model has no floating parameter to move"
    )
