"""``assert_registered``: what hides, where, and what is right to be where it is."""

# ruff: noqa: E501  (whole messages, as they are printed)

from __future__ import annotations

import functools
import itertools
import operator
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import dedent
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pytest_paramcheck import assert_registered
from pytest_paramcheck.parameters.running.graph import walk_leaves
from pytest_paramcheck.parameters.subject import hidden
from pytest_paramcheck.parameters.subject.hidden import hidden_tensors
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import failure, usage


class Model(nn.Module):
    def __init__(self, **kept: Any) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def paths(model: nn.Module) -> list[str]:
    return [item.path for item in hidden_tensors(take_inventory(model)).tensors]


def parameter(size: int = 1) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size))


@dataclass(slots=True, frozen=True)
class Config:
    weight: object


def test_layers_in_a_list() -> None:
    assert failure(assert_registered, Model(layers=[nn.Linear(2, 2) for _ in range(3)])) == dedent("""\
        not registered: layers[{0..2}].weight, layers[{0..2}].bias (Model)

          layers[{0..2}].weight  Parameter 2x2 float32 cpu: Linear in a list
          layers[{0..2}].bias    Parameter 2 float32 cpu: Linear in a list

          hint: self.layers = nn.ModuleList(...)""")


def test_every_place() -> None:
    bias = parameter()
    model = Model(
        pool=(parameter(),),
        queue=deque([parameter()]),
        table={"head": nn.Linear(1, 1), 3: parameter()},
        config=Config(parameter()),
        plain=parameter(),
        call=functools.partial(torch.add, parameter()),
        closure=lambda x: x + bias,
    )
    model.head.register_forward_hook(functools.partial(lambda p, m, i, o: o + p, parameter()))
    assert failure(assert_registered, model) == dedent("""\
        not registered: pool[0], queue[0], table['head'].weight, table['head'].bias and 6 more (Model)

          pool[0]                               Parameter 1 float32 cpu: in a tuple
          queue[0]                              Parameter 1 float32 cpu: in a deque
          table['head'].weight                  Parameter 1x1 float32 cpu: Linear in a dict
          table['head'].bias                    Parameter 1 float32 cpu: Linear in a dict
          table[3]                              Parameter 1 float32 cpu: in a dict
          config.weight                         Parameter 1 float32 cpu: in a Config object
          plain                                 Parameter 1 float32 cpu: in a plain attribute
          call.args[0]                          Parameter 1 float32 cpu: held by a functools.partial
          closure.bias                          Parameter 1 float32 cpu: in a function's closure
          head.<forward_hook <lambda>>.args[0]  Parameter 1 float32 cpu: held by a hook

          hint: self.pool = nn.ParameterList(...)
          hint: self.queue = nn.ParameterList(...)
          hint: self.table = nn.ModuleDict(...)""")
    assert paths(model) == [
        "pool[0]",
        "queue[0]",
        "table['head'].weight",
        "table['head'].bias",
        "table[3]",
        "config.weight",
        "plain",
        "call.args[0]",
        "closure.bias",
        "head.<forward_hook <lambda>>.args[0]",
    ]


def test_a_parameter_that_was_converted_after_it_was_wrapped() -> None:
    lost = Model(scale=nn.Parameter(torch.ones(2, dtype=torch.float64)).to(torch.float32))
    assert failure(assert_registered, lost) == dedent("""\
        not registered: scale (Model)

          scale  Tensor 2 float32 cpu, computed by ToCopyBackward0: the parameter it was computed from is lost

          hint: convert first, then wrap: nn.Parameter(x.to(...)), not nn.Parameter(x).to(...)""")


def test_a_plain_tensor_that_requires_a_gradient() -> None:
    assert failure(assert_registered, Model(scale=torch.ones(2, requires_grad=True))) == dedent("""\
        not registered: scale (Model)

          scale  Tensor 2 float32 cpu that requires a gradient: in a plain attribute

          hint: self.scale = nn.Parameter(...)""")


