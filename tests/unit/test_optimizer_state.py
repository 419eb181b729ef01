"""assert_optimizer_state: it fits its parameter, and it is the one saved under its name."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError, assert_optimizer_state
from pytest_paramcheck.checks import optimizer_zero
from pytest_paramcheck.parameters.subject.optimizers import read_slots
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import failure, failure_lines, whole


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

          a.weight  expected state momentum_buffer of 2x2 bfloat16 cpu, found 2x2 float32 cpu: \
        wrong dtype
          a.bias    expected state momentum_buffer of 2 bfloat16 cpu, found 2 float32 cpu: \
        wrong dtype

          hint: optimizer.load_state_dict(optimizer.state_dict()) casts and moves it to its \
        parameter
        """)


def test_state_of_another_shape_or_device() -> None:
    model = Net()
    optimizer = stepped(model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    optimizer.state[model.a.weight]["momentum_buffer"] = torch.zeros(2)
    optimizer.state[model.b.weight]["momentum_buffer"] = torch.zeros(2, 2, device="meta")
    assert failure(assert_optimizer_state, optimizer, model) == whole(r"""
        state does not fit: a.weight, b.weight (Net)

          a.weight  expected state momentum_buffer of 2x2 float32 cpu, found 2 float32 cpu: \
        wrong shape, that of a.bias
          b.weight  expected state momentum_buffer of 2x2 float32 cpu, found 2x2 float32 meta: \
        wrong device
        """)


def test_the_hint_for_another_dtype_works() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    model.to(torch.float64)
    before = copy.deepcopy(optimizer.state[model.a.weight])
    assert "state does not fit: a.weight, a.bias" in failure(
        assert_optimizer_state, optimizer, model
    )
    optimizer.load_state_dict(optimizer.state_dict())
    assert_optimizer_state(optimizer, model)
    for key, value in optimizer.state[model.a.weight].items():
        assert torch.equal(value.double(), before[key].double())


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
    optimizer.state[model.a.weight]["master"] = torch.zeros(3)  # nobody's shape
    assert_optimizer_state(optimizer, model)
    optimizer.state[model.a.bias]["master"] = torch.zeros(2, 2, 2)
    assert_optimizer_state(optimizer, model)


def test_a_reorder_gives_each_parameter_its_neighbors_state() -> None:
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
        state lost: a.weight; state not as saved; state not saved under its name; and 1 more (Net)

          state lost:
            a.weight  none, saved: momentum_buffer
          state not as saved:
            b.weight  momentum_buffer not as saved for b.weight
          state not saved under its name:
            b.bias  has the state saved for b.bais
          saved, but not in the optimizer:
            b.bais  its state is lost

          hint: load it again, and keep it from then on: optimizer.load_state_dict(saved)
          hint: if it was renamed, rename it in the saved state too: its param_names in param_groups
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

          hint: state is loaded by position: build the optimizer in the order of the saved one
        """)


def test_a_neighbors_state_is_known_in_the_dtype_that_it_was_cast_to() -> None:
    """torch casts state to its parameter's dtype as it loads it."""
    model = Net()
    saved = copy.deepcopy(stepped(model, Adam(model.parameters())).state_dict())
    model.bfloat16()
    optimizer = Adam(model.parameters())
    optimizer.load_state_dict(saved)
    state = optimizer.state
    state[model.a.weight], state[model.b.weight] = state[model.b.weight], state[model.a.weight]
    assert failure_lines(assert_optimizer_state, optimizer, model, saved)[2:5] == [
        "  state of another parameter:",
        "    a.weight  has the state saved for position 2",
        "    b.weight  has the state saved for position 0",
    ]


def test_positions_need_the_same_number_of_parameters() -> None:
    model = Net()
    saved = copy.deepcopy(stepped(model, Adam(model.parameters())).state_dict())
    shorter = stepped(model, Adam(model.a.parameters()))
    assert failure(assert_optimizer_state, shorter, model, saved) == whole("""
        another number of parameters: Adam (Net)

          Adam  expected 4 parameters as saved, found 2 parameters

          hint: build the optimizer over the parameters that it was saved with
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
            a.weight  its state matches no saved state: did you mean 'a.weights'?
          saved, but not in the optimizer:
            a.weights  its state is lost

          hint: if it was renamed, rename it in the saved state too: its param_names in param_groups
        """)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("float32", "bfloat16", "expected exp_avg, exp_avg_sq float32, found bfloat16"),
        ("bfloat16", "float32", "expected exp_avg, exp_avg_sq bfloat16, found float32"),
    ],
)
def test_a_load_that_casts_the_state_is_seen(was: str, now: str, said: str) -> None:
    model = Net().to(getattr(torch, was))
    optimizer = Adam(model.named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    other = Net().to(getattr(torch, now))
    loaded = Adam(other.named_parameters())
    loaded.load_state_dict(saved)
    assert failure(assert_optimizer_state, loaded, other, saved) == whole(f"""
        state dtype not as saved: a.weight, a.bias, b.weight, b.bias (Net)

          a.weight  {said}: the dtype of its parameter
          a.bias    {said}: the dtype of its parameter
          b.weight  {said}: the dtype of its parameter
          b.bias    {said}: the dtype of its parameter

          hint: a load casts it: load it into a model of {was}
        """)
    assert_optimizer_state(loaded, other, loaded.state_dict())
    again = Net().to(getattr(torch, was))
    loaded = Adam(again.named_parameters())
    loaded.load_state_dict(saved)
    assert_optimizer_state(loaded, again, saved)


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
    for groups in (3, "ab", [3], [{"params": 3}]):
        with pytest.raises(ParamCheckUsageError, match=r"^saved= is .* not dict$"):
            assert_optimizer_state(optimizer, model, {"state": {}, "param_groups": groups})
    with pytest.raises(ParamCheckUsageError, match="one optimizer at a time"):
        assert_optimizer_state([optimizer], model)  # type: ignore[arg-type]
    with pytest.raises(ParamCheckUsageError, match=r"^Adam holds no parameter of Net"):
        assert_optimizer_state(optimizer, Net())


# --- what optimizers of any make keep ----------------------------------------------------------


class Custom(Optimizer):
    """Keeps what ``make`` says of each parameter; saves it as it is kept."""

    def __init__(self, model: nn.Module, make: Any) -> None:
        super().__init__(list(model.parameters()), {"lr": 0.1})
        for parameter in model.parameters():
            self.state[parameter] = make(parameter)

    def step(self, closure: Any = None) -> None:
        """Nothing here steps it."""


class Projector:
    def __init__(self, parameter: Tensor) -> None:
        self.matrix = torch.arange(float(parameter.shape[0] * 2)).view(-1, 2)
        self.rank = 2
        self.history = [torch.zeros(3), {"deep": torch.ones(1000)}]
        self.function = lambda: None


def body() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)
    )


