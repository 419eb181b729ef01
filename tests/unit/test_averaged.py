"""``assert_averaged``: averages that were updated once, and those that only look so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pytest_paramcheck import ParamCheckError, assert_averaged
from pytest_paramcheck.parameters.tensors.blend import blend_of

from .messages import failure, failure_lines, usage, whole

DECAY = 0.9
#: How averages are written: in place, anew, from either end.
FORMULAS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "mul and add": lambda b, m, d: b.clone().mul_(d).add_(m, alpha=1 - d),
    "lerp": lambda b, m, d: torch.lerp(b, m.to(b.dtype), 1 - d),
    "a sum": lambda b, m, d: d * b + (1 - d) * m.to(b.dtype),
    "minus a difference": lambda b, m, d: b - (1 - d) * (b - m.to(b.dtype)),
    "the model and a difference": lambda b, m, d: m.to(b.dtype) + d * (b - m.to(b.dtype)),
}


#: Kinds of tensors with values of their own, which no two share.
KINDS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "float32": lambda g: torch.randn(3, 4, generator=g),
    "float64": lambda g: torch.randn(5, generator=g, dtype=torch.float64),
    "float16": lambda g: torch.randn(7, generator=g).half(),
    "bfloat16": lambda g: torch.randn(7, generator=g).bfloat16(),
    "complex": lambda g: torch.randn(4, generator=g, dtype=torch.complex64),
    "a number": lambda g: torch.randn((), generator=g),
    "not finite": lambda g: torch.cat(
        [torch.tensor([float("nan"), float("inf"), -float("inf")]), torch.randn(5, generator=g)]
    ),
    "transposed": lambda g: torch.randn(3, 4, generator=g).t(),
    "several pieces": lambda g: torch.randn((1 << 17) + 3, generator=g),
}
#: What may become of one in the place of its mean, from what was, what came in and the mean.
FATES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "left alone": lambda b, m, e: b.clone(),
    "copied": lambda b, m, e: m.clone(),
    "one value": lambda b, m, e: e + 9 * (torch.arange(e.numel()).view(e.shape) == e.numel() - 1),
    "not a number": lambda b, m, e: e * float("nan"),
}


def models() -> tuple[nn.Module, nn.Module]:
    """A model in training, and a copy for its average."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    return copy.deepcopy(model).requires_grad_(False), model


def train(model: nn.Module) -> None:
    """What a step does, with no optimizer in the way."""
    with torch.no_grad():
        model(torch.randn(8, 4) + 2)
        for parameter in model.parameters():
            parameter.sub_(0.1 * torch.randn_like(parameter))


@torch.no_grad()
def update(ema: nn.Module, model: nn.Module, decay: float = DECAY, buffers: bool = True) -> None:
    for mean, new in zip(ema.parameters(), model.parameters(), strict=True):
        mean.mul_(decay).add_(new, alpha=1 - decay)
    for mean, new in zip(ema.buffers(), model.buffers(), strict=True):
        if buffers:
            mean.copy_(new)


def block(do: Callable[[nn.Module, nn.Module], Any], **options: Any) -> None:
    ema, model = models()
    with assert_averaged(ema, model, DECAY, **options):
        do(ema, model)


