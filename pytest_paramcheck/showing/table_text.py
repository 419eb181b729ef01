"""The text of a table: as wide as there is room, layers folded, in color where that is asked."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

from ..messages.folding import fold, fold_short
from ..messages.wording import plural, printable, shorten
from .rows import ParamRow, bytes_text
from .totals import Contents, Part, short_list

#: The least room for names; one that is wider than there is room gets a line of its own.
NAME_WIDTH = 20
TIE_GROUPS = 12
TIED_NAMES = 6

HEADS = ("name", "shape", "dtype", "device", "elements", "state", "grad", "group", "reached by")
DTYPE, DEVICE, ELEMENTS, STATE, GRAD, GROUP, LOSSES = range(2, 9)
#: Said once above the table where every row says the same, or left out where no row says it.
_ONCE = (DTYPE, DEVICE)
_IF_ANY = (GRAD, GROUP, LOSSES)

#: SGR codes: 1 bold, 2 faint, 31 red, 33 yellow.
_COLORS = {"not finite": "31", "none": "33", "zero": "33", "frozen": "2", "buffer": "2"}


def wants_color(stream: Any) -> bool:
    """Say whether to write in color: to a terminal, unless ``NO_COLOR`` is set (no-color.org).

    ``FORCE_COLOR`` asks for it anywhere; ``TERM=dumb`` is no terminal for colors.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    try:
        terminal = bool(stream.isatty())
    except (AttributeError, ValueError):  # not a file; a closed one
        return False
    return terminal and os.environ.get("TERM") != "dumb"


