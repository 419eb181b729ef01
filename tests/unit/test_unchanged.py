"""assert_unchanged: whoever wrote, whatever was replaced; and what is no change."""

# ruff: noqa: PT012, SIM117 - what a block does is the subject here, and it takes several lines

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_averaged,
    assert_changed,
    assert_unchanged,
    assert_updated,
    part,
)
from pytest_paramcheck.parameters.tensors import digest
from pytest_paramcheck.parameters.tensors.digest import PIECE, content_difference, read_contents

from .messages import usage, whole
from .tensor_kinds import Wrapper


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.a(x))


def flip(tensor: Tensor) -> None:
    """Change the lowest bit of the first element."""
    tensor.view(torch.int32).reshape(-1)[0] ^= 1


def by_data(model: Net) -> None:
    flip(model.a.weight.data)


def by_numpy(model: Net) -> None:
    model.a.weight.detach().numpy().reshape(-1).view("int32")[0] ^= 1


def by_dlpack(model: Net) -> None:
    flip(torch.from_dlpack(model.a.weight.detach()))


def by_storage(model: Net) -> None:
    model.a.weight.untyped_storage()[0] ^= 1


def by_copy(model: Net) -> None:
    other = model.a.weight.detach().clone()
    flip(other)
    with torch.no_grad():
        model.a.weight.copy_(other)


def by_swap(model: Net) -> None:
    other = nn.Parameter(model.a.weight.detach().clone())
    flip(other.data)
    torch.utils.swap_tensors(model.a.weight, other)


def by_rebound_data(model: Net) -> None:
    other = model.a.weight.detach().clone()
    flip(other)
    model.a.weight.data = other


def by_rebinding(model: Net) -> None:
    other = model.a.weight.detach().clone()
    flip(other)
    model.a.weight = nn.Parameter(other)


def by_average(model: Net) -> None:
    with torch.no_grad():
        for parameter in model.a.parameters():
            parameter.lerp_(torch.zeros_like(parameter), 1e-7)


def fused(cls: Callable[..., Optimizer], **options: Any) -> Callable[[Net], None]:
    def by_fused(model: Net) -> None:
        # 1e-7 is about one unit in the last place of 1.0
        optimizer = cls([model.a.weight], lr=1e-7, fused=True, **options)
        model.a.weight.grad = torch.ones_like(model.a.weight)
        optimizer.step()

    return by_fused


WAYS: dict[str, Callable[[Net], None]] = {
    "data": by_data,
    "numpy": by_numpy,
    "dlpack": by_dlpack,
    "storage": by_storage,
    "copy_": by_copy,
    "swap_tensors": by_swap,
    "rebinding data": by_rebound_data,
    "rebinding the Parameter": by_rebinding,
    "average": by_average,
    "fused SGD": fused(torch.optim.SGD),
    "fused Adam": fused(torch.optim.Adam),
    "fused AdamW": fused(torch.optim.AdamW),
    "fused Adagrad": fused(torch.optim.Adagrad),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_the_last_bit_is_seen_whoever_wrote(way: str) -> None:
    model = Net()
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, only="values"):
        WAYS[way](model)
    assert caught.value.findings[0].problem == "values changed"
    names = "a.weight, a.bias" if way == "average" else "a.weight"
    assert str(caught.value).splitlines()[0] == f"values changed: {names} (Net)"