class TestRight:
    def test_a_step_and_an_update(self) -> None:
        ema, model = models()
        for _ in range(3):
            with assert_averaged(ema, model, DECAY):
                train(model)
                update(ema, model)

    def test_the_step_may_have_been_before_the_block(self) -> None:
        ema, model = models()
        train(model)
        with assert_averaged(ema, model, DECAY):
            update(ema, model)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        ema, model = models()
        ema.to(dtype)
        with assert_averaged(ema, model, DECAY):
            train(model)
            update(ema, model)

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(sorted(FORMULAS)),
        st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
        st.one_of(st.sampled_from([0.0, 0.1, 0.5, 0.99, 0.9999, 1.0]), st.floats(0, 1)),
        st.integers(0, 1 << 31),
        st.sampled_from([1e-3, 1.0, 100.0]),
    )
    def test_however_it_is_written(
        self, formula: str, dtype: torch.dtype, decay: float, seed: int, scale: float
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        before = torch.randn(300, generator=draw).to(dtype)
        model = (scale * torch.randn(300, generator=draw)).to(dtype)
        now = FORMULAS[formula](before, model, decay)
        assert blend_of(before, model, now).is_mean(decay)
        exact = decay * before.double() + (1 - decay) * model.double()
        off = (now.double() - exact).abs()
        far = now + 8 * torch.finfo(dtype).eps * (before.abs() + model.abs())
        assert float(off.max()) < 1e3
        assert not blend_of(before, model, far).is_mean(decay)

    @settings(max_examples=12, deadline=None)
    @given(st.data())
    def test_many_of_every_kind_and_what_became_of_each(self, data: st.DataObject) -> None:
        """Looked at together or one by one: named are those that no update made, and no others."""
        draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 31)))
        kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=9))
        fates = [data.draw(st.sampled_from([*sorted(FATES), "right", "right"])) for _ in kinds]
        before = {f"w{i}": KINDS[kind](draw) for i, kind in enumerate(kinds)}
        model = {name: KINDS[kind](draw) for name, kind in zip(before, kinds, strict=True)}
        ema = dict(before)
        wrong = {name for name, fate in zip(before, fates, strict=True) if fate != "right"}

        def write() -> None:
            for name, fate in zip(before, fates, strict=True):
                formula = data.draw(st.sampled_from(sorted(FORMULAS)))
                made = FORMULAS[formula](before[name], model[name], DECAY)
                ema[name] = FATES.get(fate, lambda b, m, e: e)(before[name], model[name], made)

        if not wrong:
            with assert_averaged(ema, model, DECAY):
                write()
            return
        with pytest.raises(ParamCheckError) as caught, assert_averaged(ema, model, DECAY):
            write()
        assert {finding.names[0] for finding in caught.value.findings} == wrong

    def test_buffers_that_are_averaged_or_kept(self) -> None:
        def with_buffers(ema: nn.Module, model: nn.Module) -> None:
            train(model)
            update(ema, model, buffers=False)
            for mean, new in zip(ema.buffers(), model.buffers(), strict=True):
                mean.copy_(mean * DECAY + new * (1 - DECAY))  # a count is cut to an integer

        block(with_buffers, buffers="average")

        def without(ema: nn.Module, model: nn.Module) -> None:
            train(model)
            update(ema, model, buffers=False)

        block(without, buffers="keep")

    def test_averaged_model_and_its_first_update(self) -> None:
        _, model = models()
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        for _ in range(3):
            with assert_averaged(ema, model, DECAY):
                train(model)
                ema.update_parameters(model)

    def test_the_mean_of_all_models_so_far(self) -> None:
        _, model = models()
        ema = AveragedModel(model)
        for _ in range(3):
            with assert_averaged(ema, model, decay=lambda n: n / (n + 1)):
                train(model)
                ema.update_parameters(model)

    def test_a_decay_that_warms_up_by_a_plain_count(self) -> None:
        class Average(nn.Module):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.ema_model = copy.deepcopy(model)
                self.online_model = model  # the model itself is no copy of it
                self.updates = 0

            def update(self) -> None:
                self.updates += 1
                update(self.ema_model, self.online_model, decay_at(self.updates))

        def decay_at(updates: int) -> float:
            return min(0.99, (1 + updates) / (10 + updates))

        _, model = models()
        ema = Average(model)
        for _ in range(3):
            with assert_averaged(ema, model, decay=lambda before: decay_at(before + 1)):
                train(model)
                ema.update()
        with assert_averaged(ema, model, decay=lambda: decay_at(ema.updates)):
            train(model)
            ema.update()

    def test_a_dict_of_shadows_that_is_written_anew(self) -> None:
        _, model = models()
        shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
        with assert_averaged(shadow, model, DECAY):
            train(model)
            for name, parameter in model.named_parameters():
                shadow[name] = DECAY * shadow[name] + (1 - DECAY) * parameter.detach()

    def test_frozen_layers_and_ties_stay_as_they_are(self) -> None:
        ema, model = models()
        for net in (ema, model):
            net[2].weight = net[0].weight
        model[0].requires_grad_(False)
        with assert_averaged(ema, model, DECAY):
            with torch.no_grad():
                model[2].bias.add_(1)
            update(ema, model)

    def test_a_soft_update_of_a_target_network(self) -> None:
        target, online = nn.Linear(3, 2), nn.Linear(3, 2)
        with assert_averaged(target, online, decay=0.995), torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.lerp_(fast, 0.005)


