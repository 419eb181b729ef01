"""``masters=``: float32 copies that are stepped for a model, in all that ask an optimizer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from pytest_paramcheck import (
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_param_groups,
    assert_updated,
)
from pytest_paramcheck.parameters.tensors import wide

from .messages import failure, failure_lines, usage, whole


def half() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)).bfloat16()


def masters_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().float().requires_grad_() for n, p in model.named_parameters()}


def optimizer(*tensors: Tensor) -> torch.optim.Optimizer:
    return SGD(tensors, lr=0.1)


class TestRight:
    def test_each_way_to_say_it(self) -> None:
        model = half()
        masters = masters_of(model)
        held = optimizer(*masters.values())
        by_parameter = {p: masters[n] for n, p in model.named_parameters()}
        declared: list[Any] = [True, masters, by_parameter, lambda name, parameter: masters[name]]
        for masters_said in declared:
            assert_optimizer_covers(held, model, masters=masters_said)

    def test_after_steps_with_the_values_apart(self) -> None:
        """Between the step and the copy back nothing but a declaration tells whose it is."""
        model = half()
        masters = masters_of(model)
        held = optimizer(*masters.values())
        with torch.no_grad():
            for master in masters.values():
                master.add_(1.0)
        assert_optimizer_covers(held, model, masters=masters)

    def test_float32_norms_are_held_themselves(self) -> None:
        model = half()
        model[1].float()
        masters = masters_of(model)
        norms = {n: p for n, p in model.named_parameters() if n.startswith("1.")}
        held = optimizer(*(norms.get(n, m) for n, m in masters.items()))
        assert_optimizer_covers(held, model, masters=True)
        named = {n: m for n, m in masters.items() if n not in norms}
        assert_optimizer_covers(held, model, masters=named)
        assert_optimizer_covers(held, model, masters=lambda n, p: named.get(n))

    def test_masters_that_are_views_of_a_flat_one(self) -> None:
        model = half()
        flat = torch.cat([p.detach().float().flatten() for p in model.parameters()])
        masters, at = {}, 0
        for name, parameter in model.named_parameters():
            masters[name] = flat[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
        assert_optimizer_covers(optimizer(flat), model, masters=masters)
        assert_optimizer_covers(optimizer(flat), model, masters=True)
        short = optimizer(flat[:-2].clone())
        assert failure_lines(assert_optimizer_covers, short, model, masters=masters)[0].startswith(
            "not in the optimizer: "
        )

    def test_a_training_step_with_masters(self) -> None:
        model = half()
        masters = masters_of(model)
        held = optimizer(*masters.values())
        assert_optimizer_covers(held, model, masters=True)
        with assert_updated(model):
            model(torch.randn(8, 4).bfloat16()).float().square().sum().backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                masters[name].grad = parameter.grad.float()
            held.step()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(masters[name])


class TestWrong:
    @pytest.mark.parametrize("how", ["true", "mapping", "function"])
    def test_one_without_a_master(self, how: str) -> None:
        model = half()
        masters = masters_of(model)
        del masters["2.bias"]
        said: Any = {"true": True, "mapping": masters, "function": lambda n, p: masters.get(n)}[how]
        held = optimizer(*masters.values())
        assert failure(assert_optimizer_covers, held, model, masters=said) == whole(r"""
            not in the optimizer: 2.bias (Sequential)

              2.bias  Parameter 4 bfloat16 cpu

              hint: build the optimizer after the model is complete, or add what is missing: \
            add_param_group()
            """)

    def test_a_master_that_is_not_stepped(self) -> None:
        model = half()
        masters = masters_of(model)
        held = optimizer(*[m for n, m in masters.items() if n != "2.bias"])
        assert failure_lines(assert_optimizer_covers, held, model, masters=masters)[:3] == [
            "not in the optimizer: 2.bias (Sequential)",
            "",
            "  2.bias  its master (Tensor 4 float32 cpu) is in no group",
        ]

    def test_a_parameter_that_is_stepped_beside_its_master(self) -> None:
        model = half()
        masters = masters_of(model)
        held = optimizer(*masters.values(), model[0].weight)
        assert failure_lines(assert_optimizer_covers, held, model, masters=masters)[0] == (
            "held more than once: 0.weight (Sequential)"
        )

    def test_a_master_of_several_and_one_of_another_shape(self) -> None:
        model = half()
        masters = masters_of(model)
        masters["0.weight"] = masters["2.weight"]
        masters["1.weight"] = torch.ones(5)
        held = optimizer(*{id(m): m for m in masters.values()}.values())
        assert failure(assert_optimizer_covers, held, model, masters=masters) == whole(r"""
            master of another shape: 1.weight; one master for several parameters: {0,2}.weight \
            (Sequential)

              master of another shape:
                1.weight  (5,), the parameter (4,)
              one master for several parameters:
                0.weight, 2.weight  Tensor 4x4 float32 cpu: each is overwritten with the values \
            of the others

              hint: make each parameter a master of its own: parameter.detach().clone().float()
            """)

    def test_masters_of_a_model_that_was_replaced(self) -> None:
        """By values, a copy of another model is no master."""
        held = optimizer(*(torch.randn_like(m) for m in masters_of(half()).values()))
        lines = failure_lines(assert_optimizer_covers, held, half(), masters=True)
        assert lines[0].startswith("not in the optimizer: ")

    def test_wrong_calls(self) -> None:
        model = half()
        held = optimizer(*masters_of(model).values())
        assert usage(assert_optimizer_covers, held, model, masters=lambda parameter: None) == (
            "masters= is called with name and parameter: lambda name, parameter: ..."
        )
        assert usage(assert_optimizer_covers, held, model, masters={"0.wight": torch.ones(1)}) == (
            "masters= names '0.wight', which is not a parameter of Sequential; did you mean "
            "'0.weight', '2.weight' or '1.weight'?"
        )
        assert usage(assert_optimizer_covers, held, model, masters={torch.ones(1): 3}) == (
            "masters= names Tensor 1 float32 cpu, which is not a parameter of Sequential"
        )
        assert usage(assert_optimizer_covers, held, model, masters=lambda n, p: 3) == (
            "the master of 0.weight is int 3, not a tensor"
        )
        assert usage(assert_optimizer_covers, held, model, masters=3) == (
            "masters= is True, a mapping of names or parameters to masters, or a function of name "
            "and parameter, not int 3"
        )

    def test_a_master_of_a_narrower_dtype(self) -> None:
        model = half()
        masters = masters_of(model)
        masters["0.weight"] = masters["0.weight"].detach().half()
        held = optimizer(*masters.values())
        asked: list[Any] = [
            assert_optimizer_covers,
            lambda *args, **options: assert_param_groups(*args, {"*": {"lr": 0.1}}, **options),
        ]
        for ask in asked:
            assert failure(ask, held, model, masters=masters) == whole("""
                master of a narrower dtype: 0.weight (Sequential)

                  0.weight  float16, the parameter bfloat16: the copy back rounds it at every step

                  hint: make each parameter a master of its own: parameter.detach().clone().float()
            """)


def grouped(masters: dict[str, Tensor]) -> torch.optim.Optimizer:
    """Matrices decay, vectors do not."""
    decay = [m for m in masters.values() if m.dim() > 1]
    rest = [m for m in masters.values() if m.dim() == 1]
    groups = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, weight_decay=0.1)


def flat_masters(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """One master for all, and the views of it that are copied back."""
    flat = torch.cat([p.detach().float().flatten() for p in model.parameters()])
    sizes = [p.numel() for p in model.parameters()]
    views = zip(model.named_parameters(), flat.split(sizes), strict=True)
    return flat, {name: view.view_as(parameter) for (name, parameter), view in views}


class TestParamGroups:
    EXPECTED = {"*": {"weight_decay": 0.1}, "*.bias": {"weight_decay": 0}, "1": {"weight_decay": 0}}

    def test_a_parameter_gets_what_its_master_gets(self) -> None:
        model = half()
        masters = masters_of(model)
        held = grouped(masters)
        declared: list[Any] = [True, masters, lambda name, parameter: masters[name]]
        for said in declared:
            assert_param_groups(held, model, self.EXPECTED, masters=said)
        assert failure(
            assert_param_groups, held, model, {"2": {"weight_decay": 0.1}}, masters=True
        ) == whole("""
            wrong hyperparameter: 2.bias (Sequential)

              2.bias  expected weight_decay=0.1, found weight_decay=0.0: AdamW group 1, by pattern '2'
            """)  # noqa: E501

    def test_parts_of_a_flat_master(self) -> None:
        model = half()
        flat, views = flat_masters(model)
        for said in (True, views):
            assert_param_groups(optimizer(flat), model, {"*": {"lr": 0.1}}, masters=said)

    def test_undeclared_ones_are_recognized(self) -> None:
        model = half()
        held = grouped(masters_of(model))
        assert failure(assert_param_groups, held, model, {"2.bias": {"lr": 1e-3}}) == whole("""
            held as a float32 copy: 2.bias (Sequential)

              2.bias  AdamW group 1, parameter 3 has its values

              hint: where these are masters (mixed precision): masters=True
        """)

    def test_one_without_a_master(self) -> None:
        model = half()
        masters = masters_of(model)
        del masters["2.bias"]
        lines = failure_lines(
            assert_param_groups, grouped(masters), model, self.EXPECTED, masters=True
        )
        assert lines[0] == "not in the optimizer: 2.bias (Sequential)"


class TestState:
    def trained(self) -> tuple[nn.Module, dict[str, Tensor], torch.optim.Optimizer]:
        model = half()
        masters = masters_of(model)
        held = grouped(masters)
        for master in masters.values():
            master.grad = torch.ones_like(master)
        held.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(masters[name])
        return model, masters, held

    def test_state_fits_the_master(self) -> None:
        model, masters, held = self.trained()
        saved = copy.deepcopy(held.state_dict())
        declared: list[Any] = [True, masters, lambda name, parameter: masters[name]]
        for said in declared:
            assert_optimizer_state(held, model, masters=said)
            assert_optimizer_state(held, model, saved, masters=said)

    def test_state_that_was_cast_with_the_model(self) -> None:
        model, masters, held = self.trained()
        state = held.state[masters["0.weight"]]
        state["exp_avg"] = state["exp_avg"].bfloat16()
        assert failure(assert_optimizer_state, held, model, masters=masters) == whole("""
            state does not fit: 0.weight (Sequential)

              0.weight  expected state exp_avg of 4x4 float32 cpu, found 4x4 bfloat16 cpu: wrong dtype

              hint: optimizer.load_state_dict(optimizer.state_dict()) casts and moves it to its parameter
            """)  # noqa: E501

    def test_undeclared_ones_are_recognized(self) -> None:
        model, _, held = self.trained()
        assert failure_lines(assert_optimizer_state, held, model)[0] == (
            "held as a float32 copy: {0..2}.weight, {0..2}.bias (Sequential)"
        )

    def test_norms_that_are_held_themselves(self) -> None:
        """Undeclared masters beside them are recognized, and declared ones are asked."""
        model = half()
        model[1].float()
        masters = masters_of(model)
        norms = {n: p for n, p in model.named_parameters() if n.startswith("1.")}
        held = torch.optim.AdamW([norms.get(n, m) for n, m in masters.items()])
        for group in held.param_groups:
            for tensor in group["params"]:
                tensor.grad = torch.zeros_like(tensor)
        held.param_groups[0]["weight_decay"] = 0.0
        held.step()
        assert_optimizer_state(held, model, masters=True)
        assert failure_lines(assert_optimizer_state, held, model)[0] == (
            "held as a float32 copy: {0,2}.weight, {0,2}.bias (Sequential)"
        )
        held.state[held.param_groups[0]["params"][0]]["exp_avg"] = torch.zeros(3)
        assert failure_lines(assert_optimizer_state, held, model, masters=True)[0] == (
            "state does not fit: 0.weight (Sequential)"
        )

    def test_another_model_in_the_same_optimizer_is_no_master(self) -> None:
        model = half()
        other = nn.Linear(4, 4)
        held = SGD([*other.parameters(), *model[0].parameters()], lr=0.1, momentum=0.9)
        for parameter in (*other.parameters(), *model[0].parameters()):
            parameter.grad = torch.ones_like(parameter)
        held.step()
        assert_optimizer_state(held, model)


def _count(patch: pytest.MonkeyPatch, name: str) -> list[int]:
    calls: list[int] = []
    asked = getattr(wide, name)
    patch.setattr(wide, name, lambda *args: calls.append(1) or asked(*args))  # type: ignore[func-returns-value]
    return calls


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 0), (torch.float64, 0), (torch.bfloat16, 200)]
)
def test_an_optimizer_of_another_model_is_not_sought_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, most: int
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(1, 4) for _ in range(100)))

    model, other = build().to(dtype), build()
    sought = _count(monkeypatch, "_place_of")
    asked = _count(monkeypatch, "_readable")
    found = failure_lines(assert_optimizer_covers, SGD(other.parameters(), lr=0.1), model)
    assert found[0].startswith("not in the optimizer: {0..99}.weight, {0..99}.bias")
    assert len(sought) <= most  # of 100 biases x 200 parameters
    assert len(asked) <= 400


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_flat_copies_are_found_wherever_a_tensor_begins(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(wide, "_PIECE", 3)  # also across the pieces that are looked at
    tensors = [torch.randn(n).to(dtype) for n in (1, 2, 5, 1)]
    flat = torch.cat([torch.full((2,), 9.0), *tensors, torch.tensor([0.0, 1.0])]).double()
    tensors.append(torch.tensor([-0.0, 1.0], dtype=dtype))
    assert wide.wide_copies(tensors, [torch.randn(9).double(), flat]) == dict.fromkeys(range(5), 1)
    assert wide.wide_copies(tensors, [torch.full((9,), 7.0).double()]) == {}