def test_batchnorm_statistics_are_seen_and_explained() -> None:
    model = Net().requires_grad_(False)
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model(torch.ones(4, 3))
    assert str(caught.value) == whole(r"""
        values changed: norm.running_mean, norm.running_var, norm.num_batches_tracked (Net)

          norm.running_mean         2 of 2 values changed, by at most 0.4; \
        BatchNorm1d in train mode updates it in every forward
          norm.running_var          2 of 2 values changed, by at most 0.1; \
        BatchNorm1d in train mode updates it in every forward
          norm.num_batches_tracked  0 before, 1 after; \
        BatchNorm1d in train mode updates it in every forward

          hint: model.norm.eval() after every model.train() keeps the statistics of BatchNorm1d; \
        requires_grad does not
        """)
    with assert_unchanged(model.eval()):
        model(torch.ones(4, 3))
    with assert_unchanged(model.train(), buffers=False):
        model(torch.ones(4, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_negating_everything_is_no_accident_of_the_digest(dtype: torch.dtype) -> None:
    tensor = torch.arange(1, 1001).to(dtype)
    with pytest.raises(ParamCheckError), assert_unchanged({"w": tensor}):
        tensor.neg_()
    with pytest.raises(ParamCheckError), assert_unchanged({"w": tensor}):
        tensor.copy_(tensor.flip(0))


def test_writing_the_same_values_is_no_change() -> None:
    model = Net()
    with assert_unchanged(model):
        with torch.no_grad():
            model.a.weight.copy_(model.a.weight.clone())
        model.a.bias.data.mul_(1)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        torch.optim.AdamW(model.parameters(), lr=0.0).step()


def test_who_wrote_is_said_where_it_is_known() -> None:
    model = Net()
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        with torch.no_grad():
            model.a.bias.add_(0.5)
        model.a.weight.detach().numpy()[1, 2] = 3
    assert str(caught.value) == whole(r"""
        values changed: a.weight, a.bias (Net)

          a.weight  1 of 6 values changed, by at most 2; \
        written behind autograd's back (.data, numpy, the storage)
          a.bias    2 of 2 values changed, by at most 0.5; \
        written in place, and no optimizer stepped
        """)


def test_decay_and_momentum_of_a_frozen_parameter_are_said() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.a.parameters(), lr=0.1, weight_decay=0.5, momentum=0.9)
    model.a.requires_grad_(False)
    for parameter in model.a.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, "a.weight"):
        optimizer.step()
    assert str(caught.value) == whole(r"""
        values changed: a.weight (Net)

          a.weight  6 of 6 values changed, by at most 0.05; \
        SGD moved it by weight decay 0.5 only, its gradient was all zero

          hint: its gradient has to be None, not zero: zero_grad(set_to_none=True), \
        or keep it out of SGD
        """)
    model.a.weight.grad = None
    with assert_unchanged(model, "a.weight"):
        optimizer.step()


def test_objects_memory_and_flags_are_named() -> None:
    model = Net()
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model.a.weight = nn.Parameter(model.a.weight.detach().clone())
        model.a.bias.data = model.a.bias.detach().clone()
        model.norm.weight.requires_grad_(False)
        model.norm.running_mean = None
        model.extra = nn.Parameter(torch.ones(1))
    assert str(caught.value) == whole(r"""
        replaced: a.weight; memory replaced: a.bias; requires_grad turned off; removed; \
        added: extra (Net)

          replaced:
            a.weight  another Parameter object
          memory replaced:
            a.bias  the same Parameter object, on other memory
          requires_grad turned off:
            norm.weight  requires_grad was True, is False
          removed:
            norm.running_mean  was Tensor 2 float32 cpu
          added:
            extra  Parameter 1 float32 cpu

          hint: an optimizer built before still holds the old one
        """)


def test_requires_grad_turned_on_is_said() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model.weight.requires_grad_(True)
    assert str(caught.value) == whole("""
        requires_grad turned on: weight (Linear)

          weight  requires_grad was False, is True
        """)


def test_only_what_is_asked_is_compared() -> None:
    def rebind(model: Net) -> None:
        model.a.weight = nn.Parameter(model.a.weight.detach().clone())

    def train(model: Net) -> None:
        with torch.no_grad():
            model.a.weight.add_(1)

    def freeze(model: Net) -> None:
        model.a.weight.requires_grad_(False)

    does = {"values": train, "objects": rebind, "flags": freeze}
    for aspect in does:
        for done, body in does.items():
            model = Net()
            if done == aspect:
                with pytest.raises(ParamCheckError), assert_unchanged(model, only=aspect):
                    body(model)
            else:
                with assert_unchanged(model, only=(aspect,)):
                    body(model)


def test_what_vanished_is_never_unchanged() -> None:
    for only in ("values", "objects", "flags"):
        model = Net()
        with pytest.raises(ParamCheckError, match=r"^removed: a\.weight, a\.bias \(Net\)"):
            with assert_unchanged(model, "a", only=only):
                del model.a


def test_another_shape_of_the_same_memory_is_seen() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ParamCheckError, match=r"^memory replaced: weight"):
        with assert_unchanged(model, "weight", only="objects"):
            model.weight.data = model.weight.data.view(3, 2)


