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
    assert_init,
    assert_materialized,
    assert_param_count,
    assert_registered,
    assert_same_values,
    assert_shapes,
    init,
    param_table,
)

from .messages import failure
from .tensor_kinds import EVERY_KIND, WITH_VALUES, WITHOUT_VALUES, Kind, quiet


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
    with pytest.raises(ParamCheckError, match=r"^different values: w \(dict\)\n\n  w  \d of \d "):
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
    with pytest.raises(ParamCheckError, match=r"6 of 6 values off|1 of 1 value off"):
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
        r"wrong initial values: w \(dict\)\n\n  w  expected normal\(1, 1\), found mean 0\.06\d*, "
        r"std 1\.3\d+, not the shape of the curve over 400 values: probability below 1e-12",
        text,
    )


def test_quantized_scales_are_values() -> None:
    def quantized(scale: float) -> Tensor:
        return quiet(
            lambda: torch.quantize_per_tensor(torch.ones(4) * scale, scale, 0, torch.qint8)
        )

    assert quantized(1).int_repr().equal(quantized(2).int_repr())
    assert failure(assert_same_values, {"w": quantized(1)}, {"w": quantized(2)}) == (
        "different values: w (dict)\n\n  w  4 of 4 values: max abs 1 at [0], max rel 0.5"
    )