def test_plain_tensors_where_they_are_asked_for() -> None:
    model = Model(table=torch.ones(2), cache={"mask": torch.ones(3)})
    assert_registered(model)
    assert failure(assert_registered, model, tensors=True) == dedent("""\
        not registered: table, cache['mask'] (Model)

          table          plain tensor, Tensor 2 float32 cpu: in a plain attribute
          cache['mask']  plain tensor, Tensor 3 float32 cpu: in a dict

          hint: self.register_buffer('table', ...)
          hint: self.register_buffer('name', ...)""")


def test_buffers_of_a_hidden_module() -> None:
    assert failure(assert_registered, Model(norms=[nn.BatchNorm1d(2, affine=False)])).splitlines()[
        2
    ] == ("  norms[0].running_mean         buffer, Tensor 2 float32 cpu: BatchNorm1d in a list")


def test_a_parameter_on_the_class() -> None:
    class Shared(nn.Module):
        scale = nn.Parameter(torch.ones(1))

    assert failure(assert_registered, Shared()) == dedent("""\
        not registered: scale (Shared)

          scale  Parameter 1 float32 cpu: an attribute of the class Shared, shared by all its instances

          hint: create it per instance, in __init__: self.scale = ...""")


def test_second_references_are_fine() -> None:
    model = Model(extra=[nn.ReLU(), nn.Dropout()])
    model.again = [model.head, model.head.weight]
    model.optimizer = torch.optim.Adam(model.parameters())
    model.scheduler = torch.optim.lr_scheduler.StepLR(model.optimizer, 1)
    model(torch.ones(1, 2)).sum().backward()
    model.optimizer.step()
    model.grads = {name: p.grad for name, p in model.named_parameters()}
    model.cache = {model.head.weight: 1}
    model.me = (model,)
    model.activation = model(torch.ones(1, 2))
    assert_registered(model)


def test_what_torch_computes_anew_is_fine() -> None:
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(2, 2))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    pruned = prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)
    lstm = nn.utils.parametrizations.weight_norm(nn.LSTM(2, 2), "weight_hh_l0")
    with torch.no_grad():
        for module in (old, new, pruned, lstm):
            module(torch.ones(1, 2))
    assert_registered(nn.Sequential(old, new, pruned, lstm, nn.LSTM(2, 2)), tensors=True)


def test_wrapped_and_traced_models_are_fine() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    for wrapped in (
        torch.optim.swa_utils.AveragedModel(model),
        torch.fx.symbolic_trace(model),
        nn.DataParallel(model),
        nn.Transformer(8, 2, 1, 1, 8, batch_first=True),
    ):
        assert_registered(wrapped, tensors=True)


def test_a_class_that_moves_its_own_tensors_is_trusted() -> None:
    class Metric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = torch.zeros(1)

        def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
            self.total = fn(self.total)
            return super()._apply(fn, recurse)

    assert_registered(nn.Sequential(nn.Linear(1, 1), Metric()), tensors=True)