def test_memory_that_comes_back_at_the_same_address_is_other_memory() -> None:
    model = Net()
    with pytest.raises(ParamCheckError, match=r"^memory replaced: a\.weight"):
        with assert_unchanged(model, "a.weight", only="objects"):
            kept = model.a.weight.tolist()
            model.a.weight.data = torch.empty(0)
            model.a.weight.data = torch.tensor(kept)


def test_a_tied_parameter_is_one_row_until_it_is_untied() -> None:
    model = Net()
    model.b = nn.Linear(3, 2)
    model.b.weight = model.a.weight
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model.a.weight.data.add_(1)
    assert [f.names for f in caught.value.findings] == [("a.weight", "b.weight")]
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model.b.weight = nn.Parameter(model.a.weight.detach().clone())
    assert [f.names for f in caught.value.findings] == [("b.weight",)]


def test_another_dtype_or_shape_is_said() -> None:
    model = Net()
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, "a", only="values"):
        model.to(torch.bfloat16)
    assert str(caught.value) == whole(r"""
        values changed: a.weight, a.bias (Net)

          a.weight  was Parameter 2x3 float32 cpu, is Parameter 2x3 bfloat16 cpu; \
        the same Parameter object, on other memory
          a.bias    was Parameter 2 float32 cpu, is Parameter 2 bfloat16 cpu; \
        the same Parameter object, on other memory
        """)


def test_exceptions_of_the_block_pass_through() -> None:
    model = Net()
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, assert_unchanged(model):
        model.a.weight.data.add_(1)
        raise error
    assert caught.value is error
    assert caught.value.__context__ is None


def test_nothing_is_left_behind() -> None:
    hooks = optimizers._global_optimizer_pre_hooks
    after = optimizers._global_optimizer_post_hooks
    before = len(hooks), len(after)
    model = Net()
    for fail in (False, True):
        with pytest.raises(ParamCheckError if not fail else RuntimeError):
            with assert_unchanged(model):
                assert (len(hooks), len(after)) == (before[0] + 1, before[1] + 1)
                if fail:
                    raise RuntimeError
                model.a.weight.data.add_(1)
        assert (len(hooks), len(after)) == before


def test_values_without_values_are_a_wrong_call() -> None:
    model = nn.Linear(3, 2, device="meta")
    with pytest.raises(ParamCheckUsageError) as caught, assert_unchanged(model):
        pass
    assert str(caught.value) == (
        "weight: on meta, where tensors have no values; cannot check whether its values change "
        '(only=("objects", "flags") does not ask)'
    )
    with assert_unchanged(model, only=("objects", "flags")):
        pass
    with pytest.raises(ParamCheckError) as failed:
        with assert_unchanged(model, only=("objects", "flags")):
            model.requires_grad_(False)
    assert str(failed.value) == whole("""
        requires_grad turned off: weight, bias (Linear)

          weight  requires_grad was True, is False
          bias    requires_grad was True, is False
        """)
    lazy = nn.LazyLinear(2)
    assert usage(assert_unchanged(lazy).__enter__) == (
        "weight: uninitialized: a lazy parameter gets its values in the first forward; cannot "
        'check whether its values change (only=("objects", "flags") does not ask)'
    )
    with pytest.raises(ParamCheckError) as failed:
        with assert_unchanged(lazy, only=("objects", "flags")):
            lazy.weight = nn.Parameter(torch.ones(2, 3))
    assert str(failed.value) == whole("""
        replaced: weight (LazyLinear)

          weight  another Parameter object

          hint: an optimizer built before still holds the old one
        """)


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("value", "only='value': 'value' is not one of values, objects, flags, attributes"),
        ((), "only=(): name one or more of values, objects, flags, attributes"),
        (None, "only=None: name one or more of values, objects, flags, attributes"),
    ],
)
def test_another_only_is_a_wrong_call(only: Any, said: str) -> None:
    assert usage(assert_unchanged, Net(), only=only) == said


@pytest.mark.parametrize("assertion", [assert_unchanged, assert_changed, assert_updated])
def test_a_call_without_with_warns_that_it_asserted_nothing(assertion: Callable[..., Any]) -> None:
    said = f"{assertion.__name__} was called without `with`: it asserted nothing"
    with pytest.warns(UserWarning, match=f"^{said}$"):
        assertion(Net())


