"""assert_optimizer_state: it fits its parameter, and it is the one saved under its name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from pytest_paramcheck import ParamCheckUsageError, assert_optimizer_state

from .messages import failure, whole


class Net(nn.Module):
    """Two layers of one shape, registered in the order asked for."""

    def __init__(self, order: str = "ab") -> None:
        super().__init__()
        for number, name in enumerate(order):
            layer = nn.Linear(2, 2)
            with torch.no_grad():
                layer.weight.fill_(number + 1)
                layer.bias.fill_(number + 3)
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def stepped(model: nn.Module, optimizer: Optimizer) -> Optimizer:
    def closure() -> float:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).pow(2).sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return optimizer


OPTIMIZERS = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_torchs_own_optimizers_fits(kind: str) -> None:
    model = Net()
    optimizer = stepped(model, getattr(torch.optim, kind)(model.named_parameters()))
    assert_optimizer_state(optimizer, model)
    saved = copy.deepcopy(optimizer.state_dict())
    assert_optimizer_state(optimizer, model, saved)
    again = getattr(torch.optim, kind)(model.named_parameters())
    again.load_state_dict(saved)
    assert_optimizer_state(again, model, saved)


def test_scalars_may_be_of_another_type_and_place() -> None:
    model = Net().double()
    optimizer = stepped(model.float(), Adam(model.parameters()))
    state = optimizer.state[model.a.weight]
    assert state["step"].dtype is torch.float32
    state["step"] = torch.tensor(1, dtype=torch.int64, device="meta")
    assert_optimizer_state(optimizer, model)


def test_state_of_another_dtype_than_its_parameter() -> None:
    model = Net()
    optimizer = stepped(model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    model.a.to(torch.bfloat16)
    assert failure(assert_optimizer_state, optimizer, model) == whole(r"""
        state does not fit: a.weight, a.bias (Net)

          a.weight  expected momentum_buffer 2x2 bfloat16 cpu, found 2x2 float32 cpu: wrong dtype
          a.bias    expected momentum_buffer 2 bfloat16 cpu, found 2 float32 cpu: wrong dtype

          hint: convert the model before the optimizer is built
        """)


def test_state_of_another_shape_or_device() -> None:
    model = Net()
    optimizer = stepped(model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    optimizer.state[model.a.weight]["momentum_buffer"] = torch.zeros(2)
    optimizer.state[model.b.weight]["momentum_buffer"] = torch.zeros(2, 2, device="meta")
    assert failure(assert_optimizer_state, optimizer, model) == whole("""
        state does not fit: a.weight, b.weight (Net)

          a.weight  expected momentum_buffer 2x2 float32 cpu, found 2 float32 cpu: wrong shape
          b.weight  expected momentum_buffer 2x2 float32 cpu, found 2x2 float32 meta: wrong device

          hint: it belongs to another parameter, or the parameter was resized
          hint: move the model before the optimizer loads or makes its state
        """)


class Foreign(Optimizer):
    """Not torch's: keeps a float32 copy, and a table of another shape."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["master"] = parameter.detach().float()
            state["codes"] = torch.zeros(parameter.shape, dtype=torch.uint8)
            state["table"] = torch.zeros(256)


def test_other_optimizers_may_keep_wider_copies_and_tables() -> None:
    model = Net().to(torch.bfloat16)
    optimizer = Foreign(model.parameters())
    optimizer.step()
    assert_optimizer_state(optimizer, model)
    optimizer.state[model.a.weight]["master"] = torch.zeros(3)
    assert (
        failure(assert_optimizer_state, optimizer, model)
        .splitlines()[2]
        .endswith("found 3 float32 cpu: wrong shape")
    )