def test_no_code_of_the_user_runs() -> None:
    class Hostile:
        def __init__(self) -> None:
            self.__dict__["held"] = parameter()

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        def __hash__(self) -> int:
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

    hostile = object.__new__(Hostile)
    dictionary = next(c for c in vars(Hostile).values() if type(c).__name__ == "getset_descriptor")
    dictionary.__get__(hostile)["held"] = parameter()

    class Listing(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise RuntimeError

    assert paths(Model(hostile=hostile, listing=Listing([parameter()]))) == [
        "hostile.held",
        "listing[0]",
    ]


def test_cycles_end() -> None:
    ring: list[Any] = [parameter()]
    ring.append({"ring": ring})
    assert paths(Model(ring=ring)) == ["ring[0]"]


def _one_attribute_more(model: nn.Sequential) -> None:
    model[2].extra = 1
    model[2].__dict__["table"] = torch.ones(2)


def _another_name(model: nn.Sequential) -> None:
    del model[2].in_features
    model[2].__dict__["table"] = torch.ones(2)


def _another_type(model: nn.Sequential) -> None:
    model[2].in_features = torch.ones(2)


def _an_order_of_its_own(model: nn.Sequential) -> None:
    state = model[2].__dict__
    state["training"] = state.pop("training")
    state["table"] = torch.ones(2)


def _without_hooks(model: nn.Sequential) -> None:
    del model[2]._state_dict_hooks
    model[2].__dict__["table"] = torch.ones(2)


def _a_hook(model: nn.Sequential) -> None:
    table = torch.ones(2)
    model[2].register_forward_hook(lambda module, args, output: output * table)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_one_attribute_more, "2.table"),
        (_another_name, "2.table"),
        (_another_type, "2.in_features"),
        (_an_order_of_its_own, "2.table"),
        (_without_hooks, "2.table"),
        (_a_hook, "2.<forward_hook <lambda>>.table"),
    ],
)
def test_one_layer_among_others_of_its_class(
    change: Callable[[nn.Sequential], None], path: str
) -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    change(model)
    assert [item.path for item in hidden_tensors(take_inventory(model)).tensors] == [path]


def test_a_huge_container_of_objects_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "LARGE", 3)
    assert_registered(Model(numbers=[1, 2, 3, 4]))
    array = np.empty(3, dtype=object)
    array[0] = parameter()
    for three in ([parameter(), 1, 2], array):
        assert len(paths(Model(items=three))) == 1
    assert failure(assert_registered, Model(items=[object()] * 4)) == dedent("""\
        not checked: items (Model)

          items  a container of more than a million items, some of them objects

          hint: keep tensors out of it, or name it in allow=""")


