"""Tensors a module keeps where ``nn.Module`` does not look for them.

A layer in a Python list, a parameter in a dataclass, a table in a plain attribute: no
``parameters()`` call sees them, ``.to()`` leaves them behind, ``state_dict()`` does not save
them. They are looked for only where Python objects store things (``__dict__``, slots, the
items of built-in containers, closures; of what is written in C, what the garbage collector
knows of): attribute access on a real model runs code.

Tests: ``tests/unit/test_registered.py`` and ``test_ties.py``.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from .attributes import ATOMIC, HOOKS, STANDARD, Layouts
from .held import (
    callable_name,
    carried_by,
    derived_names,
    is_opaque,
    key_text,
    objects_of_array,
    pairs_of,
    referred_by,
    storage_of,
)
from .inventory import Inventory

HiddenKind: TypeAlias = Literal["parameter", "buffer", "tensor"]


@dataclass(frozen=True, slots=True)
class Hidden:
    """One tensor that a module reaches and does not register.

    ``path`` says how to get there from the subject. ``attribute`` is the part of it that the
    registered module ``owner`` (a name, ``""``: the subject) stores, ``holder`` is what it is
    kept in there (``"list"``, ``"dict"``, ``"closure"``, ...) and ``module`` is the class of the
    unregistered module it belongs to (``""``: none). ``moves`` says that the owner's class
    moves its tensors itself (its own ``_apply``, as metric classes have). ``by_reference`` says
    that a function leads to it (a closure, a default argument), which a copy of the module does
    not copy.
    """

    path: str
    tensor: Tensor
    kind: HiddenKind
    owner: str
    attribute: str
    holder: str
    module: str = ""
    moves: bool = False
    by_reference: bool = False


@dataclass(frozen=True, slots=True)
class HiddenTensors:
    """What a walk found, and the paths of containers too large to be looked into."""

    tensors: tuple[Hidden, ...]
    too_large: tuple[str, ...]


#: A container of more items than this, some of them objects, is named instead of searched.
LARGE = 1_000_000
#: A longer path is shown by its two ends.
LONG = 200


def hidden_tensors(inventory: Inventory) -> HiddenTensors:
    """Find the tensors that a module's plain attributes lead to and no registration does.

    A second reference to a registered tensor is none of them, nor is a tensor that autograd
    computes anew (its leaves are looked at by the assertion). Every object is visited once.
    """
    return _Walk(inventory.tensors, *inventory.walked).run()


def stored_tensors(inventory: Inventory) -> list[Hidden]:
    """Return the hidden tensors that are state: not what autograd computed and somebody kept."""
    return [item for item in hidden_tensors(inventory).tensors if item.tensor.grad_fn is None]


def with_hidden(inventory: Inventory, hidden: Iterable[Hidden]) -> Inventory:
    """Return an inventory in which hidden tensors have their paths as names, for patterns."""
    both = Inventory(inventory.title, inventory.root)
    both.named = dict(inventory.named)
    both.buffer_names = dict(inventory.buffer_names)
    both.wrapped_names = dict(inventory.wrapped_names)
    for item in hidden:
        both.named.setdefault(item.path, item.tensor)
    return both


def reachable_tensors(objects: Iterable[Any]) -> list[Tensor]:
    """Return the tensors that objects lead to, by the same rules: nothing of theirs is run."""
    walk = _Walk()
    for number, value in enumerate(objects):
        walk.follow(_Step(value, None, str(number), "attribute", "", "", "", False))
    return [item.tensor for item in walk.found]


_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)
#: torch's own objects are machinery (compilers, process groups), but for these packages.
_TORCH_SEARCHED = ("torch.nn.", "torch.distributions.")


def _entered(cls: type) -> bool:
    """Whether the attributes of a plain object of this class are looked at."""
    module = getattr(cls, "__module__", "")
    if not isinstance(module, str):
        return True
    if module.startswith(_TORCH_SEARCHED):
        return not module.startswith("torch.nn.parallel")
    # An optimizer refers to parameters and owns none: assert_optimizer_covers looks at it.
    optimizer = getattr(sys.modules.get("torch.optim"), "Optimizer", ())
    return not (module == "torch" or module.startswith("torch.") or issubclass(cls, optimizer))


@dataclass(slots=True)
class _Step:
    """One object still to be looked at, and how it was reached."""

    value: Any
    above: _Step | None
    suffix: str
    holder: str
    owner: str
    attribute: str
    module: str
    moves: bool
    registered_as: HiddenKind = "tensor"
    by_reference: bool = False

    def to(
        self,
        value: Any,
        suffix: str,
        holder: str = "",
        module: str = "",
        kind: HiddenKind = "tensor",
        by_reference: bool = False,
    ) -> _Step:
        return _Step(
            value, self, suffix, holder or self.holder, self.owner, self.attribute,
            self.module or module, self.moves, kind, self.by_reference or by_reference,
        )  # fmt: skip

    @property
    def path(self) -> str:
        """How it was reached: put together only for what is said, chains can be long."""
        parts = []
        step: _Step | None = self
        while step is not None:
            parts.append(step.suffix)
            step = step.above
        parts.reverse()
        if len(parts) > LONG:
            left_out = len(parts) - 20
            parts[10:-10] = [f"...({left_out} steps)..."]
        return "".join(parts)


class _Walk:
    def __init__(
        self,
        registered: Iterable[Tensor | None] = (),
        prefixes: Sequence[str] = (),
        modules: Sequence[nn.Module] = (),
    ) -> None:
        self.registered = set(map(id, registered))
        self.prefixes = prefixes
        self.modules = modules
        self.seen = set(map(id, modules))
        self.keep: list[Any] = []  # keeps what was visited alive, so that no id is used twice
        self.found: list[Hidden] = []
        self.too_large: list[str] = []
        self.cells_of: dict[type, list[tuple[str | None, Any]]] = {}
        self.applies: dict[type, bool] = {}
        self.of_class: dict[type, list[tuple[str, Any]]] = {}

    def run(self) -> HiddenTensors:
        self.of_class = {cls: self.class_values(cls) for cls in set(map(type, self.modules))}
        shared = len(self.seen) < len(self.modules)
        searched: set[int] = set()
        layouts = Layouts()
        for prefix, module in zip(self.prefixes, self.modules, strict=True):
            if self.of_class[type(module)] or layouts.keep_objects(module):
                if shared:  # by the first of its names
                    if id(module) in searched:
                        continue
                    searched.add(id(module))
                for step in self.from_module(module, prefix):
                    self.follow(step)
        return HiddenTensors(tuple(self.found), tuple(self.too_large))

    def follow(self, step: _Step) -> None:
        """Visit an object and all that it leads to, depth first, in the order it is kept."""
        stack = [step]
        while stack:
            below = list(self.visit(stack.pop()))
            stack.extend(reversed(below))

    def from_module(self, module: nn.Module, prefix: str) -> Iterator[_Step]:
        """Yield what a registered module keeps beside its registrations."""
        state = module.__dict__
        cls = type(module)
        for name, value in self.of_class[cls]:
            yield self.start(module, prefix, name, value, f"class {cls.__name__}")
        for name in HOOKS:
            if hooks := state.get(name):
                label = name.strip("_").removesuffix("s")
                for hook in list(hooks.values()):
                    place = f"<{label} {callable_name(hook)}>"
                    yield self.start(module, prefix, place, hook, "hook")
        derived = None
        for name, value in list(state.items()):
            if type(value) in ATOMIC or name in STANDARD:
                continue
            if name == "_flat_weights" and isinstance(module, nn.RNNBase):
                continue  # torch's list of what it registers, renewed at each forward
            if issubclass(type(value), Tensor):
                derived = derived_names(module) if derived is None else derived
                if name in derived:
                    continue
            yield self.start(module, prefix, str(name), value, "attribute")

    def start(self, module: nn.Module, prefix: str, name: str, value: Any, holder: str) -> _Step:
        cls = type(module)
        if cls not in self.applies:
            self.applies[cls] = cls._apply is not nn.Module._apply
        return _Step(value, None, prefix + name, holder, prefix[:-1], name, "", self.applies[cls])

    def class_values(self, cls: type) -> list[tuple[str, Any]]:
        """Tensors, modules and containers that a user's module class itself holds."""
        return [
            (name, value)
            for klass in cls.__mro__
            if not str(klass.__module__).startswith("torch.") and klass is not object
            for name, value in list(vars(klass).items())
            if issubclass(type(value), (Tensor, nn.Module, list, dict, tuple))
            and not name.startswith("__")
        ]

    def visit(self, step: _Step) -> Iterator[_Step]:
        """Note a tensor, or yield what an object holds."""
        value = step.value
        cls = type(value)
        if cls in ATOMIC:
            return
        key = id(value)
        if key in self.seen or key in self.registered:
            return
        self.seen.add(key)
        self.keep.append(value)
        if issubclass(cls, Tensor):
            self.note(step, value)
        elif issubclass(cls, nn.Module):
            yield from self.hidden_module(step, value)
        elif issubclass(cls, type):
            return
        elif issubclass(cls, (*_SEQUENCES, *_SETS, dict)):
            yield from self.items(step, value, cls)
        elif (objects := objects_of_array(value)) is not None:
            yield from self.objects(step, objects)
        elif issubclass(cls, (types.FunctionType, types.MethodType, functools.partial)):
            yield from self.carried(step, value, cls)
        elif _entered(cls):
            holder = step.holder if step.above is not None else _kind_of(cls)
            yield from self.attributes(step, value, holder)
            if is_opaque(cls, self.cells_of[cls]):
                for place, inner in referred_by(value):
                    yield step.to(inner, place, holder)

    def objects(self, step: _Step, array: Any) -> Iterator[_Step]:
        """Yield the objects of a numpy array of them."""
        if len(array) > LARGE:
            self.too_large.append(step.path)
            return
        for number, inner in enumerate(array.tolist()):  # the objects themselves
            yield step.to(inner, f".flat[{number}]", _within(step, "ndarray"))

    def carried(self, step: _Step, value: Any, cls: type) -> Iterator[_Step]:
        """Yield what a function, a method or a partial carries."""
        holder = "partial" if issubclass(cls, functools.partial) else "closure"
        if step.holder == "hook":
            holder = "hook"
        # copy.deepcopy copies partials, and methods with what they are bound to.
        bound = value.__self__ if issubclass(cls, types.MethodType) else value
        for place, inner in carried_by(value):
            kept = issubclass(cls, functools.partial) or inner is bound
            yield step.to(inner, place, holder, by_reference=not kept)

    def note(self, step: _Step, tensor: Tensor) -> None:
        kind: HiddenKind = "parameter" if isinstance(tensor, nn.Parameter) else step.registered_as
        self.found.append(
            Hidden(
                step.path,
                tensor,
                kind,
                step.owner,
                step.attribute,
                step.holder,
                step.module,
                step.moves,
                step.by_reference,
            )
        )

    def hidden_module(self, step: _Step, module: nn.Module) -> Iterator[_Step]:
        """Yield the registrations and the plain attributes of an unregistered module."""
        state = module.__dict__
        name = type(module).__name__
        # A class that replaces these dictionaries gets no say here: only what nn.Module stores.
        for place, kind in (("_parameters", "parameter"), ("_buffers", "buffer")):
            for key, tensor in pairs_of(state.get(place)):
                shown: HiddenKind = "parameter" if kind == "parameter" else "buffer"
                yield step.to(tensor, f".{key}", module=name, kind=shown)
        for key, child in pairs_of(state.get("_modules")):
            yield step.to(child, f".{key}", module=name)
        for key, value in list(state.items()):
            if key not in STANDARD and type(value) not in ATOMIC:
                yield step.to(value, f".{key}", module=name)

    def items(self, step: _Step, value: Any, cls: type) -> Iterator[_Step]:
        """Yield the items of a built-in container, read with the built-in's own methods."""
        if issubclass(cls, dict):
            keys, values = dict.keys(value), dict.values(value)
            if not ATOMIC.issuperset(map(type, keys)):
                for number, key in enumerate(list(keys)):
                    if type(key) is not tuple:
                        yield step.to(key, f".keys()[{number}]", _within(step, "dict"))
            if not ATOMIC.issuperset(map(type, values)):
                if len(values) > LARGE:
                    self.too_large.append(step.path)
                    return
                for key, inner in list(dict.items(value)):
                    if type(inner) not in ATOMIC:
                        yield step.to(inner, f"[{key_text(key)}]", _within(step, "dict"))
        else:
            base = next(b for b in (*_SEQUENCES, *_SETS) if issubclass(cls, b))
            if ATOMIC.issuperset(map(type, base.__iter__(value))):
                return
            if base.__len__(value) > LARGE:
                self.too_large.append(step.path)
                return
            left, right = "{}" if base in _SETS else "[]"
            for number, inner in enumerate(list(base.__iter__(value))):
                if type(inner) not in ATOMIC:
                    suffix = f"{left}{number}{right}"
                    yield step.to(inner, suffix, _within(step, base.__name__))
        yield from self.attributes(step, value, "")

    def attributes(self, step: _Step, value: Any, holder: str) -> Iterator[_Step]:
        """Yield what an object's ``__dict__`` and slots hold, without running its code."""
        cls = type(value)
        if cls not in self.cells_of:
            self.cells_of[cls] = storage_of(cls)
        for name, cell in self.cells_of[cls]:
            try:
                held = cell.__get__(value, cls)
            except AttributeError:
                continue  # a slot that was never filled
            if name is not None:
                yield step.to(held, f".{name}", holder)
                continue
            for key, inner in pairs_of(held):
                if type(inner) not in ATOMIC:
                    yield step.to(inner, f".{key}", holder)


def _within(step: _Step, container: str) -> str:
    """The outermost container below the attribute decides what to do about it."""
    return container if step.holder == "attribute" else step.holder


def _kind_of(cls: type) -> str:
    return f"{cls.__name__} object"