BLOCKS = [assert_unchanged, assert_changed, assert_updated]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    "assertion",
    [
        assert_updated,
        *(pytest.param(block, marks=pytest.mark.slow) for block in BLOCKS[:2]),
        pytest.param(lambda model: assert_averaged(model, model), marks=pytest.mark.slow),
    ],
)
def test_a_block_that_is_over_keeps_no_model(assertion: Callable[..., Any], raises: bool) -> None:
    model = Net()
    tensors = [weakref.ref(model), *map(weakref.ref, model.parameters())]
    block = assertion(model)
    with suppress(ParamCheckError, ParamCheckUsageError, KeyError), block:
        if raises:
            raise KeyError
    del model
    gc.collect()
    assert [one() for one in tensors] == [None] * len(tensors)


@pytest.mark.parametrize("assertion", BLOCKS)
def test_a_block_is_entered_once(assertion: Callable[..., Any]) -> None:
    said = f"this {assertion.__name__} was entered before: call it again for a second block"
    model = Net()
    hooks, after = optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks
    before = len(hooks), len(after)
    block = assertion(model)
    with pytest.raises(ParamCheckUsageError) as caught, block:
        with block:
            pass
    assert str(caught.value) == said
    assert (len(hooks), len(after)) == before
    assert usage(block.__enter__) == said  # and not again after it was left
    assert all(p._post_accumulate_grad_hooks is None for p in model.parameters())
    with assertion(model), assertion(model):  # two of them nest
        model.a.weight.grad = None
        if assertion is not assert_unchanged:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (len(hooks), len(after)) == before


@pytest.mark.parametrize("assertion", BLOCKS)
def test_a_block_that_was_not_entered_is_not_left(assertion: Callable[..., Any]) -> None:
    said = f"this {assertion.__name__} is left without having been entered: nothing was kept"
    with pytest.raises(ParamCheckUsageError) as caught, ExitStack() as stack:
        stack.push(assertion(Net()))  # enter_context() was meant
    assert str(caught.value) == said
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as passed, ExitStack() as stack:
        stack.push(assertion(Net()))
        raise error
    assert passed.value is error
    with pytest.raises(ParamCheckError), ExitStack() as stack:
        stack.enter_context(assert_changed(Net()))


@pytest.mark.parametrize("assertion", BLOCKS)
def test_a_dropped_block_takes_its_hooks_along(assertion: Callable[..., Any]) -> None:
    hooks, after = optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks
    before = len(hooks), len(after)
    model = Net()
    block = assertion(model)
    block.__enter__()
    said = f"{assertion.__name__} was entered and never left: it asserted nothing"
    with pytest.warns(UserWarning, match=f"^{said}$"):
        del block
    assert (len(hooks), len(after)) == before
    assert all(p._post_accumulate_grad_hooks is None for p in model.parameters())


def test_objects_of_pairs_and_of_a_state_dict_cannot_be_asked_for_alone() -> None:
    model = Net()
    assert usage(assert_unchanged(model.named_parameters(), only="objects").__enter__) == (
        "only='objects': (name, tensor) pairs hold the tensors themselves, so one that is replaced "
        "in the model is not seen: pass the module"
    )
    assert usage(assert_unchanged(model.state_dict(), only=("objects", "flags")).__enter__) == (
        "only='objects': a state_dict holds the tensors themselves, so one that is replaced in the "
        "model is not seen: pass the module"
    )
    for subject in (model.named_parameters(), model.state_dict(), dict(model.named_parameters())):
        with assert_unchanged(subject):
            pass
    slots = dict(model.named_parameters())
    with pytest.raises(ParamCheckError, match=r"^replaced: a\.weight"):
        with assert_unchanged(slots, only="objects"):
            slots["a.weight"] = nn.Parameter(torch.ones(2, 3))


def test_mappings_and_generators_are_subjects() -> None:
    model = Net()
    for subject in (dict(model.named_parameters()), model.named_parameters()):
        with assert_unchanged(subject):
            pass
    with pytest.raises(ParamCheckError, match=r"^values changed: a\.weight"):
        with assert_unchanged(model.named_parameters()):
            model.a.weight.data.add_(1)


