"""Structure and value assertions on every kind of tensor: checked, or named as not checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

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


def _csr() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "beta state", once in a process
        return torch.ones(2, 2).to_sparse_csr()


def _quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in some releases, still loaded by models
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


def _inference() -> Tensor:
    with torch.inference_mode():
        return torch.ones(4)


WITH_VALUES: dict[str, Callable[[], Tensor]] = {
    "coo": lambda: torch.ones(2, 2).to_sparse(),
    "csr": _csr,
    "mkldnn": lambda: torch.ones(2, 2).to_mkldnn(),
    "quantized": _quantized,
    "float8": lambda: torch.ones(4).to(torch.float8_e4m3fn),
    "complex": lambda: torch.ones(4, dtype=torch.complex64),
    "conjugate": lambda: torch.ones(4, dtype=torch.complex64).conj(),
    "int64": lambda: torch.ones(4, dtype=torch.int64),
    "bool": lambda: torch.ones(4, dtype=torch.bool),
    "scalar": lambda: torch.ones(()),
    "expanded": lambda: torch.ones(1).expand(4),
    "inference": _inference,
}
WITHOUT_VALUES: dict[str, Callable[[], Tensor]] = {
    "lazy": lambda: nn.LazyLinear(2).weight,
    "meta": lambda: torch.ones(4, device="meta"),
    "fake": lambda: FakeTensorMode().from_tensor(torch.ones(4)),
}


@pytest.mark.parametrize("kind", WITH_VALUES)
def test_kinds_with_values(kind: str) -> None:
    tensor = WITH_VALUES[kind]()
    subject = {"w": tensor}
    assert_devices(subject, "cpu")
    assert_materialized(subject)
    assert_param_count(subject, tensor.numel())
    assert_shapes(subject, {"w": tuple(tensor.shape)})
    assert_same_values(subject, {"w": WITH_VALUES[kind]()})
    assert_same_values(subject, {"w": WITH_VALUES[kind]()}, atol=0.1)
    assert_init(subject, {"w": init.ones()})
    with pytest.raises(ParamCheckError, match=r"4 of 4 values off|1 of 1 value off"):
        assert_init(subject, {"w": init.zeros()})
    assert len(param_table(subject).splitlines()) == 4


@pytest.mark.parametrize("kind", WITHOUT_VALUES)
def test_kinds_without_values(kind: str) -> None:
    tensor = WITHOUT_VALUES[kind]()
    subject = {"w": tensor}
    with pytest.raises(ParamCheckError):
        assert_materialized(subject)
    for call in (
        lambda: assert_same_values(subject, {"w": WITHOUT_VALUES[kind]()}),
        lambda: assert_init(subject, {"w": init.ones()}),
    ):
        with pytest.raises(ParamCheckUsageError, match="its values cannot be"):
            call()
    assert len(param_table(subject).splitlines()) == 4


@pytest.mark.parametrize("kind", [*WITH_VALUES, *WITHOUT_VALUES])
def test_hidden_tensors_of_all_kinds(kind: str) -> None:
    model: Any = nn.Linear(2, 2)
    model.kept = [(WITH_VALUES | WITHOUT_VALUES)[kind]()]
    with pytest.raises(ParamCheckError) as caught:
        assert_registered(model, tensors=True)
    assert str(caught.value).startswith("not registered: kept[0] (Linear)")


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_default_device_of_meta_changes_nothing(kind: str) -> None:
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = {"w": torch.randn(400, generator=generator).to(getattr(torch, kind))}
    with torch.device("meta"):
        assert_init(drawn, {"w": init.normal()})
        assert_same_values(drawn, dict(drawn))
        with pytest.raises(ParamCheckError, match="mean"):
            assert_init(drawn, {"w": init.normal(1, 1)})


def test_quantized_scales_are_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = torch.quantize_per_tensor(torch.ones(4) * 2, 0.2, 0, torch.qint8)
    with pytest.raises(ParamCheckError, match="max abs 1 at"):
        assert_same_values({"w": _quantized()}, {"w": other})
