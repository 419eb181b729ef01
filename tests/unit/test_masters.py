"""``assert_optimizer_covers(masters=)``: float32 copies that are stepped for a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from pytest_paramcheck import assert_optimizer_covers, assert_updated

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
