"""assert_finite: every kind of tensor, one transfer per device, exact counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError, assert_finite
from pytest_paramcheck.parameters.tensors.finite import are_finite

from .messages import failure, usage, whole
from .tensor_kinds import Scaled, Wrapper, freed

NAN, INF = float("nan"), float("inf")


class Waits(TorchFunctionMode):
    """Counts what would wait for an accelerator: values read back into Python."""

    READS = frozenset({"tolist", "item", "__bool__", "__int__", "__float__", "cpu", "equal"})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in self.READS
        return func(*args, **(kwargs or {}))


class ScalarReads(TorchDispatchMode):
    """Counts the operators under item(), bool() and the like, whoever calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += func in waits
        return func(*args, **(kwargs or {}))


def waits_of(function: Callable[[], object]) -> tuple[int, int]:
    with Waits() as waits, ScalarReads() as reads:
        function()
    return waits.count, reads.count


def many() -> nn.ParameterList:
    tensors = [torch.ones(3, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)] * 20
    return nn.ParameterList(tensors)


def test_one_read_for_all_tensors_of_a_device() -> None:
    model = many()
    assert waits_of(lambda: assert_finite(model)) == (1, 0)


def test_the_counter_sees_a_loop_that_waits_for_each_tensor() -> None:
    model = many()
    loop = waits_of(lambda: [bool(p.isfinite().all()) for p in model.parameters()])
    assert loop == (40, 40)


def test_an_overflowing_norm_is_cleared_with_one_more_read() -> None:
    model = many()
    model.append(torch.full((2000,), 3e38))  # the squares overflow, the values do not
    assert waits_of(lambda: assert_finite(model)) == (2, 0)