def test_large_tensors_are_hashed_piece_by_piece_and_sampled() -> None:
    count = PIECE // 4 + 5
    tensor = torch.zeros(count, dtype=torch.float32)
    before = read_contents([tensor])[0]
    tensor[-1] = 1
    last = read_contents([tensor])[0]
    assert before.digest != last.digest
    assert content_difference(before, last) == (
        "changed, but in none of the 64 values sampled from 2,097,157"
    )
    tensor[-1] = 0
    assert read_contents([tensor])[0].digest == before.digest
    tensor += 0.5
    assert content_difference(before, read_contents([tensor])[0]) == (
        "64 of the 64 values sampled from 2,097,157 changed, by at most 0.5"
    )


def test_copies_of_transposed_tensors_share_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    digest_batch = digest._digest_batch

    def watched(batch: Any, pool: Any) -> Any:
        places.append([(flat.data_ptr(), flat.nbytes) for *_, flats in batch for flat in flats])
        return digest_batch(batch, pool)

    monkeypatch.setattr(digest, "PIECE", 1 << 10)
    monkeypatch.setattr(digest, "_at_once", lambda *_: None)  # not by their views
    monkeypatch.setattr(digest, "_digest_batch", watched)
    across = [torch.rand(16, 16).t() for _ in range(40)] + [torch.rand(8, 8).t().conj()]
    plain = [tensor.resolve_conj().contiguous() for tensor in across]

    transposed = read_contents(across)

    assert len({place for batch in places for place, _ in batch}) == 1
    places.clear()
    contiguous = read_contents(plain)
    assert [c.digest for c in transposed] == [c.digest for c in contiguous]
    assert max(sum(size for _, size in batch) for batch in places) == 32 * 1024
    assert [c.digest for c in read_contents([plain[0], across[1], plain[2]])] == [
        c.digest for c in contiguous[:3]
    ]


@pytest.mark.parametrize("count", [1, 7, 64, 65, 4096, 4097, 5000])
def test_small_tensors_are_digested_as_large_ones_are(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
        tensor = torch.randint(-99, 99, (count, 2), generator=generator).to(dtype)
        spread = torch.zeros(2, count, dtype=dtype).t().copy_(tensor)  # has to be copied
        large = torch.zeros(9000, 2, dtype=dtype)[:count].copy_(tensor)
        one, other, part = read_contents([tensor, spread, large])
        assert one.digest == other.digest == part.digest
        assert one.size == other.size
        assert one.whole == other.whole == (count * 2 <= 64)
        assert torch.equal(one.sample, other.sample)
        tensor[-1, -1] += 1
        after = read_contents([tensor])[0]
        assert after.digest != one.digest
        if one.whole:
            assert content_difference(one, after).startswith(f"1 of {count * 2} values changed")


def test_pieces_are_the_same_of_a_tensor_and_of_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "PIECE", 1 << 10)
    tensor = torch.rand(64, 64)
    one, other = read_contents([tensor, tensor.t().contiguous().t()])
    assert one.digest == other.digest


