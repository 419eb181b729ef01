"""Content, bit for bit, for every kind of tensor that holds something."""

from __future__ import annotations

import datetime
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from threading import Lock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pytest_paramcheck.parameters.tensors.content import bits, no_values, same_bits
from pytest_paramcheck.parameters.tensors.describe import describe
from pytest_paramcheck.parameters.tensors.digest import read_contents
from pytest_paramcheck.parameters.tensors.raw import same_bytes

from .tensor_kinds import (
    EVERY_KIND,
    WITH_VALUES,
    WITHOUT_VALUES,
    Block,
    Kind,
    Scaled,
    Wrapper,
    quiet,
)

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


@pytest.mark.parametrize("other", [0, 1, 2, 3, 255])
def test_what_compares_memory_alone_agrees_or_says_nothing(other: int) -> None:
    a = torch.full((5,), 1, dtype=torch.uint8)
    b = a.clone()
    b[3] = other
    assert same_bytes(a, b) is same_bits(a, b) is (other == 1)
    assert same_bytes(a, a) is True
    assert same_bytes(a, b.long()) is same_bytes(a, b[:4]) is False
    assert same_bytes(a, b[::2]) is same_bytes(a.to_sparse(), b) is None


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


def _laid_out(values: Tensor, how: str) -> Tensor:
    """The same values in other memory: whatever strides, offset, kind or class they have."""
    if how == "transposed":
        return values.t().contiguous().t()
    if how == "strided":
        rows, columns = values.shape
        memory = torch.zeros(4 * rows, 4 * columns, dtype=values.dtype)
        return memory[1::4, 2::4].copy_(values)
    if how == "parameter":
        return torch.nn.Parameter(values.clone(), requires_grad=False)
    if how == "wrapper":
        return Wrapper(values.clone())
    if how == "scaled":
        return Scaled(values.clone(), 0.5, [3])
    if how == "rescaled":
        return Scaled(values.clone(), 0.25, [3])
    if how == "recoded":  # the same bytes and context, read as other numbers
        return Scaled(values.view(torch.int8 if values.dtype is torch.uint8 else torch.uint8), 0.5)
    if how == "conjugated":
        return values.conj().resolve_conj().conj()
    if how == "negated":
        return torch._neg_view(-values)
    return values.clone()


LAYOUTS = (
    "contiguous", "transposed", "strided", "parameter", "wrapper", "scaled", "rescaled",
    "conjugated", "negated", "recoded",
)  # fmt: skip
DTYPES = (
    torch.float32, torch.float64, torch.bfloat16, torch.float8_e5m2, torch.complex64,
    torch.int8, torch.uint8, torch.int64, torch.uint64, torch.bool,
)  # fmt: skip
#: Where torch has no such thing of every dtype.
OF_LAYOUT = {
    "conjugated": (torch.complex64,),
    "negated": (torch.float32, torch.float64),
    "recoded": (torch.int8, torch.uint8),
}


@st.composite
def _two(draw: st.DrawFn) -> list[tuple[Tensor, tuple[object, ...]]]:
    """Two tensors of any kind, each with the oracle: its bytes as Python knows them, and its
    context. What they hold is often the same, and often another in one place only."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from([(2, 3), (1, 1), (3, 2)]))
    count = shape[0] * shape[1] * dtype.itemsize
    bound = 1 if dtype is torch.bool else 3
    data = bytes(draw(st.lists(st.integers(0, bound), min_size=count, max_size=count)))
    two = []
    for change in draw(st.sampled_from(["none", "none", "byte", "shape"])), "none":
        how = draw(st.sampled_from([h for h in LAYOUTS if dtype in OF_LAYOUT.get(h, DTYPES)]))
        mine, form = bytearray(data), shape
        if change == "byte":
            mine[draw(st.integers(0, count - 1))] ^= 1
        elif change == "shape":
            form = shape[::-1]
        values = torch.frombuffer(bytearray(mine), dtype=torch.uint8).view(dtype).view(form)
        tensor = _laid_out(values, how)
        kind: tuple[object, ...] = ("plain",)
        if isinstance(tensor, Wrapper):
            held = tensor.inner.dtype
            context = repr(tensor.context) if isinstance(tensor, Scaled) else ""
            kind = (type(tensor).__name__, context, held)
        two.append((tensor, (tensor.dtype, form, bytes(mine), *kind)))
    return two


@given(_two())
def test_content_is_the_bytes_and_the_context(
    two: list[tuple[Tensor, tuple[object, ...]]],
) -> None:
    a, b = two
    equal = a[1] == b[1]
    assert same_bits(a[0], b[0]) is equal
    assert same_bits(b[0], a[0]) is equal
    assert same_bits(a[0], a[0]) is True
    first, second = read_contents([a[0], b[0]])
    assert (first.digest == second.digest) is equal


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (2, 2.0, True), (1, True, False), (0.0, -0.0, False), (NAN, NAN, True), (1j, 1j, True),
        ((1, 2), [1, 2], True), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ({1, 2}, {2, 1}, True),
        ({1}, {2}, False), (Block(1), Block(1), True), (Block(1), Block(2), False),
        ("s", b"s", False), (None, 0, False), (2**60, 2**60 + 1, False),
        (torch.float32, torch.float16, False), (Fraction(1, 3), Fraction(1, 3), True),
        (Decimal("0.1"), Decimal("0.2"), False), (len, max, False), (Lock, Lock, True),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), False),
        (torch.Size([2]), torch.Size([3]), False), (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False), (torch.ones(2), torch.ones(2, 1), False),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_a_context_may_hold(a: object, b: object, equal: bool) -> None:
    left, right = Scaled(torch.ones(2), a), Scaled(torch.ones(2), b)
    assert same_bits(left, right) is equal
    first, second = read_contents([left, right])
    assert (first.digest == second.digest) is equal


def test_what_holds_itself_or_cannot_be_copied_is_known_by_identity() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    lock, other = Lock(), Lock()
    assert same_bits(Scaled(torch.ones(2), loop), Scaled(torch.ones(2), loop)) is True
    assert same_bits(Scaled(torch.ones(2), lock), Scaled(torch.ones(2), lock)) is True
    assert same_bits(Scaled(torch.ones(2), lock), Scaled(torch.ones(2), other)) is False


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
