"""One walk of a subject -> its entries, each with all of its names.

``named_parameters()`` keeps the first name of a tied parameter and drops the others; every
question about ties, patterns or freezing then gives the wrong answer for the dropped ones
(a pattern ``head.*`` selects nothing when ``head.weight`` was first seen as ``emb.weight``).
Here nothing is dropped: an :class:`Entry` is one tensor object and *all* its names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import a_or_an, cut, join_words
from ..files.checkpoint import read_tensors
from ..files.damage import as_wrong_call
from ..files.dcp import Folder
from ..files.nested import is_extra_state
from ..tensors.describe import kind_in_words as kind_in_words
from ..tensors.memory import PLAIN_TYPES, raised_by
from ..tensors.sharded import running_call
from .fsdp import has_fsdp, own_class, refuse_slices, sharded_instead
from .names import Names
from .walk import first_places, unwrapped, walk_modules

if TYPE_CHECKING:
    from .parts import Part

Kind: TypeAlias = Literal["parameter", "buffer", "tensor"]
#: What an assertion looks at (docs, "Words").
Subject: TypeAlias = (
    nn.Module | Mapping[str, Tensor | None] | Iterable[tuple[str, Tensor | None]] | Path
)


#: The most names of modules that are walked, or as many for each module: the public model that
#: shares most has 13 names for one.
MANY = 30_000
SEVERAL = 16


class Entry:
    """One parameter, buffer or plain tensor of a subject, with all of its names.

    ``tensor`` is None only in a mapping or iterable, where a missing gradient is meant. With a
    ``part`` it stands for some elements of the tensor, and its names say which (``parts``).
    """

    __slots__ = ("kind", "names", "part", "persistent", "tensor")

    def __init__(self, name: str, tensor: Tensor | None, kind: Kind, persistent: bool) -> None:
        self.names = [name]
        self.tensor = tensor
        self.kind: Kind = kind
        self.persistent = persistent
        self.part: Part | None = None

    @property
    def name(self) -> str:
        """The name it was found by first, in registration order."""
        return self.names[0]

    @property
    def is_parameter(self) -> bool:
        """Whether gradient and training assertions look at it (everything but a buffer)."""
        return self.kind != "buffer"

    @property
    def trainable(self) -> bool:
        """Whether it is a tensor that asks for a gradient."""
        return self.tensor is not None and self.tensor.requires_grad

    def __repr__(self) -> str:
        return f"<{self.kind} {' = '.join(self.names)}>"


class Inventory:
    """The named tensors of one subject, in registration order, and its entries.

    Kept as columns: a dictionary of names and the few names that are buffers. The entries
    (one object per tensor) are built when a question needs them, because names, ties and
    shapes of 20,000 parameters do not, and 20,000 objects cost more than the walk.
    """

    def __init__(self, title: str, root: nn.Module | None = None) -> None:
        #: Names the subject in messages.
        self.title = title
        self.root = root
        #: Whether it was read from (name, tensor) pairs, which have no title of their own.
        self.from_pairs = False
        #: Whether it was read from a state_dict: values without flags and gradients.
        self.saved = False
        #: A folder of which only names and shapes were read, or None.
        self.folder: Folder | None = None
        self._named: dict[str, Tensor | None] = {}
        self._all_named = True
        #: The names registered as buffers, and whether each is persistent.
        self.buffer_names: dict[str, bool] = {}
        #: What named_parameters() of a wrapped model prints (module.0.weight) -> the name.
        self.wrapped_names: dict[str, str] = {}

    @property
    def named(self) -> dict[str, Tensor | None]:
        """Every name, in registration order; None where a mapping says "no gradient".

        Raises :class:`ParamCheckUsageError` where there are too many of them.
        """
        if not self._all_named:
            raise ParamCheckUsageError(
                f"the modules of {self.title} have more than {MANY:,} names: modules held in "
                f"several places at several levels multiply their paths, and this needs all of "
                f"them; check the shared module by itself"
            )
        return self._named

    @named.setter
    def named(self, named: dict[str, Tensor | None]) -> None:
        self._named = named

    def only_first_names(self) -> None:
        """Say that only the first name of each module was walked."""
        self._all_named = False

    @property
    def known_names(self) -> Mapping[str, object]:
        """Every name, or none where there are too many: what a message may count."""
        return self._named if self._all_named else {}

    def read_values(self, tensors: Iterable[Tensor | None] | None = None) -> None:
        """Read values that were not read yet: of a folder, whose names are read alone."""
        if self.folder is not None:
            with as_wrong_call():
                self.folder.read(self.tensors if tensors is None else tensors)

    @property
    def empty(self) -> bool:
        """Whether it has no names at all."""
        return not self._named

    @property
    def tensors(self) -> Iterable[Tensor | None]:
        """What the names stand for, for questions that need none of them."""
        return self._named.values()

    def tensor_at(self, name: str) -> Tensor | None:
        """Return the tensor of the first of its names."""
        return self._named.get(name)

    @cached_property
    def all_names(self) -> Names:
        """Every name, to be searched."""
        return Names(self.named)

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Every name and its entry: names of one tensor object share one entry."""
        return self._entries_of(self.named)

    def _entries_of(self, named: Mapping[str, Tensor | None]) -> dict[str, Entry]:
        by_id: dict[int, Entry] = {}  # ids are safe: self.named keeps the tensors alive
        by_name: dict[str, Entry] = {}
        for name, tensor in named.items():
            entry = None if tensor is None else by_id.get(id(tensor))
            persistent = self.buffer_names.get(name)
            kind: Kind = "tensor" if self.root is None else "parameter"
            if persistent is not None:
                kind = "buffer"
            elif self.root is None and _is_parameter(tensor):
                kind = "parameter"
            if entry is None:
                entry = Entry(name, tensor, kind, persistent is not False)
                by_id[id(tensor)] = entry
            else:
                entry.names.append(name)
                if kind == "parameter":
                    entry.kind = kind  # registered both ways: what trains is a parameter
                entry.persistent = entry.persistent or persistent is not False
            by_name[name] = entry
        return by_name

    @cached_property
    def entries(self) -> list[Entry]:
        """One entry per tensor object (one per name where there is no tensor)."""
        by_name = self.by_name if self._all_named else self._entries_of(self._named)
        return list(dict.fromkeys(by_name.values()))

    @cached_property
    def _by_id(self) -> dict[int, Entry]:
        return {id(entry.tensor): entry for entry in self.entries if entry.tensor is not None}

    def entry_of(self, tensor: Tensor | None) -> Entry | None:
        """Return the entry whose tensor is this very object."""
        return self._by_id.get(id(tensor))

    @cached_property
    def walked(self) -> list[tuple[str, nn.Module]]:
        """Every (name and its dot, module), a shared module once or more; kept from the reading."""
        return [] if self.root is None else [(p, m) for p, _, m in first_places(self.root)]

    @cached_property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Every (name, module), a shared module once for each of its names."""
        if self.root is None:
            return []
        _ = self.named  # says where there are too many
        return [(prefix[:-1], module) for prefix, _, module in walk_modules(self.root)]

    @property
    def parameters(self) -> list[Entry]:
        """What gradient and training assertions look at: everything but buffers."""
        return [entry for entry in self.entries if entry.kind != "buffer"]

    @property
    def buffers(self) -> list[Entry]:
        """The entries that are registered as buffers and under no name as parameters."""
        return [entry for entry in self.entries if entry.kind == "buffer"]

    @cached_property
    def tie_groups(self) -> list[tuple[str, ...]]:
        """The sets of all names of one tensor object, where there are two or more."""
        ids = list(map(id, self.named.values()))
        count = Counter(ids)
        if len(count) == len(ids):
            return []
        names: dict[int, list[str]] = {}
        for name, key in zip(self.named, ids, strict=True):
            if count[key] > 1 and self.named[name] is not None:
                names.setdefault(key, []).append(name)
        return [tuple(group) for group in names.values()]


def _is_parameter(tensor: Tensor | None) -> bool:
    if type(tensor) is Tensor:  # torch's own answer, a tenth of its price
        return getattr(tensor, "_is_param", False)
    return isinstance(tensor, nn.Parameter)


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
    walked = inventory.walked = []
    for prefix, raw_prefix, module in islice(modules, at_most):
        walked.append((prefix, module))
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
