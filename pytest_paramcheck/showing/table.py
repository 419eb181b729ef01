"""A table of a model's parameters: text for terminals, HTML for notebooks, rows for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from shutil import get_terminal_size
from typing import Any

from ..messages.errors import ParamCheckUsageError
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import select
from ..parameters.subject.walk import first_places, unwrapped
from .asked import read_losses, read_optimizer
from .rows import ParamRow, read_rows
from .table_text import table_text
from .totals import Contents, ModuleTotal, module_totals

#: Where the terminal's width is not known.
WIDTH = 80


class ParamTable(str):
    """What :func:`param_table` returns: its text, and what the text was made of.

    It is a string, so ``print(table)`` shows it; in a notebook it shows itself as HTML. The rest
    is for programs. None of it holds a tensor.
    """

    _contents: Contents

    @property
    def model(self) -> str:
        """What the model is called: its class."""
        return self._contents.title

    @property
    def rows(self) -> tuple[ParamRow, ...]:
        """The parameters and buffers, none of them folded, in registration order."""
        return self._contents.rows

    @property
    def modules(self) -> Mapping[str, ModuleTotal]:
        """What each module holds, by name; ``""`` is the whole."""
        return self._contents.modules

    @property
    def groups(self) -> tuple[str, ...]:
        """What each optimizer group steps with, where an optimizer was given."""
        return self._contents.groups

    def __repr__(self) -> str:
        return str(self)

    def text(self, width: int | None = None, *, color: bool = False) -> str:
        """Return the text anew, as wide as this, or as the terminal is now; in color if asked."""
        return table_text(self._contents, terminal_width() if width is None else width, color=color)

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and the totals of modules as dictionaries, lists, text and numbers."""
        return {
            "model": self.model,
            "rows": [_row_dict(row) for row in self.rows],
            "modules": [
                {k: v for k, v in asdict(total).items() if k != "children"}
                for total in self.modules.values()
            ],
            "groups": list(self.groups),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def _repr_html_(self) -> str:
        from .table_html import table_html

        return table_html(self._contents)


def param_table(
    model: Subject,
    *patterns: Pattern,
    optimizer: Any = None,
    losses: Any = None,
    key: str | None = None,
) -> ParamTable:
    """Return a readable table of a model's parameters.

    One row for each parameter and buffer, repeated layers folded into one
    (``blocks.{0..31}.mlp.weight``): shape, number of elements, what it is (trainable, frozen,
    buffer, not saved, tied) and the state of its gradient where any has one. Dtype and device
    are columns where they differ. Below: what the modules hold, where a model has modules of
    modules, and tied names. Patterns choose rows. Reads no values but gradients', so a model of
    any size on meta is fine.

    ``optimizer`` (or a list of them) adds the group of each parameter, what the groups step with,
    and how many of their tensors are not in the model. ``losses`` (a function of the model that
    returns a scalar, a list of them, or a mapping of names to them) adds which loss reaches what:
    each is run with its backward pass, and nothing is left behind. ``key="model"``: where in the
    file of a ``Path`` the tensors are.

    What is returned is a string (:class:`ParamTable`), as wide as the terminal, 80 columns where
    that is not known; only a longer name is wider. In a notebook it shows itself as HTML;
    ``.rows``, ``.modules`` and ``.to_json()`` are for programs.

    Raises :class:`ParamCheckUsageError` for a pattern that matches nothing, and for a loss that
    cannot be run.

    >>> from torch import nn
    >>> table = param_table(nn.Linear(3, 2))
    >>> print(table)
    Linear: 8 parameters, all trainable; float32 on cpu, 32 bytes
    <BLANKLINE>
    name    shape  elements  state
    weight  2x3           6  trainable
    bias    2             2  trainable
    >>> table.rows[0].name, table.rows[0].bytes, table.modules[""].trainable
    ('weight', 24, 8)
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_none=True, key=key, values=False)
    entries = [entry for entry in select(inventory, patterns) if entry.tensor is not None]
    if not entries:
        raise ParamCheckUsageError(f"{inventory.title} holds None only: there is nothing to show")
    of_groups, groups = ({}, []) if optimizer is None else read_optimizer(optimizer, inventory)
    of_losses = read_losses(model, losses, entries) if losses is not None else {}
    return made_of(inventory, read_rows(entries, of_groups, of_losses), groups)


def made_of(
    inventory: Inventory, rows: Sequence[ParamRow], groups: Sequence[str] = ()
) -> ParamTable:
    """Return the table of these rows."""
    modules = module_totals(rows, kinds_of(inventory))
    contents = Contents(inventory.title, tuple(rows), modules, tuple(groups))
    table = ParamTable(table_text(contents, terminal_width()))
    table._contents = contents
    return table


def kinds_of(inventory: Inventory) -> dict[str, str]:
    """Return the class of each module by its first name; nothing in a mapping."""
    if inventory.root is None:
        return {}
    return {
        prefix[:-1]: type(unwrapped(module)).__name__
        for prefix, _, module in first_places(inventory.root)
    }


def terminal_width() -> int:
    """Return how wide the terminal is, 80 where that is not known."""
    return get_terminal_size((WIDTH, 24)).columns


def _row_dict(row: ParamRow) -> dict[str, Any]:
    return {**asdict(row), "losses": dict(row.losses)}