class TestGraph:
    def test_parameters_that_only_the_graph_knows(self) -> None:
        elsewhere = {"scale": parameter(2)}

        class Uses(Model):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                fresh = nn.Parameter(torch.ones(2))
                return super().forward(x) * elsewhere["scale"] + fresh

        x = torch.ones(1, 2)
        assert (
            failure(assert_registered, Uses(), lambda model: model(x).sum())
            == dedent("""\
            not registered: <graph leaf {0,1}> (Uses)

              <graph leaf 0>  Parameter 2 float32 cpu, used by AddBackward0: made anew in each call: what it learns is thrown away
              <graph leaf 1>  Parameter 2 float32 cpu, used by MulBackward0: it gets gradients, and no parameters() call sees it

              hint: create it once, in __init__: self.weight = nn.Parameter(...)
              hint: assign it to an attribute of the module that uses it: self.weight = nn.Parameter(...)""")
        )

    def test_activations_and_inputs_that_require_a_gradient_are_fine(self) -> None:
        class Checkpoints(Model):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                hidden = self.head(x).detach().requires_grad_()
                self.kept = hidden
                return self.head(hidden + torch.ones(2).requires_grad_()) + x

        x = torch.ones(1, 2, requires_grad=True)
        model = Checkpoints()
        assert_registered(model, lambda m: m(x).sum())
        assert not hasattr(model, "kept")
        assert model.head.weight.grad is None

    def test_what_a_custom_function_keeps_as_variable_is_no_leaf(self) -> None:
        constant = parameter(2)  # never gets a gradient: it is an attribute of a node

        class Scaled(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                ctx.variable = constant
                return x * 2

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
                return grad * 2

        x = torch.ones(1, 2)
        assert_registered(Model(), lambda model: Scaled.apply(model(x)).sum())

    def test_a_loss_without_a_graph(self) -> None:
        assert (
            failure(
                assert_registered,
                Model().requires_grad_(False),
                lambda m: m(torch.ones(1, 2)).sum(),
            )
            == dedent("""\
            the loss has no graph (Model)

              Tensor scalar float32 cpu: it was computed under no_grad, detached, or from frozen parameters only""")
        )

    def test_the_error_of_the_loss_comes_through(self) -> None:
        def loss(model: nn.Module) -> torch.Tensor:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            assert_registered(Model(), loss)


def test_allowed_paths() -> None:
    model = Model(teacher=[nn.Linear(2, 2)], layers=[nn.Linear(2, 2)])
    assert "teacher" not in failure(assert_registered, model, allow="teacher")
    assert_registered(model, allow=["teacher", "layers[0].*"])
    assert (
        usage(assert_registered, model, allow=["layer"])
        == "allow='layer' names nothing that is hidden; leave it out"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: assert_registered({"a": torch.ones(1)}),  # type: ignore[arg-type]
            (
                "assert_registered looks into an nn.Module, not dict: "
                "a mapping has nothing but its entries"
            ),
        ),
        (
            lambda: assert_registered(nn.ReLU()),
            "ReLU has no parameters and no buffers, and hides none: there is nothing to check",
        ),
        (
            lambda: assert_registered(Model(), 3),  # type: ignore[arg-type]
            "loss_fn is called with the model, and int is not a function: pass lambda model: ...",
        ),
        (
            lambda: assert_registered(Model(), lambda m: 3),  # type: ignore[arg-type,return-value]
            (
                "loss_fn must return the loss, one tensor: nothing can be followed from what it "
                "returned"
            ),
        ),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    assert usage(call) == message


def _generator(kept: object) -> Iterator[int]:
    yield 1
    yield id(kept)


def _started() -> Iterator[int]:
    generator = _generator(parameter())
    next(generator)
    return generator


def _cached() -> Callable[[], nn.Parameter]:
    function = functools.lru_cache(parameter)
    function()
    return function


def _array() -> Any:
    array = np.empty((2, 2), dtype=object)
    array[1, 0] = parameter()
    return array


def _fields() -> Any:
    array = np.zeros(2, dtype=[("kept", "O"), ("size", "f4")])
    array[1]["kept"] = parameter()
    return array


class Unreadable(Mapping[str, Any]):
    """A mapping whose own code raises: what it stores is found past it."""

    def __init__(self) -> None:
        self.stored = [parameter()]

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: types.SimpleNamespace(kept=parameter()), "held.kept"),
        (_array, "held.flat[2]"),
        (_fields, "held.flat[1][0]"),
        (lambda: iter([parameter()]), "held<list_iterator>[0]"),
        (lambda: zip([1], [parameter()], strict=True), "held<zip>[1]<list_iterator>[0]"),
        (lambda: {"a": parameter()}.values(), "held<dict_values>['a']"),
        (lambda: itertools.cycle([parameter()]), "held<cycle><list_iterator>[0]"),
        (lambda: _generator(parameter()), "held.kept"),
        (_started, "held.kept"),
        (_cached, "held<_lru_cache_wrapper>"),
        (lambda: types.CellType(parameter()), "held<cell>"),
        (lambda: types.MappingProxyType({"a": parameter()}), "held<mappingproxy>['a']"),
        (lambda: types.MappingProxyType(Unreadable()), "held<mappingproxy>.stored[0]"),
        (lambda: parameter().add, "held.__self__"),
        (
            lambda: operator.methodcaller("add", parameter()),
            f"held<methodcaller>[{int(sys.version_info >= (3, 13))}]",
        ),
        (
            lambda: functools.reduce(lambda inner, _: [inner], range(60), parameter()),
            "held" + "[0]" * 60,
        ),
    ],
)
def test_every_holder_is_entered(build: Callable[[], Any], path: str) -> None:
    assert paths(Model(held=build())) == [path]
    assert failure(assert_registered, Model(held=build())).startswith("not registered: held")
    registered = Model(held=build())
    for number, item in enumerate(hidden_tensors(take_inventory(registered)).tensors):
        registered.register_parameter(f"p{number}", cast("nn.Parameter", item.tensor))
    assert_registered(registered)