def test_a_digest_does_not_depend_on_what_is_hashed_with_it() -> None:
    generator = torch.Generator().manual_seed(0)
    small = [torch.rand(n, generator=generator) for n in (1, 4, 5, 1000)]
    large = torch.rand(5 * PIECE // 4, generator=generator)  # enough for several threads
    together = read_contents([*small, large, large])
    alone = [read_contents([tensor])[0] for tensor in (*small, large, large)]
    assert [c.digest for c in together] == [c.digest for c in alone]
    assert len({c.digest for c in together}) == 5


def test_nan_and_the_sign_of_zero_are_told_apart() -> None:
    tensor = torch.tensor([float("nan"), 0.0])
    with assert_unchanged({"w": tensor}):
        tensor.mul_(1)
    with pytest.raises(ParamCheckError, match="1 of 2 values changed"):
        with assert_unchanged({"w": tensor}):
            tensor[1] = -0.0
    with pytest.raises(ParamCheckError, match="1 of 2 values changed, 1 of them to NaN"):
        with assert_unchanged({"w": tensor}):
            tensor[1] = float("nan")


def kinds() -> dict[str, tuple[Tensor, Callable[[Tensor], object]]]:
    """One tensor of each kind, and how its content changes in place."""
    vector = torch.tensor([1.0, 2.0])
    made: dict[str, tuple[Tensor, Callable[[Tensor], object]]] = {
        "complex": (torch.tensor([1j, 2]), lambda t: t.imag.add_(1)),
        "conjugated": (torch.tensor([1j, 2]).conj(), lambda t: t.mul_(2)),
        "float8": (vector.to(torch.float8_e4m3fn), lambda t: t.view(torch.uint8).add_(1)),
        "bfloat16": (vector.bfloat16(), lambda t: t.mul_(2)),
        "bool": (torch.tensor([True, False]), lambda t: t.logical_not_()),
        "0-dim": (torch.tensor(1.0), lambda t: t.mul_(2)),
        "transposed": (torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t(), lambda t: t[0].mul_(2)),
        "expanded": (torch.tensor([1.0]).expand(3), lambda t: t[0].mul_(2)),
        "sparse_coo": (torch.eye(2).to_sparse(), lambda t: t._values().mul_(2)),
        "sparse indices": (torch.eye(2).to_sparse(), lambda t: t._indices().zero_()),
    }
    with warnings.catch_warnings():
        # sparse CSR is announced as beta, quantized tensors as moving to another package
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        made["sparse_csr"] = (torch.eye(2).to_sparse_csr(), lambda t: t.values().mul_(2))
        made["mkldnn"] = (torch.eye(2).to_mkldnn(), lambda t: t.mul_(2))
        made["quantized"] = (
            torch.quantize_per_tensor(vector, 0.1, 0, torch.qint8),
            lambda t: t.fill_(0.5),
        )
    with torch.inference_mode():
        made["inference"] = (torch.tensor([1.0]), by_inference)
    return made


def by_inference(tensor: Tensor) -> None:
    with torch.inference_mode():
        tensor.mul_(2)


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_tensor_is_proven(kind: str) -> None:
    tensor, change = kinds()[kind]
    with assert_unchanged({"w": tensor}):
        pass
    with pytest.raises(ParamCheckError, match=r"^values changed: w \(a dict of tensors\)"):
        with assert_unchanged({"w": tensor}), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # CSR again
            change(tensor)


def test_a_wrapper_subclass_is_proven_by_its_inner_tensors() -> None:
    tensor = Wrapper(torch.ones(2))
    with assert_unchanged({"w": tensor}):
        pass
    with pytest.raises(ParamCheckError) as changed, assert_unchanged({"w": tensor}):
        tensor.inner[1] = 2
    assert str(changed.value) == whole(r"""
        values changed: w (a dict of tensors)

          w  other content; \
        written behind autograd's back (.data, numpy, the storage)
        """)
    with pytest.raises(ParamCheckError) as replaced, assert_unchanged({"w": tensor}):
        tensor.inner = tensor.inner.clone()
    assert str(replaced.value) == whole("""
        memory replaced: w (a dict of tensors)

          w  the same Wrapper object, on other memory
        """)


def test_an_empty_tensor_is_unchanged() -> None:
    with assert_unchanged({"w": torch.empty(0, 3)}):
        pass


def test_the_default_device_and_dtype_of_the_test_do_not_matter() -> None:
    model = Net()
    with torch.device("meta"):
        with assert_unchanged(model):
            pass
        with pytest.raises(ParamCheckError), assert_unchanged(model):
            model.a.weight.data.add_(1)


def test_slices_of_parameters_are_unchanged_as_whole_entries_are(two_ranks: object) -> None:
    """A part counts in the whole tensor, which no rank has."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(
        nn.Sequential(nn.Linear(2, 2)), use_orig_params=True, device_id=torch.device("cpu")
    )

    refused = "FullyShardedDataParallel keeps a slice of each parameter on each rank, "
    block = assert_unchanged(model, part("0.weight", 0))
    assert usage(block.__enter__).startswith(refused)
    assert usage(assert_changed(model).__enter__).startswith(refused)
    with assert_unchanged(model):
        pass


def test_what_can_no_longer_be_measured_says_why() -> None:
    model = nn.Linear(2, 2, bias=False)
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, atol=1.0):
        model.to("meta")
    assert "weight  is Parameter 2x2 float32 meta, on meta, where tensors have no values;" in str(
        caught.value
    )
    model = nn.Linear(2, 2)
    some = part("weight", torch.eye(2).bool())
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, some, atol=1.0):
        model.weight = nn.Parameter(torch.ones(3, 3))
    assert "weight[mask of 2]  is Parameter 3x3 float32 cpu, which it does not fit;" in str(
        caught.value
    )
