"""Content, bit for bit, for every kind of tensor that holds something."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from pytest_paramcheck.parameters.tensors.content import bits, no_values, same_bits
from pytest_paramcheck.parameters.tensors.describe import describe

from .tensor_kinds import EVERY_KIND, WITH_VALUES, WITHOUT_VALUES, Kind, Wrapper, quiet

NAN = float("nan")


def each(kinds: Mapping[str, Callable[[], Tensor]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("build", list(kinds.values()), ids=list(kinds))


@each(WITH_VALUES)
def test_bits_are_flat_integers(build: Callable[[], Tensor]) -> None:
    tensor = build()

    flats = bits(tensor)

    assert flats
    for flat in flats:
        assert flat.dim() == 1
        assert not flat.dtype.is_floating_point
        assert not flat.dtype.is_complex
        assert not flat.requires_grad


@each(WITH_VALUES)
def test_values_can_be_read(build: Callable[[], Tensor]) -> None:
    assert no_values(build()) == ""


@each(WITH_VALUES)
def test_two_of_one_kind_and_content_are_the_same(build: Callable[[], Tensor]) -> None:
    a, b = build(), build()

    assert a is not b
    assert same_bits(a, b) is True


@each(WITH_VALUES)
@pytest.mark.parametrize("device", ["meta"])
def test_the_default_device_does_not_matter(build: Callable[[], Tensor], device: str) -> None:
    a, b = build(), build()

    with torch.device(device):
        assert same_bits(a, b) is True
        assert all(flat.device.type == "cpu" for flat in bits(a))


@pytest.mark.parametrize("kind", list(WITH_VALUES.values()), ids=list(WITH_VALUES))
def test_other_content_is_told_apart(kind: Kind) -> None:
    assert same_bits(kind(), kind.of(torch.eye(2, 3) * 5)) is False


@pytest.mark.parametrize(
    ("build", "reason"), list(WITHOUT_VALUES.values()), ids=list(WITHOUT_VALUES)
)
def test_what_has_no_values_says_why(build: Callable[[], Tensor], reason: str) -> None:
    tensor = build()

    assert no_values(tensor) == reason
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        bits(tensor)
    assert same_bits(tensor, build()) is None


@each(EVERY_KIND)
def test_every_kind_can_be_described_without_its_values(build: Callable[[], Tensor]) -> None:
    tensor = build()

    text = describe(tensor)

    assert text.endswith(str(tensor.device))
    assert "\n" not in text
    assert "[" not in text


def test_nan_equals_nan_of_the_same_bits_only() -> None:
    quiet_nan = torch.tensor([NAN])
    other_nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)

    assert same_bits(quiet_nan, torch.tensor([NAN])) is True
    assert other_nan.isnan().all()
    assert same_bits(quiet_nan, other_nan) is False


def test_zero_differs_from_minus_zero() -> None:
    assert torch.tensor([0.0]).equal(torch.tensor([-0.0]))
    assert same_bits(torch.tensor([0.0]), torch.tensor([-0.0])) is False


def test_bits_are_the_bytes_that_python_knows() -> None:
    (flat,) = bits(torch.tensor([1.5, -2.0]))

    assert flat.tolist() == list(struct.unpack("2i", struct.pack("2f", 1.5, -2.0)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.ones(2, 3), torch.ones(3, 2)),
        (torch.ones(()), torch.ones(1)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.ones(2, 2), torch.ones(2, 2).to_sparse()),
        (torch.ones(2, 3), torch.ones(3, 2, device="meta")),
        (torch.empty(0, 3), torch.empty(3, 0)),
    ],
)
def test_another_shape_dtype_or_layout_is_not_the_same(a: Tensor, b: Tensor) -> None:
    assert same_bits(a, b) is False


def test_empty_tensors_of_one_shape_are_the_same() -> None:
    assert same_bits(torch.empty(0, 3), torch.empty(0, 3)) is True


def test_the_values_of_a_view_are_compared_and_not_its_memory() -> None:
    flat = torch.arange(6.0)

    assert same_bits(flat.view(2, 3).t(), flat.view(2, 3).t().contiguous()) is True


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_quantized_integers_mean_what_their_scale_says(scale: float) -> None:
    a = quiet(lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8))
    b = quiet(lambda: torch.quantize_per_tensor(torch.ones(3) * scale, scale, 0, torch.qint8))
    assert a.int_repr().equal(b.int_repr())

    assert same_bits(a, b) is False


def test_quantized_memory_that_nobody_gave_a_scale_is_still_read() -> None:
    tensor = quiet(lambda: torch.empty(3, dtype=torch.qint8))

    assert same_bits(tensor, tensor) is True


def test_reading_changes_nothing() -> None:
    parameter = torch.nn.Parameter(torch.eye(2))
    version = parameter._version

    (flat,) = bits(parameter)

    assert flat.data_ptr() == parameter.data_ptr()  # a view: no copy of a large model
    assert parameter._version == version
    assert parameter.requires_grad
    assert parameter.grad is None


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (None, "None"),
        (torch.nn.Parameter(torch.ones(11, 6)), "Parameter 11x6 float32 cpu"),
        (torch.tensor(1), "Tensor scalar int64 cpu"),
        (torch.empty(0, 3, device="meta"), "Tensor 0x3 float32 meta"),
        (torch.nn.UninitializedParameter(), "UninitializedParameter uninitialized float32 cpu"),
        (torch.eye(2).to_sparse(), "Tensor 2x2 float32 sparse_coo cpu"),
        (torch.eye(2).to_mkldnn(), "Tensor 2x2 float32 mkldnn cpu"),
        (Wrapper(torch.eye(2)), "Wrapper 2x2 float32 cpu"),
    ],
)
def test_describe(tensor: Tensor | None, text: str) -> None:
    assert describe(tensor) == text


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0, 1, 2, 8])
@pytest.mark.parametrize("size", [4095, 4096, 8192, 8199])
def test_long_tensors_are_compared_to_the_last_byte(
    dtype: torch.dtype, offset: int, size: int
) -> None:
    """They are compared eight bytes at a time where their place in memory allows it."""
    a = torch.ones(offset + size, dtype=dtype)[offset:]
    assert same_bits(a, torch.ones(size, dtype=dtype)) is True
    for place in (0, size // 2, size - 9, size - 1):
        b = torch.ones(size, dtype=dtype)
        b[place] = 2
        assert same_bits(a, b) is False
        assert same_bits(b, a) is False