def test_looking_advances_no_iterator() -> None:
    model = Model(items=iter([parameter(), 1]), generator=_generator(1), mapped=map(str, [1]))
    hidden_tensors(take_inventory(model))

    held: Any = model
    assert len(list(held.items)) == 2
    assert next(held.generator) == 1
    assert next(held.mapped) == "1"


def test_no_chain_is_too_long_and_its_path_is_shown_by_its_ends() -> None:
    chain: Any = parameter()
    for _ in range(5000):
        chain = [chain]

    (path,) = paths(Model(held=chain))
    at_the_limit: Any = parameter()
    for _ in range(hidden.LONG - 1):
        at_the_limit = [at_the_limit]
    assert paths(Model(held=at_the_limit)) == ["held" + "[0]" * (hidden.LONG - 1)]
    assert path == "held" + "[0]" * 9 + "...(4981 steps)..." + "[0]" * 10


def test_frames_and_modules_are_no_holders() -> None:
    def fails() -> None:
        kept = parameter()
        raise ValueError(kept)

    try:
        fails()
    except ValueError as error:
        traceback = error.__traceback__
    assert paths(Model(held=traceback, module=functools, one=weakref.ref(Model()))) == []


def test_arrays_of_numbers_hold_no_objects() -> None:
    assert (
        paths(Model(held=np.zeros(3), pair=np.zeros(2, dtype=[("a", "f4")]), none=np.empty(0)))
        == []
    )


class TestTrainedElsewhere:
    """A loss with parameters of its own, which another optimizer trains."""

    def test_they_have_the_names_that_the_loss_gives_them(self) -> None:
        proxies, scale = nn.Linear(2, 2), parameter(2)

        def loss(model: nn.Module) -> torch.Tensor:
            return (proxies(model(torch.ones(1, 2))) * scale).sum()

        assert (
            failure(assert_registered, Model(), loss)
            == dedent("""\
            not registered: scale, proxies.bias, proxies.weight (Model)

              scale           Parameter 2 float32 cpu, used by MulBackward0: the loss brings it along: it gets gradients, and no parameters() call sees it
              proxies.bias    Parameter 2 float32 cpu, used by AddmmBackward0: the loss brings it along: it gets gradients, and no parameters() call sees it
              proxies.weight  Parameter 2x2 float32 cpu, used by TBackward0: the loss brings it along: it gets gradients, and no parameters() call sees it

              hint: assign its module to an attribute of the model; what another optimizer trains is left out by allow=[module]""")
        )
        assert_registered(Model(), loss, allow=[proxies, "scale"])
        assert_registered(Model(), functools.partial(loss), allow=["proxies", "scale"])
        model = Model()
        model.proxies, model.scale = proxies, scale
        assert_registered(model, loss)

    def test_a_module_that_the_model_hides(self) -> None:
        teacher = nn.Linear(2, 2)
        model = Model(teacher=[teacher], layers=[nn.Linear(2, 2)])
        assert "teacher" in failure(assert_registered, model)
        assert "teacher" not in failure(assert_registered, model, allow=teacher)
        assert_registered(model, allow=[teacher, "layers"])

    def test_a_module_that_excuses_nothing(self) -> None:
        model = Model()
        for allow in (nn.Linear(2, 2), [model.head]):
            assert usage(assert_registered, model, allow=allow) == (
                "allow=Linear(...) holds nothing that is hidden; leave it out"
            )


def test_leaves_of_a_graph_come_nearest_first_with_the_steps_below_the_result() -> None:
    near, far = (torch.ones(1, requires_grad=True) for _ in range(2))
    found = [(leaf, depth) for leaf, _, depth in walk_leaves((far * 2).sum() + near)]
    assert [depth for _, depth in found] == [1, 3]
    assert [leaf is one for (leaf, _), one in zip(found, (near, far), strict=True)] == [True, True]


def test_what_is_torchs_own_machinery_is_not_entered() -> None:
    data = torch.utils.data.TensorDataset(torch.ones(2))
    assert paths(Model(held=data)) == []
    assert paths(Model(held=torch.distributions.Normal(parameter(), 1.0))) != []
