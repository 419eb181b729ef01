"""Models whose forward pass damages what they hold, each way of damaging by itself."""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Damage = Callable[[nn.Module], object]


class Box:
    """A plain object that holds a cache, as KV caches are."""

    def __init__(self) -> None:
        self.keys = [torch.zeros(2)]
        self.count = 0


class Bare:
    """An object that holds nothing yet, and whose own code nobody may run."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("==")

    __hash__ = None  # type: ignore[assignment]


class Slots:
    """The same without a ``__dict__``."""

    __slots__ = ("keys", "later")

    def __init__(self) -> None:
        self.keys = torch.zeros(2)


def equip(model: nn.Module) -> nn.Module:
    """Give a model one of everything that a forward pass may change."""
    base = torch.zeros(6)
    held: dict[str, Any] = {
        "listed": [torch.zeros(2), [torch.zeros(1)]],
        "mapped": {"a": torch.zeros(2), "b": {"c": torch.zeros(1)}},
        "ordered": OrderedDict(a=1, b=2),
        "counted": defaultdict(int),
        "recent": deque([1, 2], maxlen=2),
        "known": {1, 2},
        "raw": bytearray(b"abc"),
        "pair": (torch.zeros(2), Box()),
        "box": Box(),
        "slots": Slots(),
        "bare": Bare(),
        "array": np.zeros(3),
        "python": random.Random(0),
        "numpy": np.random.default_rng(0),
        "legacy": np.random.RandomState(0),
        "generators": [torch.Generator()],
        "base": base,
        "expanded": base[:1].expand(4),
        "column": torch.zeros(3, 2)[:, 1],
        "window": torch.zeros(6).unfold(0, 3, 1),
        "turned": torch.zeros(2, 3).t(),
        "sparse": torch.eye(2, device="cpu").to_sparse(),  # not every device has sparse tensors
        "half": torch.zeros(3, dtype=torch.float16),
        "complex": torch.zeros(3, dtype=torch.complex128),
        "empty": torch.zeros(0, 3),
        "freed": torch.ones(3),
        "outside": [nn.BatchNorm1d(2)],
    }
    held["freed"].untyped_storage().resize_(0)
    for name, value in held.items():
        setattr(model, name, value)
    model.register_buffer("seen", torch.zeros(3), persistent=False)
    model.register_buffer("view", base[2:], persistent=False)
    return model


def _write(*tensors: Tensor) -> None:
    with torch.no_grad():
        for tensor in tensors:
            tensor.add_(1)


def _free(tensor: Tensor) -> None:
    tensor.untyped_storage().resize_(0)


def _shrink(tensor: Tensor) -> None:
    tensor.untyped_storage().resize_(4)


def _new_data(tensor: Tensor) -> None:
    tensor.data = torch.ones(5)


def _in_graph(model: Any) -> None:
    model.seen.add_(next(p for p in model.parameters() if p.dtype.is_floating_point).sum())


def _rebind(model: Any) -> None:
    model.seen = model.seen + 1
    model.new = torch.ones(1)
    del model.base


def _swap_parameter(model: nn.Module) -> None:
    name = next(iter(dict(model.named_parameters(recurse=False))), None)
    if name is not None:
        setattr(model, name, nn.Parameter(getattr(model, name).detach().clone()))


def _unhook(model: nn.Module) -> None:
    model.register_forward_hook(lambda *_: None)
    model.register_full_backward_pre_hook(lambda *_: None)
    model._forward_hooks.popitem()
    model._load_state_dict_post_hooks[99] = print


def _hook_parameters(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad: grad)
            parameter.register_post_accumulate_grad_hook(lambda _: None)


def _flags(model: Any) -> None:
    model.seen.requires_grad_()
    for module in model.modules():
        module.training = not module.training


def _annotate(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad_sample = torch.ones(1)


DAMAGES: dict[str, Damage] = {
    "buffers": lambda m: _write(m.seen, m.view, m.base),
    "data": lambda m: m.seen.data.add_(1),
    "views": lambda m: _write(m.base, m.column, m.turned, m.window[:, 0][:2], m.expanded[:1]),
    "lists": lambda m: (_write(m.listed[0], m.listed[1][0]), m.listed.append(1)),
    "dicts": lambda m: (_write(m.mapped["a"]), m.mapped["b"].pop("c"), m.mapped.update(d=1)),
    "tuples": lambda m: (_write(m.pair[0], m.pair[1].keys[0]), m.pair[1].keys.clear()),
    "objects": lambda m: (setattr(m.box, "count", 1), m.box.keys.append(1), setattr(m.box, "n", 1)),
    "bare objects": lambda m: (setattr(m.bare, "x", 1), m.listed.append(Bare())),
    "slots": lambda m: (_write(m.slots.keys), setattr(m.slots, "later", 1)),
    "others": lambda m: (
        m.ordered.move_to_end("a"),
        m.counted["x"],
        m.recent.append(3),
        m.known.add(3),
        m.raw.extend(b"d"),
        m.array.__iadd__(1),
    ),
    "draws": lambda m: (m.python.random(), m.numpy.random(), random.random(), np.random.rand()),
    "draws of torch": lambda m: torch.rand(1, generator=m.generators[0]),
    "legacy draws": lambda m: m.legacy.rand(),
    "dtypes": lambda m: _write(m.half, m.complex, m.empty),
    "sparse": lambda m: m.sparse.add_(torch.ones(2, 2, device="cpu").to_sparse()),
    "sparse values": lambda m: m.sparse._values().mul_(2),
    "grow": lambda m: m.seen.resize_(9),
    "shrink": lambda m: _shrink(m.seen),
    "free": lambda m: _free(m.seen),
    "free attribute": lambda m: _free(m.column),
    "fill what was freed": lambda m: m.freed.untyped_storage().resize_(12),
    "set": lambda m: m.seen.set_(torch.ones(4)),
    "set view": lambda m: m.expanded.set_(torch.ones(4)),
    "new data": lambda m: _new_data(m.seen),
    "transpose": lambda m: m.turned.t_(),
    "graph": _in_graph,
    "rebind": _rebind,
    "swap parameter": _swap_parameter,
    "cast": lambda m: m.half.untyped_storage() and m.__dict__.update(half=m.half.double()),
    "hooks": _unhook,
    "parameter hooks": _hook_parameters,
    "flags": _flags,
    "annotate": _annotate,
    "modules outside": lambda m: m.outside[0].train()(torch.rand(4, 2)),
    "modes outside": lambda m: m.outside[0].eval().requires_grad_(False),
    "class": lambda m: setattr(m, "__class__", type("Other", (type(m),), {})),
}

MODES: dict[str, Callable[[], object]] = {
    "grad": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu").__enter__(),
    "autocast dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "entered device": lambda: torch.device("meta").__enter__(),
    "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "fill": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
    "anomaly": lambda: torch.set_anomaly_enabled(True),
    "torch draws": lambda: torch.rand(1),
    "global hook": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
}
