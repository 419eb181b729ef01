"""One walk of a subject -> its inventory: what can be read, and what there is to say where not.

Tests: ``tests/unit/test_inventory.py``, ``test_dcp_subject.py`` and ``test_manifest.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import a_or_an, cut, join_words
from ..files.checkpoint import read_tensors
from ..files.nested import is_extra_state
from ..tensors.call import running_call
from ..tensors.describe import kind_in_words
from ..tensors.memory import PLAIN_TYPES, raised_by
from .fsdp import has_fsdp, own_class, refuse_slices, sharded_instead
from .inventory import MANY, Inventory
from .walk import first_places, unwrapped, walk_modules

#: Names of modules that are walked for each module, where that is more than ``MANY``: the public
#: model that shares most has 13 names for one.
SEVERAL = 16


NamedTensors = Callable[[Any], Iterable[tuple[str, "Tensor | None"]] | None]
#: Readers of subjects that are none of ours (the hook ``pytest_paramcheck_named_tensors``).
_readers: ContextVar[tuple[NamedTensors, ...]] = ContextVar("paramcheck_readers", default=())


@contextmanager
def subject_readers(*readers: NamedTensors) -> Iterator[None]:
    """Let these functions read subjects inside the block; each returns None for what it does
    not know."""
    token = _readers.set(readers)
    try:
        yield
    finally:
        _readers.reset(token)


def take_inventory(
    subject: Any,
    *,
    allow_empty: bool = False,
    allow_none: bool = False,
    key: str | None = None,
    values: bool = True,
) -> Inventory:
    """Read a subject: an ``nn.Module``, a mapping name -> tensor, (name, tensor) pairs, or the
    path of a checkpoint, of which ``key`` says where in the file the tensors are.

    A subject that is already an :class:`Inventory` is returned as it is. One with nothing in
    it raises :class:`ParamCheckUsageError` unless ``allow_empty``: an assertion about nothing
    must not pass. A mapping of Nones is nothing either, but for who asks about gradients
    (``allow_none``). Without ``values`` the caller asks for those of a folder that it needs, by
    :meth:`Inventory.read_values`, or for none.
    """
    if key is not None and not isinstance(subject, Path):
        raise ParamCheckUsageError(
            f"key={key!r} says where in the file of a Path to look, and the subject is "
            f"{kind_in_words(subject)}"
        )
    if isinstance(subject, Inventory):
        return subject
    inventory = _read(subject) if key is None else _read_path(subject, key)
    call = running_call()
    if call is not None:
        call.read(inventory.title, inventory.tensors)
        if inventory.root is not None:
            refuse_slices(inventory.root, slices=call.slices, flat=call.flat)
    _require_answers(inventory)
    if not allow_empty:
        require_tensors(inventory, allow_none=allow_none)
    if values:
        inventory.read_values()
    return inventory


def require_tensors(*inventories: Inventory, allow_none: bool = False) -> None:
    """Raise :class:`ParamCheckUsageError` where none of them holds a tensor."""
    if any(
        tensor is not None or allow_none
        for inventory in inventories
        for tensor in inventory.tensors
    ):
        return
    title = join_words(list(dict.fromkeys(inventory.title for inventory in inventories)))
    if not all(inventory.empty for inventory in inventories):
        # "every value of a dict of tensors" would contradict itself.
        title = title.replace(" of tensors", "")
        raise ParamCheckUsageError(f"every value of {title} is None: there is nothing to check")
    raise ParamCheckUsageError(
        f"{title} has no parameters and no buffers: there is nothing to check"
    )


def _require_answers(inventory: Inventory) -> None:
    """Raise where a tensor's own class does not even say what it is.

    Asked once for all assertions: none of them could name the tensor in what torch passes on.
    """
    if not set(map(type, inventory.tensors)).difference(PLAIN_TYPES, (type(None),)):
        return
    for entry in inventory.entries:
        name, tensor = entry.name, entry.tensor
        if tensor is None or type(tensor) in PLAIN_TYPES:
            continue
        try:
            _ = tensor.dtype, tensor.device, tensor.requires_grad, tensor.grad_fn
            _ = None if is_lazy(tensor) else tensor.shape
        except Exception as error:
            raise ParamCheckUsageError(f"{name}: {raised_by(tensor, error)}") from None


def _read(subject: Any) -> Inventory:
    for reader in _readers.get():
        pairs = reader(subject)
        if pairs is not None:
            return _read_pairs(type(subject).__name__, pairs)
    if isinstance(subject, nn.Module):
        return _read_module(subject)
    if isinstance(subject, Path):
        return _read_path(subject)
    if isinstance(subject, Mapping):
        saved = hasattr(subject, "_metadata")  # torch writes it into every state_dict
        inventory = _read_pairs(
            "a state_dict" if saved else _mapping_title(subject), subject.items()
        )
        inventory.saved = saved
        return inventory
    if isinstance(subject, (Tensor, str, bytes)) or not isinstance(subject, Iterable):
        path = f"; a checkpoint's is Path({cut(repr(subject), 40)})"
        raise ParamCheckUsageError(
            f"expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
            f"Path of a checkpoint, got {kind_in_words(subject)}"
            f"{path if isinstance(subject, str) else ''}"
        )
    inventory = _read_pairs("pairs", subject)
    inventory.from_pairs = True
    return inventory


def _read_path(path: Path, key: str | None = None) -> Inventory:
    held, folder = read_tensors(path, key)
    inventory = _read_pairs(path.name, held.items())
    inventory.saved = True
    inventory.folder = folder
    return inventory


def _mapping_title(subject: Mapping[Any, Any]) -> str:
    """Return what messages call a mapping; the class alone (``dict``) would say nothing."""
    name = type(subject).__name__
    return a_or_an(f"{name} of tensors")


def _read_pairs(title: str, pairs: Iterable[Any]) -> Inventory:
    inventory = Inventory(title)
    named = inventory.named
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            hint = "; names must be strings"
            if isinstance(pair, Tensor):
                hint = "; did you mean named_parameters()?"
            elif isinstance(pair, nn.Module):
                hint = ": nn.ModuleList(...) of the modules is a subject"
            raise ParamCheckUsageError(
                f"expected (name, tensor) pairs, got {kind_in_words(pair)}{hint}"
            )
        name, tensor = pair
        if name.endswith("_extra_state") and is_extra_state(name):
            continue
        if type(tensor) not in PLAIN_TYPES and not (tensor is None or isinstance(tensor, Tensor)):
            raise ParamCheckUsageError(
                f"{name!r} is not a tensor but {kind_in_words(tensor)}{_nested_hint(name, tensor)}"
            )
        if name in named:
            raise ParamCheckUsageError(f"the name {name!r} occurs twice")
        named[name] = tensor
    return inventory


def _read_module(root: nn.Module) -> Inventory:
    inventory = Inventory(own_class(unwrapped(root)).__name__, root)
    _read_names(inventory, root)
    if has_fsdp():
        instead = sharded_instead(root)
        if instead:
            named = inventory._named
            inventory.named = {name: instead.get(id(own), own) for name, own in named.items()}
    return inventory


def _read_names(inventory: Inventory, root: nn.Module) -> None:
    if _register(inventory, walk_modules(root), MANY):
        return
    each_once = list(first_places(root))
    many = SEVERAL * len(each_once)
    if many > MANY and _register(inventory, walk_modules(root), many):
        return
    _register(inventory, iter(each_once), len(each_once))
    inventory.only_first_names()


def _register(
    inventory: Inventory, modules: Iterator[tuple[str, str, nn.Module]], at_most: int
) -> bool:
    """Note the names of what the modules hold; False where there are more modules than that."""
    named: dict[str, Tensor | None] = {}
    inventory.named = named
    buffers = inventory.buffer_names = {}
    inventory.wrapped_names = {}
    prefixes: list[str] = []
    each: list[nn.Module] = []
    inventory.walked = prefixes, each
    for prefix, raw_prefix, module in islice(modules, at_most):
        prefixes.append(prefix)
        each.append(module)
        for key, parameter in module._parameters.items():
            if parameter is not None:
                name = prefix + key
                if name in named or raw_prefix is not prefix:
                    name = _settled(inventory, name, raw_prefix + key)
                named[name] = parameter
        if module._buffers:
            volatile = module._non_persistent_buffers_set
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    name = prefix + key
                    if name in named or raw_prefix is not prefix:
                        name = _settled(inventory, name, raw_prefix + key)
                    named[name] = buffer
                    buffers[name] = key not in volatile
    return next(modules, None) is None


def _settled(inventory: Inventory, name: str, wrapped: str) -> str:
    """Return the one name of a tensor below a wrapper, or of one whose name is taken."""
    named = inventory.named
    if name in named:
        if wrapped in named or wrapped == name:
            # Written into _parameters past register_parameter, which refuses a dot.
            raise ParamCheckUsageError(
                f"two tensors of {inventory.title} are called {wrapped!r}: "
                f"a key with a dot in it hides a child's"
            )
        return wrapped  # a wrapper and what it wraps own the same name
    if wrapped != name:
        inventory.wrapped_names[wrapped] = name
    return name


def _nested_hint(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values()):
        return f"; the tensors are one level down: pass [{name!r}]"
    return ""