SIZES = [(6,), (2, 3), (1, 6), (3,), (), (0,), (0, 4), (1024,), (1025,)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@st.composite
def many_alike(draw: st.DrawFn) -> list[Tensor]:
    """Tensors of few sizes and dtypes, one value of each whatever it may be."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(SIZES), st.sampled_from(DTYPES)), min_size=1))
    random = draw(st.randoms(use_true_random=False))
    tensors = []
    for _ in range(draw(st.integers(1, 20))):
        size, dtype = random.choice(kinds)
        tensor = torch.ones(size, dtype=dtype)
        if tensor.numel():
            value = random.choice([1.0, 1.0, 1.0, 6e4, NAN, INF, -INF])
            tensor.view(-1)[random.randrange(tensor.numel())] = value
        tensors.append(tensor.t() if random.random() < 0.3 and tensor.dim() == 2 else tensor)
    return tensors


@given(many_alike())
def test_each_of_many_tensors_has_its_own_answer(tensors: list[Tensor]) -> None:
    oracle = [all(map(math.isfinite, tensor.flatten().tolist())) for tensor in tensors]
    assert are_finite(tensors) == oracle


@pytest.mark.parametrize("without", ["missing", "raising"])
def test_without_the_fused_norm_the_answer_is_the_same(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise NotImplementedError("no such kernel")

    if without == "missing":
        monkeypatch.delattr(torch, "_foreach_norm")
    else:
        monkeypatch.setattr(torch, "_foreach_norm", refuse)
    tensors = [torch.ones(2), torch.tensor([1, NAN]), torch.tensor([INF, -INF])]
    assert are_finite(tensors) == [True, False, False]


def kinds(value: float) -> dict[str, Tensor]:
    """One tensor of each kind that holds a value."""
    vector = torch.tensor([1.0, value])
    made = {
        "float32": vector,
        "float64": vector.double(),
        "float16": vector.half(),
        "bfloat16": vector.bfloat16(),
        "0-dim": torch.tensor(value),
        "expanded": torch.tensor(value).expand(3, 2),
        "transposed": torch.tensor([[1.0, value], [2.0, 3.0]]).t(),
        "complex": torch.tensor([complex(1, value)]),
        "conjugated": torch.tensor([complex(1, value)]).conj(),
        "sparse_coo": torch.tensor([[0.0, value]]).to_sparse(),
    }
    if value == value:
        made["float8_e5m2"] = vector.to(torch.float8_e5m2)
    if value in (1.0,) or value != value:
        made["float8_e4m3fn"] = vector.to(torch.float8_e4m3fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls sparse CSR a beta feature
        made["sparse_csr"] = torch.tensor([[0.0, value]]).to_sparse_csr()
        made["mkldnn"] = torch.tensor([[1.0, value]]).to_mkldnn()
    with torch.inference_mode():
        made["inference"] = torch.tensor([value])
    return made


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_every_kind_of_tensor_is_looked_at(value: float) -> None:
    with pytest.raises(ParamCheckError) as caught:
        assert_finite(kinds(value))
    assert [f.names[0] for f in caught.value.findings] == list(kinds(value))


def test_every_kind_of_finite_tensor_passes() -> None:
    assert_finite(kinds(1.0))
    for kind, tensor in kinds(1.0).items():  # the slow way is taken for all where one needs it
        assert_finite({kind: tensor})


def test_what_cannot_be_other_than_finite_passes() -> None:
    with warnings.catch_warnings():
        # torch announces that its quantized tensors move to another package
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        per_channel = torch.quantize_per_channel(
            torch.ones(2, 3), torch.ones(2), torch.zeros(2), 0, torch.qint8
        )
    assert_finite(
        {
            "empty": torch.empty(0),
            "empty matrix": torch.empty(3, 0),
            "int": torch.arange(3),
            "bool": torch.tensor([True]),
            "quantized": quantized,
            "per channel": per_channel,
        }
    )


def test_a_nan_scale_of_a_quantized_tensor_is_found() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        tensor = torch.quantize_per_channel(
            torch.ones(2, 3), torch.tensor([1.0, NAN]), torch.zeros(2), 0, torch.qint8
        )
    assert failure(assert_finite, {"weight": tensor}) == whole("""
        not finite: weight (a dict of tensors)

          weight  1 of 4 scales and zero points: 1 NaN
        """)


@pytest.mark.parametrize("scale", [NAN, INF])
def test_the_scale_of_a_quantized_tensor_is_looked_at(scale: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        codes = torch.ones(3, dtype=torch.int8)
        assert_finite({"w": torch._make_per_tensor_quantized_tensor(codes, 0.5, 0)})
        tensor = torch._make_per_tensor_quantized_tensor(codes, scale, 0)
        assert_finite({"w": torch.empty(3, dtype=torch.qint8)})  # which has no scale
    said = "NaN" if scale != scale else "inf"
    assert failure(assert_finite, {"w": tensor}) == (
        f"not finite: w (a dict of tensors)\n\n  w  1 of 1 scale: 1 {said}"
    )


def test_numbers_in_a_flatten_context_are_looked_at() -> None:
    codes = torch.ones(3, dtype=torch.int8)
    assert_finite({"w": Scaled(codes, 2.0, {"zero": [3, None]})})
    assert failure(assert_finite, {"w": Scaled(codes, 2.0, {"zero": [3, -INF]})}) == (
        "not finite: w (a dict of tensors)\n\n  w  flatten context[1]['zero'][1] is -inf"
    )
    within = Wrapper(Scaled(torch.tensor([1, NAN]), NAN))
    assert failure(assert_finite, {"w": within}) == whole("""
        not finite: w (a dict of tensors)

          w  1 of 2 values: 1 NaN, first at [1]; inner tensor 0: flatten context[0] is NaN
        """)


def test_memory_that_was_freed_is_not_read() -> None:
    subject = {"a": torch.ones(2), "w": freed()}
    assert usage(assert_finite, subject) == (
        "w: its memory was freed: the storage behind it is empty; its values cannot be checked"
    )
    whole_one = torch.ones(3)
    whole_one.untyped_storage().resize_(0)
    assert usage(assert_finite, {"w": whole_one}).startswith("w: its memory was freed")
    assert_finite({"a": torch.ones(2), "w": torch.empty(0)})


def test_memory_that_was_shrunk_is_not_read() -> None:
    """Torch looks at the storage's size when a view is made, and not when one is read."""
    weight = torch.ones(4)
    weight.untyped_storage().resize_(15)
    assert usage(assert_finite, {"a": torch.ones(2), "w": weight}) == (
        "w: its memory was shrunk: the storage behind it ends before it does; its values cannot "
        "be checked"
    )
    matrix = torch.ones(4, 4)
    matrix.untyped_storage().resize_(60)
    assert usage(assert_finite, {"w": matrix}).startswith("w: its memory was shrunk: ")
    weight.untyped_storage().resize_(16)
    weight.fill_(1)
    assert_finite({"w": weight, "view": weight[1:], "column": weight.view(2, 2)[:, 1]})


def test_a_wrapper_subclass_is_judged_by_its_inner_tensors() -> None:
    assert_finite({"w": Wrapper(torch.ones(2))})
    assert failure(assert_finite, {"w": Wrapper(torch.tensor([1, NAN]))}) == (
        "not finite: w (a dict of tensors)\n\n  w  1 of 2 values: 1 NaN, first at [1]"
    )


def test_the_message_counts_kinds_and_names_the_first_place() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight[0, 2] = NAN
        model[0].weight[1, 0] = INF
        model[0].weight[1, 1] = -INF
        model[1].bias[0] = INF
    assert failure(assert_finite, model) == whole("""
        not finite: 0.weight, 1.bias (Sequential)

          0.weight  3 of 6 values: 1 NaN, 1 inf, 1 -inf, first at [0, 2]
          1.bias    1 of 1 value: 1 inf, first at [0]
        """)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.Linear(3, 2, device="meta"), "on meta, where tensors have no values"),
        (lambda: nn.LazyLinear(2), "uninitialized: a lazy parameter gets its values in the first"),
    ],
)
def test_tensors_without_values_are_a_wrong_call(make: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(ParamCheckUsageError, match=f"^weight: {why}"):
        assert_finite(make())


def test_a_fake_tensor_is_a_wrong_call() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = nn.Linear(3, 2)
    with pytest.raises(ParamCheckUsageError, match=r"^weight: a FakeTensor has no values"):
        assert_finite(model)


def test_a_mask_of_minus_infinity_is_no_parameter() -> None:
    model = nn.Linear(3, 2)
    model.register_buffer("mask", torch.full((2, 2), -INF))
    assert_finite(model)
    assert failure(assert_finite, model, "mask") == (
        "not finite: mask (Linear)\n\n  mask  4 of 4 values: 4 -inf, first at [0, 0]"
    )


def test_an_expanded_tensor_is_looked_at_once() -> None:
    for value in (1.0, math.nan):
        one = torch.full((1,), value).to(torch.float8_e5m2)
        assert are_finite([one.expand(1 << 44)]) == [value == 1]  # 16 TiB, were it read