LAYOUTS = {
    "low rank": lambda p: {
        "moment": torch.zeros(2, p.shape[1]) if p.ndim == 2 else torch.zeros_like(p)
    },
    "low rank right": lambda p: {
        "moment": torch.zeros(p.shape[0], 2) if p.ndim == 2 else torch.zeros_like(p)
    },
    "rows and columns": lambda p: {f"factor_{i}": torch.zeros(n) for i, n in enumerate(p.shape)},
    "rows and columns kept": lambda p: {
        f"factor_{i}": torch.zeros([n if i == j else 1 for j in range(p.ndim)])
        for i, n in enumerate(p.shape)
    },
    "preconditioners": lambda p: {f"left_{i}": torch.eye(n) for i, n in enumerate(p.shape)},
    "a list of preconditioners": lambda p: {"sides": [torch.eye(n) for n in p.shape]},
    "codes": lambda p: {"codes": p.detach().to(torch.uint8), "table": TABLE},
    "blocks": lambda p: {"absmax": torch.zeros(-(-p.numel() // 4))},
    "codes of what is large": lambda p: {
        "moment": p.detach().to(torch.uint8) if p.numel() > 10 else torch.zeros_like(p)
    },
    "codes of matrices": lambda p: {
        "moment": p.detach().bfloat16() if p.ndim > 1 else torch.zeros_like(p)
    },
    "bfloat16": lambda p: {"moment": torch.zeros_like(p, dtype=torch.bfloat16)},
    "float64": lambda p: {"moment": torch.zeros_like(p, dtype=torch.float64)},
    "its own float32 copy": lambda p: {"master": p.detach().float(), "moment": torch.zeros_like(p)},
    "its own gradient": lambda p: {"accumulated": p.grad},
    "flat": lambda p: {"moment": torch.zeros(p.numel())},
    "a history": lambda p: {"moments": torch.zeros(3, *p.shape)},
    "a projector": lambda p: {"projector": Projector(p), "moment": torch.zeros_like(p)},
    "a bare tensor": lambda p: torch.zeros_like(p),
    "a shared counter": lambda p: {"step": COUNTER, "moment": torch.zeros_like(p)},
    "aliases within": lambda p: (lambda t: {"moment": t, "view": t.view(-1)})(p.detach() * 0),
    "aliases within, of matrices alone": lambda p: (
        lambda t: {"moment": t, "view": t.view(-1)} if p.dim() > 1 else {"moment": t}
    )(p.detach() * 0),
}
TABLE = torch.zeros(4)
COUNTER = torch.zeros(())


@pytest.mark.parametrize("kind", LAYOUTS)
def test_any_layout_passes_as_it_is_and_as_it_was_saved(kind: str) -> None:
    model = body()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = Custom(model, LAYOUTS[kind])
    assert_optimizer_state(optimizer, model)
    assert_optimizer_state(optimizer, model, copy.deepcopy(optimizer.state_dict()))


def test_moments_handed_round_are_seen_whoever_keeps_them() -> None:
    model = body()
    optimizer = Custom(model, lambda p: {"moment": p.detach().clone()})
    state = optimizer.state
    state[model[0].weight], state[model[2].weight] = state[model[2].weight], state[model[0].weight]
    assert failure(assert_optimizer_state, optimizer, model) == whole(r"""
        state does not fit: {0,2}.weight (Sequential)

          0.weight  expected state moment of 4x4 float32 cpu, found 6x4 float32 cpu: \
        wrong shape, that of 2.weight
          2.weight  expected state moment of 6x4 float32 cpu, found 4x4 float32 cpu: \
        wrong shape, that of 0.weight
        """)


def test_one_shape_of_another_parameter_is_seen() -> None:
    model = body()
    optimizer = Custom(model, lambda p: {"moment": p.detach().clone()})
    optimizer.state[model[1].bias]["moment"] = torch.zeros(6)
    said = (
        "1.bias  expected state moment of 4 float32 cpu, found 6 float32 cpu: wrong shape, that of "
    )
    assert said in (failure(assert_optimizer_state, optimizer, model))


def test_the_shape_of_another_parameter_that_no_size_of_blocks_explains_is_seen() -> None:
    model = nn.ParameterDict({"a": torch.ones(8), "b": torch.ones(4), "c": torch.ones(6)})
    optimizer = Custom(model, lambda p: {"moment": p.detach().clone()})
    optimizer.state[model["a"]]["moment"] = torch.zeros(4)
    assert failure(assert_optimizer_state, optimizer, model) == whole("""
        state does not fit: a (ParameterDict)

          a  expected state moment of 8 float32 cpu, found 4 float32 cpu: wrong shape, that of b
        """)
    for name, blocks in (("b", 2), ("c", 3)):  # a value for each two elements
        optimizer.state[model[name]]["moment"] = torch.zeros(blocks)
    assert_optimizer_state(optimizer, model)


@pytest.mark.parametrize(
    ("shapes", "kept"),
    [
        # each shape is another parameter's as well
        ([(4, 6), (4,), (6, 6)], [(4,), (4,), (6,)]),  # statistics of rows
        ([(2, 2), (3, 2, 2)], [(3, 2, 2), (3, 3, 2, 2)]),  # a history of three
        ([(2, 2), (2, 2, 3)], [(2, 2, 3), (2, 2, 3, 3)]),
    ],
)
def test_a_shape_of_another_parameter_that_its_own_explains_passes(
    shapes: list[tuple[int, ...]], kept: list[tuple[int, ...]]
) -> None:
    model = nn.ParameterList([torch.ones(shape) for shape in shapes])
    optimizer = Custom(model, lambda p: {})
    for parameter, shape in zip(model, kept, strict=True):
        optimizer.state[parameter]["moment"] = torch.zeros(shape)
    assert_optimizer_state(optimizer, model)


def test_one_dtype_or_device_off_among_many_is_seen() -> None:
    model = body()
    optimizer = Custom(model, lambda p: {"moment": torch.zeros_like(p, dtype=torch.bfloat16)})
    optimizer.state[model[0].weight]["moment"] = torch.zeros(4, 4)
    optimizer.state[model[3].bias]["moment"] = torch.zeros(6, dtype=torch.bfloat16, device="meta")
    assert failure(assert_optimizer_state, optimizer, model) == whole(
        r"""
        state does not fit: 0.weight, 3.bias (Sequential)

          0.weight  expected state moment of 4x4 bfloat16 cpu, found 4x4 float32 cpu: wrong dtype: \
        it is unlike that of the other parameters
          3.bias    expected state moment on cpu, found 6 bfloat16 meta: wrong device: \
        it is unlike that of the other parameters
        """
    )


def test_an_optimizer_that_packs_its_state_on_saving_is_compared_with_what_it_saves() -> None:
    class Packed(Adam):
        def state_dict(self) -> dict[str, Any]:
            plain = super().state_dict()
            state = {i: {"packed": dict(kept)} for i, kept in plain["state"].items()}
            return {**plain, "state": state}

    model = Net()
    optimizer = stepped(model, Packed(model.named_parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    assert_optimizer_state(optimizer, model, saved)
    optimizer.state[model.a.weight]["exp_avg"].add_(1)
    assert failure(assert_optimizer_state, optimizer, model, saved) == whole("""
        state not as saved: a.weight (Net)

          a.weight  packed.exp_avg not as saved for a.weight

          hint: load it again, and keep it from then on: optimizer.load_state_dict(saved)
        """)


def test_an_optimizer_around_another_is_compared_with_the_part_of_it_that_was_saved() -> None:
    class Around:
        def __init__(self, inner: Optimizer) -> None:
            self.inner = inner
            self.param_groups, self.state = inner.param_groups, inner.state

        def state_dict(self) -> dict[str, Any]:
            return {"inner": self.inner.state_dict(), "scale": 2.0}

    model = Net()
    optimizer: Any = Around(stepped(model, Adam(model.parameters())))
    saved = copy.deepcopy(optimizer.state_dict())["inner"]
    assert_optimizer_state(optimizer, model, saved)
    optimizer.state[model.a.weight]["exp_avg"].add_(1)
    assert "a.weight  exp_avg not as saved for position 0" in failure(
        assert_optimizer_state, optimizer, model, saved
    )


@pytest.mark.parametrize("parts", [0, 2])
def test_an_optimizer_that_saves_none_or_several_others_is_compared_by_what_it_keeps(
    parts: int,
) -> None:
    class Around(Adam):
        def state_dict(self) -> dict[str, Any]:
            return {f"part {number}": super(Around, self).state_dict() for number in range(parts)}

    model = Net()
    optimizer = stepped(model, Around(model.parameters()))
    saved = copy.deepcopy(Adam.state_dict(optimizer))
    assert_optimizer_state(optimizer, model, saved)
    optimizer.state[model.a.weight]["exp_avg"].add_(1)
    assert "a.weight  exp_avg not as saved for position 0" in failure(
        assert_optimizer_state, optimizer, model, saved
    )


def test_what_an_optimizer_around_another_packs_on_saving_is_compared_as_it_was_saved() -> None:
    class Packed(Adam):
        def state_dict(self) -> dict[str, Any]:
            plain = super().state_dict()
            state = {i: {"packed": dict(kept)} for i, kept in plain["state"].items()}
            return {"inner": {**plain, "state": state}}

    model = Net()
    optimizer = stepped(model, Packed(model.parameters()))
    assert_optimizer_state(optimizer, model, copy.deepcopy(optimizer.state_dict())["inner"])


CHANGES: dict[str, Any] = {
    "projector.matrix": lambda kept: kept["projector"].matrix.add_(1),
    "projector.rank": lambda kept: setattr(kept["projector"], "rank", 3),
    "projector.history[1].deep": lambda kept: kept["projector"].history[1]["deep"][500].add_(1),
    "projector, projector.matrix, projector.rank, projector.history[0] and 2 more": (
        lambda kept: kept.pop("projector")
    ),
    "projector.history[2]": lambda kept: kept["projector"].history.append(None),
}


@pytest.mark.parametrize("keys", CHANGES)
def test_objects_are_compared_leaf_by_leaf(keys: str) -> None:
    model = body()
    optimizer = Custom(model, LAYOUTS["a projector"])
    saved = copy.deepcopy(optimizer.state_dict())
    assert_optimizer_state(optimizer, model, saved)
    CHANGES[keys](optimizer.state[model[0].weight])
    assert failure(assert_optimizer_state, optimizer, model, saved) == whole(f"""
        state not as saved: 0.weight (Sequential)

          0.weight  {keys} not as saved for position 0

          hint: load it again, and keep it from then on: optimizer.load_state_dict(saved)
        """)


# --- memory of its own -------------------------------------------------------------------------


def test_state_on_shared_memory() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    state = optimizer.state
    state[model.a.weight]["exp_avg"] = state[model.b.weight]["exp_avg"]
    state[model.a.bias]["exp_avg_sq"] = model.a.bias.data
    state[model.b.bias]["exp_avg"] = model.b.bias.grad
    assert failure(assert_optimizer_state, optimizer, model) == whole("""
        state shared: a.bias, b.bias, a.weight, b.weight (Net)

          a.bias              exp_avg_sq is the parameter's own memory
          b.bias              exp_avg is memory of the gradient
          a.weight, b.weight  exp_avg on the same memory

          hint: give each a tensor of its own: optimizer.state[parameter][key] = value.clone()
        """)
    for kept in state.values():
        kept.update((key, value.clone()) for key, value in list(kept.items()))
    assert_optimizer_state(optimizer, model)


def test_one_dict_for_two_parameters_and_overlapping_slices() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    assert_optimizer_state(optimizer, model, saved)
    optimizer.state[model.a.weight] = optimizer.state[model.b.weight]
    flat = torch.zeros(3)
    optimizer.state[model.a.bias]["exp_avg"] = flat[:2]
    optimizer.state[model.b.bias]["exp_avg"] = flat[1:]
    assert failure(assert_optimizer_state, optimizer, model).splitlines()[2:4] == [
        "  a.bias, b.bias      exp_avg on the same memory",
        "  a.weight, b.weight  exp_avg and exp_avg_sq on the same memory",
    ]
    assert "state shared" in failure(assert_optimizer_state, optimizer, model, saved)


def test_one_value_for_all_elements() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    optimizer.state[model.a.weight]["exp_avg"] = torch.zeros(1).expand(2, 2)
    assert failure(assert_optimizer_state, optimizer, model) == whole("""
        state shared: a.weight (Net)

          a.weight  exp_avg: its elements share memory
        """)


def test_slices_of_one_buffer_are_no_shared_memory() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    flat, start = torch.zeros(2, 12), 0
    for parameter in model.parameters():
        for row, key in enumerate(("exp_avg", "exp_avg_sq")):
            piece = flat[row, start : start + parameter.numel()].view_as(parameter)
            optimizer.state[parameter][key] = piece
        start += parameter.numel()
    assert_optimizer_state(optimizer, model)


def test_shared_moments_of_any_optimizer_are_seen() -> None:
    model = Net()
    optimizer = Custom(model, lambda p: {"moment": p.detach() * 0, "master": p.detach().clone()})
    optimizer.state[model.b.weight]["moment"] = optimizer.state[model.a.weight]["moment"]
    optimizer.state[model.b.bias]["moment"] = optimizer.state[model.b.bias]["master"]
    optimizer.state[model.a.bias]["master"] = model.a.bias.data  # the others' are not
    assert failure(assert_optimizer_state, optimizer, model).splitlines()[2:5] == [
        "  a.bias              master is the parameter's own memory",
        "  a.weight, b.weight  moment on the same memory",
        "  b.bias              moment, master on the same memory",
    ]
    optimizer.state[model.b.bias]["moment"] = model.a.bias.data
    assert failure(assert_optimizer_state, optimizer, model).splitlines()[3].split() == [
        *("b.bias", "moment", "is", "memory", "of", "a.bias")
    ]


# --- state that hangs on a tensor that no group holds ------------------------------------------


def replaced(model: nn.Module, optimizer: Optimizer, *names: str) -> list[nn.Parameter]:
    olds = []
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        old = getattr(module, leaf)
        new = nn.Parameter(old.detach().clone())
        setattr(module, leaf, new)
        held = optimizer.param_groups[0]["params"]
        held[[id(p) for p in held].index(id(old))] = new
        olds.append(old)
    return olds


def test_state_of_a_replaced_parameter_is_lost() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    olds = replaced(model, optimizer, "b.weight")
    assert failure(assert_optimizer_state, optimizer, model) == whole(
        r"""
        state lost: b.weight (Net)

          b.weight  none, and a tensor of its shape that no group holds has step, exp_avg, \
        exp_avg_sq

          hint: a replaced parameter takes its state along: \
        optimizer.state[new] = optimizer.state.pop(old)
        """
    )
    optimizer.state[model.b.weight] = optimizer.state.pop(olds[0])
    assert_optimizer_state(optimizer, model)


def test_state_of_all_parameters_lost_is_not_an_optimizer_without_state() -> None:
    model = Net()
    optimizer = stepped(model, torch.optim.Adagrad(model.parameters()))
    saved = copy.deepcopy(optimizer.state_dict())
    replaced(model, optimizer, "a.weight", "a.bias", "b.weight", "b.bias")
    head = "state lost: a.weight, a.bias, b.weight, b.bias (Net)"
    assert failure(assert_optimizer_state, optimizer, model).splitlines()[0] == head
    assert failure(assert_optimizer_state, optimizer, model, saved).splitlines()[0] == head


def test_state_that_no_group_reaches_and_no_parameter_lacks() -> None:
    model = Net()
    optimizer = stepped(model, Adam(model.parameters()))
    replaced(model, optimizer, "b.weight")
    stepped(model, optimizer)
    with pytest.raises(KeyError):
        optimizer.state_dict()  # why it is a finding
    assert failure(assert_optimizer_state, optimizer, model) == whole("""
        state lost: Adam (Net)

          Adam  step, exp_avg, exp_avg_sq of Parameter 2x2 float32 cpu, which no group holds
        """)
    optimizer = stepped(model, Adam(model.parameters()))
    del optimizer.param_groups[0]["params"][1]
    assert failure(assert_optimizer_state, optimizer, model).splitlines()[2] == (
        "  a.bias  step, exp_avg, exp_avg_sq: no group holds the parameter any more"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_optimizer_that_keeps_its_state_by_masters_passes(dtype: torch.dtype) -> None:
    model = Net().to(dtype)
    optimizer = Custom(model, lambda p: {})
    optimizer.state.clear()
    for parameter in model.parameters():
        optimizer.state[parameter.detach().clone().float()] = {
            "moment": torch.zeros(parameter.shape)
        }
    assert_optimizer_state(optimizer, model)


# --- against a replay --------------------------------------------------------------------------


SHAPES = [(2,), (3,), (2, 3), (3, 2), (2, 2), (1,), ()]
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in OPTIMIZERS if kind != "LBFGS"),
    ("Adam", {"amsgrad": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
]
#: The counters, which may be of any dtype and place.
SCALARS = {"step", "eta", "mu", "mu_product"}
#: What goes wrong with the state after the replay: of one parameter, or of two.
FAULTS = [
    *("none", "swapped", "shared", "missing"),
    *("cast", "resized", "changed", "zeroed", "counted", "cleared", "added"),
]


def do(fault: str, optimizer: Optimizer, one: nn.Parameter, two: nn.Parameter, at: int) -> bool:
    """Do one thing to the state of a parameter; whether it now has memory of another's."""
    state = optimizer.state
    mine, theirs = state[one], state[two]
    keys = [k for k, v in mine.items() if isinstance(v, Tensor)]
    if fault == "swapped":
        state[one], state[two] = theirs, mine
    elif fault == "missing":
        del state[one]
    elif fault == "added":  # by an optimizer with other options, say
        mine["momentum"] = torch.zeros_like(one)
    if fault in ("cast", "resized", "shared", "counted"):
        keys = [k for k in keys if (k in SCALARS) == (fault == "counted")]
    if not keys:
        return False
    key = keys[at % len(keys)]
    if fault == "cast":
        mine[key] = mine[key].to(torch.float16)
    elif fault == "resized":
        mine[key] = torch.zeros(5, 7)
    elif fault in ("changed", "counted"):
        mine[key] = mine[key] + 1
    elif fault == "zeroed":
        mine[key] = torch.zeros_like(mine[key])
    elif fault == "cleared":
        del mine[key]
    elif fault == "shared" and key in theirs:
        mine[key] = theirs[key]
        return True
    return False


def fits(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    """Whether each tensor that torch's own optimizers keep is as large as they make it."""
    shape = tuple(parameter.shape)
    of = {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, *shape[-1:])}
    return all(
        (tuple(value.shape), value.dtype) == (of.get(key, shape), parameter.dtype)
        for key, value in state.items()
        if isinstance(value, Tensor) and key not in (*SCALARS, "momentum")
    )


def same(parameter: Tensor, one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two states have one content: the keys, each value, and the dtypes."""
    if set(one) != set(two):
        return False
    for key, a in one.items():
        b = two[key]
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            if a != b:
                return False
            continue
        as_wide = a.dtype == b.dtype or not (a.dim() or not parameter.dim())
        if not as_wide or a.shape != b.shape or not torch.equal(a.double(), b.double()):
            return False
    return True


def blamed(optimizer: Optimizer, model: nn.Module, *saved: object) -> set[str]:
    try:
        assert_optimizer_state(optimizer, model, *saved)
    except ParamCheckError as error:
        return {name for finding in error.findings for name in finding.names}
    return set()


@pytest.mark.parametrize("fault", FAULTS)
@settings(max_examples=settings.default.max_examples // 5)
@given(
    kind=st.sampled_from(KINDS),
    shapes=st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4),
    reached=st.lists(st.booleans(), min_size=4, max_size=4).map(lambda r: [True, *r[1:]]),
    named=st.booleans(),
    split=st.sampled_from([0, 0, 1, 2]),
    order=st.just([0, 1, 2, 3]) | st.permutations(range(4)),
    took=st.sampled_from(["loaded", "loaded", "adopted", "loaded as float64"]),
    behind=st.sampled_from([False, False, True]),
    at=st.integers(0, 3),
)
def test_state_against_a_replay(
    kind: tuple[str, dict[str, Any]],
    shapes: list[tuple[int, ...]],
    reached: list[bool],
    named: bool,
    split: int,
    order: list[int],
    took: str,
    behind: bool,
    at: int,
    fault: str,
) -> None:
    """One optimizer takes over the state of another, both make the next step, and one thing
    is done to it: what it then has is compared by hand, parameter by parameter."""
    torch.manual_seed(0)
    names = [f"p{i}" for i in range(len(shapes))]
    trained = nn.ParameterDict(
        {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}
    )
    gradients = [
        {n: torch.randn(trained[n].shape) for n, has in zip(names, reached, strict=False) if has}
        for _ in range(2)
    ]

    def build(model: nn.Module, order: Sequence[str]) -> Optimizer:
        held: list[Any] = [(n, model.get_parameter(n)) for n in order]
        held = held if named else [parameter for _, parameter in held]
        groups = [held[:split], held[split:]]
        options = [{"params": group} for group in groups if group]
        built: Optimizer = getattr(torch.optim, kind[0])(options, **kind[1])
        return built

    def step(model: nn.Module, optimizer: Optimizer, number: int) -> None:
        for name, parameter in model.named_parameters():
            gradient = gradients[number].get(name)
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()

    first = build(trained, names)
    step(trained, first, 0)
    again = copy.deepcopy(trained)
    if took == "loaded as float64":
        again.double()
    moved = [names[i] for i in order if i < len(names)]
    optimizer = build(again, moved)
    if took == "adopted":
        for name in names:
            kept = copy.deepcopy(first.state[trained[name]])
            if kept:
                optimizer.state[again[name]] = kept
    else:
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
    if took == "adopted" or (took == "loaded" and moved == names):
        step(trained, first, 1)
        if not behind:
            step(again, optimizer, 1)
    saved = copy.deepcopy(first.state_dict())
    picked = [again[names[i]] for i in order if i < len(names)]
    shares = do(fault, optimizer, picked[0], picked[1], at)

    assume(any(optimizer.state.values()))  # else there is nothing to check, which is an error

    expected = set()
    wrong = {n for n in names if not fits(again[n], optimizer.state[again[n]])}
    if shares:
        wrong |= {n for n in names if again[n] is picked[0] or again[n] is picked[1]}
    for position, name in enumerate(moved):
        twin = names.index(name) if named else position
        was = saved["state"].get(twin, {})
        if not same(again[name], optimizer.state[again[name]], was):
            expected.add(name)
    assert blamed(optimizer, again) == wrong
    assert blamed(optimizer, again, saved) == expected | wrong


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ([[0], [1]], []),
        ([[0, 1], [1]], ["1.weight: state on several ranks: on ranks 0 and 1"]),
        ([[0], []], ["1.weight: no state: on no rank"]),
    ],
    ids=["each-on-one", "on-both", "on-none"],
)
def test_state_that_is_spread_over_ranks(
    held: list[list[int]], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    slots = read_slots(stepped(model, SGD(model.parameters(), lr=0.1, momentum=0.9)))
    heard = {rank: [f"{number}.weight" for number in own] for rank, own in enumerate(held)}
    monkeypatch.setattr(optimizer_zero, "exchange", lambda mine: heard)
    found = optimizer_zero.spread_state(slots, slots, take_inventory(model))

    assert [f"{f.names[0]}: {f.problem}: {f.found}" for f in found] == told


def test_no_size_of_blocks_explains_the_shape_of_another() -> None:
    model = nn.ParameterDict({"a": torch.ones(4), "b": torch.ones(6)})
    sizes = {4: 3, 6: 4}
    optimizer = Custom(model, lambda p: {"moment": torch.zeros(sizes[p.numel()])})

    assert (
        "b  expected state moment of 6 float32 cpu, found 4 float32 cpu: wrong shape, that of a"
    ) in failure(assert_optimizer_state, optimizer, model)
