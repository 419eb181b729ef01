"""What a model itself makes of a checkpoint's keys: modules that save and load in their own way.

Names of parameters and buffers are not all the keys there are. A module may save more (by
``_save_to_state_dict`` or a state_dict hook), and take other keys than it has names (by
``_load_from_state_dict`` or a load pre-hook: layers of 4 and 8 bits, an old ``weight_norm``, a
BatchNorm that did not count yet). Nobody but its own code knows, so that is run: its
``state_dict()``, and a load of the checkpoint into a copy of it.

Tests: ``tests/unit/test_loaded_hooks.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..files.nested import is_extra_state
from ..subject.inventory import Inventory
from ..subject.reading import take_inventory
from ..subject.walk import walk_modules
from ..subject.wrappers import wrapped_child
from ..tensors.content import same_bits
from .operations import copied
from .overwrite import overwrite
from .roundtrips import load_into
from .state_dicts import wrapped_keys

_METHODS = ("state_dict", "_save_to_state_dict", "load_state_dict", "_load_from_state_dict")
_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@dataclass(frozen=True)
class Asked:
    """The answers, by the keys of the checkpoint and by the names of the model.

    ``own`` is what the model saves under a key of the checkpoint. Of the load into a copy:
    ``unknown`` are the keys that it did not take, ``missed`` the names for which it found
    nothing, ``left`` those of the others that it did not write to, and ``arrived`` is the copy
    afterwards. Where it could not be tried, ``arrived`` is None.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    arrived: Inventory | None = None


def speaks(root: nn.Module) -> bool:
    """Whether some module saves or loads in its own way."""
    plain: dict[type, bool] = {}
    for _, _, module in walk_modules(root):
        cls = type(module)
        if cls not in plain:
            plain[cls] = all(getattr(cls, m, None) is getattr(nn.Module, m) for m in _METHODS)
        held = module.__dict__
        if not plain[cls] or any(held.get(name) for name in (*_HOOKS, *_METHODS)):
            return True
    return False


def own_state(model: Inventory) -> dict[str, Any]:
    """Return what a model saves that does so in its own way: tensors, and what is none.

    Empty where its own code raises: then there are only its names.
    """
    if model.root is None or not speaks(model.root):
        return {}
    try:
        return {k: v for k, v in model.root.state_dict().items() if not is_extra_state(k)}
    except Exception:  # whatever a hook raises
        return {}


def own_keys(model: Inventory) -> set[str]:
    """Return the keys under which a model saves in its own way, also those of what it wraps."""
    keys = set(own_state(model))
    prefix = _prefix(model.root)
    return keys | {key.removeprefix(prefix) for key in keys}


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a key holds: ``key`` itself, or ``key[0]``, ``key['a']`` for containers."""
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    else:
        yield key, value
        return
    for part, inner in items:
        yield from leaves(f"{key}[{part!r}]", inner)


def ask(model: Inventory, state: Mapping[str, Any], key_names: Mapping[str, str]) -> Asked:
    """Ask a model about a checkpoint: ``key_names`` maps its keys to names that are known.

    The model is left as it is: what is loaded into is a copy, with memory of its own, and what
    is loaded are copies too. Random states and modes are the caller's to keep.
    """
    root = model.root
    if root is None:
        return Asked()
    raw = _raw_keys(model, state, key_names)
    own = own_state(model)
    answers = {
        part: value
        for key in state
        if raw[key] in own and not is_extra_state(key)
        for part, value in leaves(key, own[raw[key]])
    }
    try:
        return _tried(model, root, state, raw, key_names, answers)
    except Exception:  # no copy can be made, or written to; or the load does not take this file
        return Asked(answers)


def _tried(
    model: Inventory,
    root: nn.Module,
    state: Mapping[str, Any],
    raw: Mapping[str, str],
    key_names: Mapping[str, str],
    own: Mapping[str, Any],
) -> Asked:
    twin = copied(root)
    arrived = take_inventory(twin)
    overwrite(arrived)
    taken = set(key_names.values())
    before = {
        name: tensor.detach().clone()
        for name, tensor in arrived.named.items()
        if name not in taken and tensor is not None and arrived.by_name[name].persistent
    }
    loaded: OrderedDict[str, Any] = OrderedDict(
        (raw[key], value.detach().clone() if isinstance(value, Tensor) else value)
        for key, value in state.items()
    )
    if hasattr(state, "_metadata"):
        loaded._metadata = state._metadata  # type: ignore[attr-defined]
    returned = load_into(twin, loaded)
    if returned.refused:  # by shapes, most likely: those are told apart, so load the others
        for key, name in key_names.items():
            if _shape(state[key]) != _shape(model.named[name]):
                del loaded[raw[key]]
        returned = load_into(twin, loaded)
    if returned.refused:
        raise ParamCheckUsageError(returned.refused)
    wrapped = wrapped_keys(model)
    missed = {wrapped.get(key, key) for key in returned.not_saved}
    after = take_inventory(twin).named
    left = {
        name
        for name, tensor in before.items()
        if name not in missed and (now := after.get(name)) is not None and same_bits(tensor, now)
    }
    unknown = set(returned.not_taken)
    return Asked(
        own,
        frozenset(key for key in state if raw[key] in unknown),
        frozenset(missed),
        frozenset(left),
        take_inventory(twin),
    )


def _raw_keys(
    model: Inventory, state: Mapping[str, Any], key_names: Mapping[str, str]
) -> dict[str, str]:
    """Return for each key of a checkpoint the key of the model's own state_dict.

    A wrapped model takes both: its own keys, and those of the model that it wraps.
    """
    raw_of = {name: raw for raw, name in wrapped_keys(model).items()}
    prefix = _prefix(model.root)
    raw = {}
    for key in state:
        if key in key_names:
            raw[key] = raw_of.get(key_names[key], key_names[key])
        else:
            raw[key] = key if key.startswith(prefix) else prefix + key
    return raw


def _prefix(root: nn.Module | None) -> str:
    """Return what a wrapper puts in front of the keys of the model that it wraps."""
    child = None if root is None else wrapped_child(root)
    return "" if child is None else f"{child}."


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
