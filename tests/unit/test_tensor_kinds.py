"""Structure and value assertions on every kind of tensor: checked, or named as not checked."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_devices,
    assert_dtypes,
    assert_finite,
    assert_init,
    assert_materialized,
    assert_param_count,
    assert_registered,
    assert_same_values,
    assert_shapes,
    assert_ties,
    assert_untied,
    init,
    param_table,
)

from .messages import failure, usage
from .tensor_kinds import EVERY_KIND, WITH_VALUES, WITHOUT_VALUES, Kind, Opaque, Wrapper, quiet


@pytest.mark.parametrize("kind", list(WITH_VALUES.values()), ids=list(WITH_VALUES))
def test_kinds_with_values(kind: Kind) -> None:
    tensor = kind.of(torch.zeros(2, 3))
    subject = {"w": tensor}
    assert_devices(subject, "cpu")
    assert_materialized(subject)
    assert_param_count(subject, tensor.numel())
    assert_shapes(subject, {"w": tuple(tensor.shape)})
    assert_same_values(subject, {"w": kind.of(torch.zeros(2, 3))})
    assert_same_values(subject, {"w": kind.of(torch.zeros(2, 3))}, atol=0.1)
    with pytest.raises(
        ParamCheckError, match=r"^different values: w \(a dict of tensors\)\n\n  w  \d (of|in) "
    ):
        assert_same_values(subject, {"w": kind()})
    assert len(param_table(subject).splitlines()) == 4


@pytest.mark.parametrize("kind", list(WITH_VALUES.values()), ids=list(WITH_VALUES))
def test_initial_values_of_kinds(kind: Kind) -> None:
    subject = {"w": kind.of(torch.zeros(2, 3))}
    if not kind.computes:
        with pytest.raises(ParamCheckUsageError, match="are spread over other tensors"):
            assert_init(subject, {"w": init.zeros()})
        return
    assert_init(subject, {"w": init.zeros()})
    with pytest.raises(ParamCheckError, match=r"found (all 6 values are )?(-?0j?|False)$"):
        assert_init(subject, {"w": init.ones()})


@pytest.mark.parametrize("kind", WITHOUT_VALUES)
def test_kinds_without_values(kind: str) -> None:
    build, _ = WITHOUT_VALUES[kind]
    subject = {"w": build()}
    with pytest.raises(ParamCheckError):
        assert_materialized(subject)
    for call in (
        lambda: assert_same_values(subject, {"w": build()}),
        lambda: assert_init(subject, {"w": init.ones()}),
    ):
        with pytest.raises(ParamCheckUsageError, match="its values cannot be"):
            call()
    assert len(param_table(subject).splitlines()) == 4


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_hidden_tensors_of_all_kinds(kind: str) -> None:
    model: Any = nn.Linear(2, 2)
    model.kept = [EVERY_KIND[kind]()]
    assert failure(assert_registered, model, tensors=True).startswith(
        "not registered: kept[0] (Linear)"
    )


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_default_device_of_meta_changes_nothing(kind: str) -> None:
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = {"w": torch.randn(400, generator=generator).to(getattr(torch, kind))}
    with torch.device("meta"):
        assert_init(drawn, {"w": init.normal()})
        assert_same_values(drawn, dict(drawn))
        text = failure(assert_init, drawn, {"w": init.normal(1, 1)})
    assert re.fullmatch(
        r"wrong initial values: w \(a dict of tensors\)\n\n"
        r"  w  expected normal\(1, 1\), found mean 0\.06\d*, "
        r"over 400 values: probability below 1e-12",
        text,
    )


class Deaf(Tensor):
    """A class that answers nothing."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("no functions")