class TestWrong:
    @pytest.mark.parametrize(
        ("do", "problem", "found"),
        [
            (lambda e, m: train(m), "never updated", "as before the block, bit for bit"),
            (
                lambda e, m: (train(m), update(e, m), update(e, m)),
                "updated twice",
                "0.81 x before + 0.19 x model",
            ),
            (
                lambda e, m: (train(m), e.load_state_dict(m.state_dict())),
                "copied, not averaged",
                "the model's values",
            ),
            (
                lambda e, m: (train(m), update(e, m, 0.1)),
                "decay the wrong way round",
                "0.1 x before + 0.9 x model",
            ),
            (
                lambda e, m: (train(m), update(e, m, 0.75)),
                "another decay",
                "0.75 x before + 0.25 x model",
            ),
        ],
    )
    def test_the_weights_that_it_was_made_with(
        self, do: Callable[..., Any], problem: str, found: str
    ) -> None:
        ema, model = nn.Linear(3, 2), nn.Linear(3, 2)

        def trained(module: nn.Module) -> None:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(torch.rand_like(parameter))

        do = type(do)(do.__code__, {**do.__globals__, "train": trained})
        assert failure(_held, ema, model, do) == whole(rf"""
            {problem}: weight, bias (Linear)

              weight  expected 0.9 x before + 0.1 x model, found {found}
              bias    expected 0.9 x before + 0.1 x model, found {found}
            """)

    def test_buffers_are_forgotten(self) -> None:
        """A loop over named_parameters() where named_buffers() were meant."""
        assert failure(block, lambda e, m: (train(m), update(e, m, buffers=False))) == whole(r"""
            never updated: 1.running_mean, 1.running_var, 1.num_batches_tracked (Sequential)

              1.running_mean         as before the block, bit for bit
              1.running_var          as before the block, bit for bit
              1.num_batches_tracked  as before the block, bit for bit

              hint: after each update: averaged_buffer.copy_(buffer); or buffers='keep'
            """)

    def test_buffers_are_averaged(self) -> None:
        def average_all(ema: nn.Module, model: nn.Module) -> None:
            train(model)
            with torch.no_grad():
                for key, value in model.state_dict().items():
                    mean = ema.state_dict()[key]
                    mean.copy_(mean * DECAY + value * (1 - DECAY))

        assert failure(block, average_all) == whole(r"""
            averaged, not copied: 1.running_mean, 1.running_var; never updated: \
            1.num_batches_tracked (Sequential)

              averaged, not copied:
                1.running_mean  0.9 x before + 0.1 x model
                1.running_var   0.9 x before + 0.1 x model
              never updated:
                1.num_batches_tracked  as before the block, bit for bit

              hint: copy buffers, or say that they are averaged: buffers='average'
              hint: after each update: averaged_buffer.copy_(buffer); or buffers='keep'
            """)
        block(average_all, buffers="average")  # the hint repairs

    def test_updated_before_the_step(self) -> None:
        ema, model = models()
        train(model)
        lines = failure_lines(
            _held,
            ema,
            model,
            lambda e, m: (update(e, m, buffers=False), train(m), copy_buffers(e, m)),
        )
        assert lines[0] == "updated before the step: {0..2}.weight, {0..2}.bias (Sequential)"
        assert lines[-1] == "  hint: update the average after optimizer.step()"

    def test_the_values_of_a_neighbor(self) -> None:
        ema = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        model = copy.deepcopy(ema)

        def crossed(ema: nn.Module, model: nn.Module) -> None:
            train(model)
            with torch.no_grad():
                for mean, new in zip(
                    ema.parameters(), reversed([*model.parameters()]), strict=True
                ):
                    mean.lerp_(new, 1 - DECAY)

        assert failure(_held, ema, model, crossed) == whole(r"""
            another one's average: {0,1}.weight (Sequential)

              0.weight  expected 0.9 x before + 0.1 x model, found 0.9 x before \
            + 0.1 x model's 1.weight
              1.weight  expected 0.9 x before + 0.1 x model, found 0.9 x before \
            + 0.1 x model's 0.weight

              hint: pair names, not positions: dict(model.named_parameters())[name]
            """)

    def test_memory_shared_with_the_model(self) -> None:
        model = nn.Linear(3, 2)
        ema = nn.Linear(3, 2)
        ema.load_state_dict(model.state_dict(), assign=True)
        assert failure(_held, ema, model, lambda e, m: (step(m), update(e, m))) == whole(r"""
            shares memory with the model: weight, bias (Linear)

              weight  a step of the model writes it as well
              bias    a step of the model writes it as well

              hint: make the average of a copy: copy.deepcopy(model)
            """)

    def test_an_average_that_its_dtype_cannot_hold(self) -> None:
        model = nn.Linear(64, 64, bias=False)
        ema = copy.deepcopy(model).bfloat16()

        def slow(ema: nn.Module, model: nn.Module) -> None:
            with torch.no_grad():
                model.weight.mul_(1.05)
                ema.weight.lerp_(model.weight.bfloat16(), 0.0001)

        assert failure(_held, ema, model, slow, decay=0.9999) == whole(r"""
            never updated: weight (Linear)

              weight  expected 0.9999 x before + 0.0001 x model, found as before the \
            block, bit for bit: each update is less than half a spacing of bfloat16

              hint: keep the average in float32: copy.deepcopy(model).float()
            """)
        ema = copy.deepcopy(model).float()
        with assert_averaged(ema, model, decay=0.9999), torch.no_grad():  # the hint repairs
            model.weight.mul_(1.05)
            ema.weight.lerp_(model.weight, 0.0001)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_one_that_is_left_alone_beside_small_updates(self, dtype: torch.dtype) -> None:
        """Each update is a few spacings of the dtype: an average may be as far off, and moves."""
        spacing = 8 * torch.finfo(dtype).eps
        ema = {name: torch.full((4,), 8.0).to(dtype) for name in ("a", "b")}

        def update(names: str, by: int) -> None:
            model = {name: torch.full((4,), 8 + by * spacing).to(dtype) for name in ema}
            with assert_averaged(ema, model, DECAY):
                for name in names:
                    ema[name].lerp_(model[name], 1 - DECAY)

        update("ab", 20)
        assert failure_lines(update, "a", 40)[0] == "never updated: b (a dict of tensors)"

    def test_a_parameter_that_came_later(self) -> None:
        ema, model = models()
        model.append(nn.Linear(4, 1))
        found = failure_lines(_held, ema, model, lambda e, m: (step(m), update(e, m[:3])))
        assert found == [
            "not in the average: 3.weight, 3.bias (Sequential)",
            "",
            "  3.weight  it trains in the model, and the average has no such name",
            "  3.bias    it trains in the model, and the average has no such name",
            "",
            "  hint: build the average from the complete model; if it is to have none, "
            "ask about the others alone: assert_averaged(ema, {name: parameter, ...})",
        ]

    def test_the_hint_asks_about_the_others(self) -> None:
        ema, model = models()
        shadow = {"0.weight": ema[0].weight.detach()}
        with assert_averaged(shadow, {"0.weight": model[0].weight}, DECAY), torch.no_grad():
            train(model)
            shadow["0.weight"].lerp_(model[0].weight, 1 - DECAY)

    def test_values_that_are_no_average(self) -> None:
        ema, model = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)

        def spoil(ema: nn.Module, model: nn.Module) -> None:
            update(ema, model)
            with torch.no_grad():
                ema.weight[1, 2] += 0.5

        assert failure_lines(_held, ema, model, spoil)[2] == (
            "  weight  expected 0.9 x before + 0.1 x model, found 1 of 6 values up to 0.5 away at "
            "[1, 2]"
        )

        def break_it(ema: nn.Module, model: nn.Module) -> None:
            update(ema, model)
            with torch.no_grad():
                ema.weight[1, 2] = torch.nan

        assert failure_lines(_held, ema, model, break_it)[2] == (
            "  weight  expected 0.9 x before + 0.1 x model, found 1 of 6 values not finite "
            "at [1, 2]"
        )

    def test_the_average_s_own_count_is_told(self) -> None:
        _, model = models()
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        ema.update_parameters(model)

        def twice(ema: Any, model: nn.Module) -> None:
            for _ in range(2):
                train(model)
                ema.update_parameters(model)

        assert ": the average counted 2 updates in the block" in failure(_held, ema, model, twice)