def test_a_reorder_gives_each_parameter_its_neighbours_state() -> None:
    model = Net("ab")
    optimizer = stepped(model, Adam(model.named_parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    moved = Net("ba")
    loaded = Adam(moved.named_parameters())
    loaded.load_state_dict(saved)
    assert failure(assert_optimizer_state, loaded, moved, saved) == whole("""
        state of another parameter: b.weight, b.bias, a.weight, a.bias (Net)

          b.weight  has the state saved for a.weight
          b.bias    has the state saved for a.bias
          a.weight  has the state saved for b.weight
          a.bias    has the state saved for b.bias

          hint: state is loaded by position: keep the order, or reorder the saved one by names
        """)
    by_name = Adam([(n, p) for n, p in sorted(moved.named_parameters(), key=lambda i: i[0][0])])
    by_name.load_state_dict(saved)
    assert_optimizer_state(by_name, moved, saved)


def test_a_tied_parameter_may_have_been_saved_under_its_other_name() -> None:
    model = Net()
    model.b.weight = model.a.weight
    optimizer = stepped(model, Adam(model.named_parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    names = saved["param_groups"][0]["param_names"]
    names[names.index("a.weight")] = "module.b.weight"  # and in a wrapper
    assert_optimizer_state(optimizer, model, saved)


def test_lost_renamed_and_other_state() -> None:
    model = Net()
    optimizer = stepped(model, SGD(model.named_parameters(), lr=0.1, momentum=0.9))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["param_names"][3] = "b.bais"
    del optimizer.state[model.a.weight]
    optimizer.state[model.b.weight]["momentum_buffer"] += 1
    assert failure(assert_optimizer_state, optimizer, model, saved) == whole(r"""
        state lost: a.weight; state not as saved: b.weight; state not saved under its name: \
        b.bias; saved, but not in the optimizer: b.bais (Net)

          state lost:
            a.weight  none, saved: momentum_buffer
          state not as saved:
            b.weight  momentum_buffer not as saved for b.weight
          state not saved under its name:
            b.bias  has the state saved for b.bais
          saved, but not in the optimizer:
            b.bais  its state is lost
        """)


def test_positions_are_compared_where_no_names_were_saved() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    assert_optimizer_state(optimizer, model, saved)
    state = optimizer.state
    state[model.a.weight], state[model.b.weight] = state[model.b.weight], state[model.a.weight]
    assert failure(assert_optimizer_state, optimizer, model, saved) == whole("""
        state of another parameter: a.weight, b.weight (Net)

          a.weight  has the state saved for position 2
          b.weight  has the state saved for position 0
        """)


def test_positions_need_the_same_number_of_parameters() -> None:
    model = Net()
    saved = copy.deepcopy(stepped(model, Adam(model.parameters())).state_dict())
    shorter = stepped(model, Adam(model.a.parameters()))
    assert failure(assert_optimizer_state, shorter, model, saved) == whole("""
        another number of parameters: Adam (Net)

          Adam  expected 4 parameters as saved, found 2 parameters
        """)


def test_state_that_no_saved_one_resembles() -> None:
    model = Net()
    optimizer = stepped(model, SGD(model.named_parameters(), lr=0.1, momentum=0.9))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["param_names"][0] = "a.weights"
    optimizer.state[model.a.weight]["momentum_buffer"] += 1
    assert failure(assert_optimizer_state, optimizer, model, saved) == whole(r"""
        state not saved under its name: a.weight; \
        saved, but not in the optimizer: a.weights (Net)

          state not saved under its name:
            a.weight  its state is no saved one: did you mean 'a.weights'?
          saved, but not in the optimizer:
            a.weights  its state is lost
        """)


def test_half_precision_state_saved_wide_is_the_same_state() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.named_parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    half = Net().to(torch.bfloat16)
    loaded = Adam(half.named_parameters())
    loaded.load_state_dict(saved)
    assert_optimizer_state(loaded, half, saved)


def test_keys_that_are_names_are_names() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    flat = copy.deepcopy(optimizer.state_dict())
    names = [name for name, _ in model.named_parameters()]
    saved = {
        "state": {name: flat["state"][position] for position, name in enumerate(names)},
        "param_groups": [{"params": list(reversed(names))}],
    }
    assert_optimizer_state(optimizer, model, saved)


def test_wrong_calls() -> None:
    model = Net()
    fresh = Adam(model.parameters())
    with pytest.raises(ParamCheckUsageError, match=r"^Adam keeps no state .*nothing to check$"):
        assert_optimizer_state(fresh, model)
    optimizer = stepped(model, fresh)
    with pytest.raises(ParamCheckUsageError, match=r"^saved= is .* did you mean saved\['opt'\]\?"):
        assert_optimizer_state(optimizer, model, {"opt": optimizer.state_dict()})
    with pytest.raises(ParamCheckUsageError, match=r"^saved= is .* not list"):
        assert_optimizer_state(optimizer, model, [])  # type: ignore[arg-type]
    with pytest.raises(ParamCheckUsageError, match="one optimizer at a time"):
        assert_optimizer_state([optimizer], model)  # type: ignore[arg-type]
    with pytest.raises(ParamCheckUsageError, match=r"^Adam holds no parameter of Net"):
        assert_optimizer_state(optimizer, Net())