def table_text(table: Contents, width: int, *, color: bool = False) -> str:
    """Return the whole text of a table."""
    lines_of_cells = cells_of(table)
    once, hidden = hidden_columns(lines_of_cells)
    lines = textwrap.wrap(
        printable(headline(table, lines_of_cells[0], once)),
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if color:
        lines = [_colored(line, "1") for line in lines]
    lines += ["", *_layout([list(HEADS), *lines_of_cells], hidden, width, color)]
    if parts := short_list(table.modules, len(lines_of_cells)):
        lines += ["", *_modules(parts, width, color)]
    lines += [*_listed("groups", table.groups, width), *_ties(table.rows, width)]
    return "\n".join(lines)


def cells_of(table: Contents) -> list[list[str]]:
    """Return the folded rows, each a text for every column of ``HEADS``."""
    graded = any(row.grad for row in table.rows)
    folded = fold_short((printable(row.name), _cells(row, graded)) for row in table.rows)
    lines = [[one.name, *one.value] for one in folded]
    for line, one in zip(lines, folded, strict=True):
        if one.count > 1 and line[ELEMENTS] != "?":
            line[ELEMENTS] = f"{one.count} x {line[ELEMENTS]}"
    return lines


def hidden_columns(lines: Sequence[Sequence[str]]) -> tuple[set[int], set[int]]:
    """Return the columns that say the same in every row, and all that need not be shown."""
    once = {n for n in _ONCE if len({line[n] for line in lines}) == 1}
    return once, once | {n for n in _IF_ANY if not any(line[n] for line in lines)}


def _cells(row: ParamRow, graded: bool) -> tuple[str, ...]:
    number = "?" if row.elements is None else f"{row.elements:,}"
    grad = row.grad or ("-" if graded and row.kind != "buffer" and not row.trainable else "")
    losses = ", ".join(
        name if state == "nonzero" else f"{name} ({state})"
        for name, state in row.losses
        if state != "none"
    )
    group = ", ".join(row.groups)
    return row.shape, row.dtype, row.device, number, row.state, grad, group, losses


def headline(table: Contents, row: Sequence[str], once: set[int]) -> str:
    """Return what the whole is: ``LM: 223 parameters, all trainable; float32 on cpu, 892 bytes``.

    ``row`` is any row, ``once`` the columns that are the same in all of them.
    """
    parameters = [row for row in table.rows if row.kind != "buffer"]
    total = sum(row.elements or 0 for row in parameters)
    trainable = sum(row.elements or 0 for row in parameters if row.trainable)
    tensors = all(row.kind == "tensor" for row in table.rows)  # a mapping, a checkpoint
    said = f"{table.title}: {plural(total, 'element' if tensors else 'parameter')}"
    if tensors:
        said += f" in {plural(len(parameters), 'tensor')}"
    if lazy := sum(row.elements is None for row in parameters):
        said += f" and {lazy} lazy"
    if total and (trainable or not tensors):
        share = {total: "all trainable", 0: "all frozen"}.get(trainable, f"{trainable:,} trainable")
        said += f", {share}"
    if buffers := len(table.rows) - len(parameters):
        said += f", {plural(buffers, 'buffer')}"
    where = [row[DTYPE]] if DTYPE in once else []
    where += [f"on {row[DEVICE]}"] if DEVICE in once else []
    count = sum(row.bytes or 0 for row in table.rows)
    # Nothing is known of what is lazy, and 0 bytes would be a claim.
    size = bytes_text(count) if count or all(row.bytes is not None for row in table.rows) else ""
    return f"{said}; {', '.join(filter(None, [' '.join(where), size]))}"


def _layout(
    table: Sequence[Sequence[str]], hidden: set[int], columns: int, color: bool
) -> list[str]:
    keep = [column for column in range(1, len(HEADS)) if column not in hidden]
    widths = {column: max(len(row[column]) for row in table) for column in keep}
    room = max(NAME_WIDTH, columns - sum(size + 2 for size in widths.values()))
    width = max(len(row[0]) for row in table if len(row[0]) <= room)
    lines = []
    for number, row in enumerate(table):
        cells = [
            row[column].rjust(widths[column])
            if column == ELEMENTS
            else row[column].ljust(widths[column])
            for column in keep
        ]
        if color:
            cells = [
                _colored(cell, "1") if number == 0 else _by_word(cell, row[column])
                for column, cell in zip(keep, cells, strict=True)
            ]
        name = row[0]
        if len(name) > width:
            lines.append(name)
            name = ""
        shown = name.ljust(width)
        if color and number == 0:
            shown = _colored(shown, "1")
        lines.append("  ".join([shown, *cells]).rstrip())
    return lines


def _by_word(cell: str, word: str) -> str:
    code = _COLORS.get(word.partition(",")[0])
    return _colored(cell, code) if code else cell


def _colored(text: str, code: str) -> str:
    bare = text.rstrip()  # a line ends where its text does
    return f"\x1b[{code}m{bare}\x1b[0m{text[len(bare) :]}" if bare else text


def _modules(parts: Sequence[Part], width: int, color: bool) -> list[str]:
    """Return what each part of the model holds; the whole is the headline's."""
    whole = sum(part.count * part.bytes for part in parts) or 1
    rows = [("module", "elements", "size", "share")]
    for part in parts:
        times = f"{part.count} x " if part.count > 1 else ""
        share = f"{100 * part.count * part.bytes / whole:.1f}%"
        rows.append((part.name, f"{times}{part.elements:,}", bytes_text(part.bytes), share))
    widths = [max(len(row[column]) for row in rows) for column in range(1, 4)]
    room = max(NAME_WIDTH, width - sum(size + 2 for size in widths))
    name_width = max(len(row[0]) for row in rows if len(row[0]) <= room)
    lines = []
    for number, (name, *cells) in enumerate(rows):
        if len(name) > name_width:
            lines.append(name)
            name = ""
        texts = [cell.rjust(size) for cell, size in zip(cells, widths, strict=True)]
        line = "  ".join([name.ljust(name_width), *texts]).rstrip()
        lines.append(_colored(line, "1") if color and number == 0 else line)
    return lines


def _listed(title: str, texts: Sequence[str], width: int) -> list[str]:
    if not texts:
        return []
    lines = ["", f"{title}:"]
    for text in texts:
        lines += textwrap.wrap(
            printable(text),
            width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
        )
    return lines


def _ties(rows: Sequence[ParamRow], width: int) -> list[str]:
    tied = [tuple(map(printable, row.names)) for row in rows if len(row.names) > 1]
    if not tied:
        return []
    # Ties that repeat over layers are one line: fold what each group's names have in common.
    shown: dict[str, None] = {}
    for names, _, _ in fold(("\0".join(group).replace("\0", ".\0."), len(group)) for group in tied):
        folded = fold_short((name, None) for name in names.split(".\0."))
        shown[" = ".join(row.name for row in folded)] = None
    texts = [_fitted(text.split(" = "), width - 2) for text in shown]
    lines = ["", "tied:"]
    lines += [f"  {text}" for text in texts[:TIE_GROUPS]]
    if len(texts) > TIE_GROUPS:
        lines.append(f"  ... and {len(texts) - TIE_GROUPS} more")
    return lines


def _fitted(names: Sequence[str], width: int) -> str:
    """Return tied names, as many as there is room for and at most six."""
    texts = (shorten(names, at_most).replace(", ", " = ") for at_most in range(TIED_NAMES, 0, -1))
    return next((text for text in texts if len(text) <= width), shorten(names, 1))