def _held(ema: nn.Module, model: nn.Module, do: Callable[..., Any], decay: float = DECAY) -> None:
    with assert_averaged(ema, model, decay):
        do(ema, model)


def step(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.1)


def copy_buffers(ema: nn.Module, model: nn.Module) -> None:
    for mean, new in zip(ema.buffers(), model.buffers(), strict=True):
        mean.copy_(new)


class TestWrongCalls:
    def test_arguments(self) -> None:
        ema, model = models()
        assert usage(assert_averaged, ema, model, 1.5) == (
            "decay is 1.5: it is a number from 0 to 1, or a function that returns one"
        )
        assert usage(assert_averaged, ema, model, True).startswith("decay is True")
        decay: Any = torch.tensor(DECAY, dtype=torch.float64)
        with assert_averaged(ema, model, decay):
            train(model)
            update(ema, model)
        assert usage(assert_averaged, ema, model, buffers="mean") == (
            "buffers='mean': buffers are 'copy', 'average' or 'keep'"
        )

    def test_a_model_that_did_not_train(self) -> None:
        ema, model = models()
        assert usage(_held, ema, model, update) == (
            "the model's values are those of the average, within rounding: an update cannot be "
            "told from none; let the model train in the block, before the average is updated"
        )
        rounded, coarse = copy.deepcopy(ema).bfloat16().float(), copy.deepcopy(model).bfloat16()
        assert usage(_held, rounded, coarse, update).startswith("the model's values are those of ")

    def test_nothing_in_common(self) -> None:
        assert usage(_held, nn.Linear(3, 2), nn.ModuleDict({"a": nn.Linear(3, 2)}), update) == (
            "Linear and ModuleDict have no name in common: an average has the names of its model, "
            "with one prefix for all at most"
        )

    def test_a_function_of_a_count_that_is_not_there(self) -> None:
        ema, model = models()

        def do() -> None:
            with assert_averaged(ema, model, decay=lambda n: 0.9):
                train(model)
                update(ema, model)

        assert usage(do) == (
            "decay is a function of the number of updates, and Sequential has no count that the "
            "block raised; pass the decay of this update"
        )

    def test_a_function_that_takes_neither(self) -> None:
        ema, model = models()
        assert usage(assert_averaged, ema, model, decay=lambda model, ema: 0.9) == (
            "decay is a function of the number of updates before this one, or of nothing"
        )

    def test_a_function_that_needs_no_count(self) -> None:
        ema, model = models()
        with assert_averaged(ema, model, decay=lambda number=0: DECAY):
            train(model)
            update(ema, model)
