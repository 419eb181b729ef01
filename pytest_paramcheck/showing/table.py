"""A readable table of a model's parameters: plain text, as wide as the terminal, layers folded."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.folding import fold, fold_short
from ..messages.wording import plural, printable, shorten
from ..parameters.running.gradstate import GradState, grad_state
from ..parameters.subject.inventory import Entry, Inventory, Subject, take_inventory
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.select import select
from ..parameters.tensors.describe import dtype_text, shape_text

#: Where the terminal's width is not known.
WIDTH = 80
#: The least room for names; one that is wider than there is room gets a line of its own.
NAME_WIDTH = 20
TIE_GROUPS = 12
TIED_NAMES = 6


def param_table(model: Subject, *patterns: Pattern) -> str:
    """Return a readable table of a model's parameters.

    One row for each parameter and buffer, repeated layers folded into one
    (``blocks.{0..31}.mlp.weight``): shape, number of elements, what it is (trainable, frozen,
    buffer, not saved, tied) and the state of its gradient where any has one. Dtype and device
    are columns where they differ. Tied names are listed below. Patterns choose rows. As wide as
    the terminal, 80 columns where that is not known; only a longer name is wider. Reads no
    values but gradients', so a model of any size on meta is fine.

    Raises :class:`ParamCheckUsageError` for a pattern that matches nothing.

    >>> from torch import nn
    >>> print(param_table(nn.Linear(3, 2)))
    Linear: 8 parameters, all trainable; float32 on cpu
    <BLANKLINE>
    name    shape  elements  state
    weight  2x3           6  trainable
    bias    2             2  trainable
    """
    inventory = take_inventory(model, allow_none=True)
    entries = [entry for entry in select(inventory, patterns) if entry.tensor is not None]
    if not entries:
        raise ParamCheckUsageError(f"{inventory.title} holds None only: there is nothing to show")
    columns = _columns(entries)
    rows = fold_short(
        (printable(entry.name), cells) for entry, cells in zip(entries, columns, strict=True)
    )
    heads = ["name", "shape", "dtype", "device", "elements", "state", "grad"]
    table: list[list[str]] = []
    for row in rows:
        shape, dtype, device, elements, state, grad = row.value
        name, count = row.name, row.count
        number = "?" if elements is None else f"{elements:,}"
        if count > 1 and elements is not None:
            number = f"{count} x {elements:,}"
        table.append([name, shape, dtype, device, number, state, grad])
    hidden = _same_everywhere(table)
    width = get_terminal_size((WIDTH, 24)).columns
    headline = printable(_headline(inventory, entries, table, hidden))
    lines = textwrap.wrap(
        headline, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    lines += ["", *_layout([heads, *table], hidden, width)]
    return "\n".join(map(printable, lines + _ties(entries, width)))


Cells = tuple[str, str, str, "int | None", str, str]


def _columns(entries: Sequence[Entry]) -> list[Cells]:
    any_grad = any(_has_grad(entry) for entry in entries)
    return [
        (
            shape_text(entry.tensor),
            dtype_text(entry.tensor),
            str(entry.tensor.device),
            None if is_lazy(entry.tensor) else entry.tensor.numel(),
            _state(entry),
            _grad(entry) if any_grad else "",
        )
        for entry in entries
        if entry.tensor is not None
    ]


def _has_grad(entry: Entry) -> bool:
    # A tensor that autograd computed has no .grad to ask for: torch would warn.
    tensor = entry.tensor
    return tensor is not None and tensor.is_leaf and tensor.grad is not None


def _state(entry: Entry) -> str:
    if entry.kind == "buffer":
        state = "buffer" if entry.persistent else "buffer, not saved"
    elif entry.kind == "tensor" and not entry.trainable:
        state = "tensor"
    else:
        state = "trainable" if entry.trainable else "frozen"
    return f"{state}, {len(entry.names)} names" if len(entry.names) > 1 else state


def _grad(entry: Entry) -> str:
    if entry.kind == "buffer" or entry.tensor is None or not entry.tensor.is_leaf:
        return ""
    state = grad_state(entry.tensor.grad)
    return "-" if state is GradState.NONE and not entry.trainable else state.value


def _same_everywhere(table: Sequence[Sequence[str]]) -> set[int]:
    """The columns that say the same in every row and are said once, above the table."""
    return {
        column
        for column in (2, 3, 6)
        if len({row[column] for row in table}) == 1 and (column != 6 or not table[0][6])
    }


def _headline(
    inventory: Inventory, entries: Sequence[Entry], table: Sequence[Sequence[str]], same: set[int]
) -> str:
    parameters = [e for e in entries if e.kind != "buffer" and e.tensor is not None]
    known = [e for e in parameters if e.tensor is not None and not is_lazy(e.tensor)]
    total = sum(e.tensor.numel() for e in known if e.tensor is not None)
    trainable = sum(e.tensor.numel() for e in known if e.tensor is not None and e.trainable)
    said = f"{inventory.title}: {plural(total, 'parameter')}"
    if lazy := len(parameters) - len(known):
        said += f" and {lazy} lazy"
    if total:
        share = {total: "all trainable", 0: "all frozen"}.get(trainable, f"{trainable:,} trainable")
        said += f", {share}"
    if buffers := len(entries) - len(parameters):
        said += f", {plural(buffers, 'buffer')}"
    where = [table[0][2]] if 2 in same else []
    where += [f"on {table[0][3]}"] if 3 in same else []
    return f"{said}; {' '.join(where)}" if where else said


def _layout(table: Sequence[Sequence[str]], hidden: set[int], columns: int) -> list[str]:
    keep = [column for column in range(1, 7) if column not in hidden]
    widths = {column: max(len(row[column]) for row in table) for column in keep}
    room = max(NAME_WIDTH, columns - sum(size + 2 for size in widths.values()))
    width = max(len(row[0]) for row in table if len(row[0]) <= room)
    lines = []
    for row in table:
        cells = [
            row[column].rjust(widths[column]) if column == 4 else row[column].ljust(widths[column])
            for column in keep
        ]
        name = row[0]
        if len(name) > width:
            lines.append(name)
            name = ""
        lines.append("  ".join([name.ljust(width), *cells]).rstrip())
    return lines


def _ties(entries: Sequence[Entry], width: int) -> list[str]:
    tied = [entry for entry in entries if len(entry.names) > 1]
    if not tied:
        return []
    # Ties that repeat over layers are one line: fold what each group's names have in common.
    rows: dict[str, None] = {}
    for names, _, _ in fold(
        ("\0".join(entry.names).replace("\0", ".\0."), len(entry.names)) for entry in tied
    ):
        folded = fold_short((name, None) for name in names.split(".\0."))
        rows[" = ".join(row.name for row in folded)] = None
    texts = [_fitted(text.split(" = "), width - 2) for text in rows]
    lines = ["", "tied:"]
    lines += [f"  {text}" for text in texts[:TIE_GROUPS]]
    if len(texts) > TIE_GROUPS:
        lines.append(f"  ... and {len(texts) - TIE_GROUPS} more")
    return lines


def _fitted(names: Sequence[str], width: int) -> str:
    """Return tied names, as many as there is room for and at most six."""
    texts = (shorten(names, at_most).replace(", ", " = ") for at_most in range(TIED_NAMES, 0, -1))
    return next((text for text in texts if len(text) <= width), shorten(names, 1))
