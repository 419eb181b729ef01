"""The table as a piece of HTML, for notebooks: in their font and colors, without scripts."""

from __future__ import annotations

from ..messages.folding import fold_short
from ..messages.wording import printable
from .rows import bytes_text
from .table_text import DEVICE, DTYPE, ELEMENTS, HEADS, cells_of, headline, hidden_columns
from .templates import render
from .totals import Contents, short_list

#: A notebook with more rows is slow to scroll; the text and ``rows`` have them all.
MOST = 500


def table_html(table: Contents) -> str:
    """Return a ``<div>`` with the folded rows, what modules hold, groups and tied names."""
    lines = cells_of(table)
    once, hidden = hidden_columns(lines)
    shown = [column for column in range(len(HEADS)) if column not in hidden]
    parts = short_list(table.modules, len(lines))
    whole = sum(part.count * part.bytes for part in parts) or 1
    ties = fold_short(
        (" = ".join(map(printable, row.names)), None) for row in table.rows if len(row.names) > 1
    )
    return render(
        "table.html",
        headline=printable(headline(table, lines[0], once)),
        heads=[HEADS[column] for column in shown],
        rows=[[line[column] for column in shown] for line in lines[:MOST]],
        right={shown.index(ELEMENTS)},
        plain={shown.index(column) for column in (DTYPE, DEVICE) if column in shown},
        left_out=max(len(lines) - MOST, 0),
        parts=[
            {
                "name": part.name,
                "count": part.count,
                "elements": f"{part.elements:,}",
                "size": bytes_text(part.bytes),
                "share": 100 * part.count * part.bytes / whole,
            }
            for part in parts
        ],
        groups=[printable(text) for text in table.groups],
        ties=[tie.name for tie in ties],
    )
