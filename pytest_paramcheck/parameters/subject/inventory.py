"""What a subject holds: its entries, each with all of its names.

``named_parameters()`` keeps the first name of a tied parameter and drops the others; every
question about ties, patterns or freezing then gives the wrong answer for the dropped ones
(a pattern ``head.*`` selects nothing when ``head.weight`` was first seen as ``emb.weight``).
Here nothing is dropped: an :class:`Entry` is one tensor object and *all* its names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..files.damage import as_wrong_call
from ..files.dcp import Folder
from .names import Names
from .walk import first_places, walk_modules

if TYPE_CHECKING:
    from .parts import Part

Kind: TypeAlias = Literal["parameter", "buffer", "tensor"]
#: What an assertion looks at (docs, "Words").
Subject: TypeAlias = (
    nn.Module | Mapping[str, Tensor | None] | Iterable[tuple[str, Tensor | None]] | Path
)


#: The most names of modules that are walked, however few modules there are.
MANY = 30_000


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
    def walked(self) -> tuple[list[str], list[nn.Module]]:
        """The names, each with its dot, of all modules, and the modules, a shared one once or
        more; kept from the reading."""
        places = [] if self.root is None else list(first_places(self.root))
        return [prefix for prefix, _, _ in places], [module for _, _, module in places]

    @cached_property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Every (name, module), a shared module once for each of its names."""
        if self.root is None:
            return []
        _ = self.named  # says where there are too many
        return [(prefix[:-1], module) for prefix, _, module in walk_modules(self.root)]

    @cached_property
    def module_at(self) -> dict[str, nn.Module]:
        """The modules by each of their names; of a wrapper and what it wraps, what it wraps."""
        return dict(self.modules)

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