class Guarded(Tensor):
    """A class that says what it is and gives no values."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.detach, Tensor.isfinite):
            raise KeyError("guarded")
        return super().__torch_function__(func, types, args, kwargs or {})


class Quiet(Tensor):
    """A class without opinions: it is read like any other tensor."""


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Deaf, "b: its class Deaf raised RuntimeError: no functions"),
        (
            Guarded,
            "b: its class Guarded raised KeyError: 'guarded'; its values cannot be checked",
        ),
    ],
)
def test_what_a_class_raises_is_said_of_its_parameter(cls: type[Tensor], message: str) -> None:
    subject = {"a": torch.ones(1), "b": torch.ones(3).as_subclass(cls)}

    assert usage(assert_finite, subject) == message
    assert usage(assert_init, subject, {"*": init.ones()}) == message


def test_a_class_that_says_nothing_is_an_error_in_every_assertion() -> None:
    subject = {"a": torch.ones(1), "b": torch.ones(3).as_subclass(Deaf)}

    for call in (
        lambda: assert_dtypes(subject, torch.float32),
        lambda: assert_devices(subject, "cpu"),
        lambda: assert_untied(subject),
        lambda: assert_ties(subject, []),
        lambda: assert_shapes(subject, {"*": (None,)}),
        lambda: assert_param_count(subject, 4),
        lambda: assert_materialized(subject),
    ):
        assert usage(call) == "b: its class Deaf raised RuntimeError: no functions"


def test_a_class_of_its_own_is_read_like_any_other() -> None:
    good, bad = (torch.tensor([1.0, x]).as_subclass(Quiet) for x in (1.0, float("nan")))

    assert_finite({"w": good})
    assert failure(assert_finite, {"w": bad}).startswith("not finite: w (a dict of tensors)")
    assert failure(assert_same_values, {"w": good}, {"w": good * 2}).startswith("different values")


def test_two_wrappers_that_hide_their_memory_are_not_apart() -> None:
    inner = torch.ones(3)
    subject = {"a": Opaque(inner), "b": Opaque(inner), "c": torch.ones(1)}
    said = "Opaque does not say which tensors hold its memory"

    assert failure(assert_untied, subject) == (
        f"not checked: a, b (a dict of tensors)\n\n  a  {said}\n  b  {said}"
    )
    assert failure(assert_untied, a=subject["a"], b=subject["b"]).startswith("not checked: a, b")
    assert_untied({"a": Wrapper(torch.ones(3)), "b": Wrapper(torch.ones(3))})


INSIDE = "inside torch.func.vmap or grad, where a tensor represents others: ask outside"


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_tensors_of_a_transform(transform: Any) -> None:
    said = []

    def look(w: Tensor) -> Tensor:
        said.append(usage(assert_same_values, {"w": w}, {"w": torch.ones_like(w)}))
        if transform is torch.func.vmap:
            said.append(usage(assert_finite, {"v": torch.ones(1), "w": w}))
        said.append(failure(assert_untied, {"w": w}))
        return w.sum()

    transform(look)(torch.ones(2, 3))

    assert said[0] == f"w of the first: {INSIDE}; its values cannot be compared"
    assert said[-1] == (
        "not checked: w (a dict of tensors)\n\n"
        "  w  inside torch.func.vmap or grad a tensor does not say where its memory is"
    )
    assert said[1:-1] in ([], [f"w: {INSIDE}; its values cannot be checked"])


def test_nested_tensors_are_named(recwarn: pytest.WarningsRecorder) -> None:
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        assert usage(assert_finite, {"v": torch.ones(1), "n": nested}) == (
            "n: a nested tensor has no one shape to read it by; its values cannot be checked"
        )


def test_quantized_scales_are_values() -> None:
    def quantized(scale: float) -> Tensor:
        return quiet(
            lambda: torch.quantize_per_tensor(torch.ones(4) * scale, scale, 0, torch.qint8)
        )

    assert quantized(1).int_repr().equal(quantized(2).int_repr())
    assert failure(assert_same_values, {"w": quantized(1)}, {"w": quantized(2)}) == (
        "different values: w (a dict of tensors)\n\n"
        "  w  4 of 4 values: max abs 1 at [0], max rel 0.5"
    )
