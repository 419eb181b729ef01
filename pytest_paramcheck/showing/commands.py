"""The commands ``table``, ``page`` and ``diff`` of the command line: they load no pytest."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..messages.errors import ParamCheckError
from ..messages.findings import finding_data
from ..messages.folding import fold_short
from ..messages.rendering import align
from ..messages.wording import plural, printable
from ..parameters.files.paths import demand_writable
from .cases import gather_case
from .compared import KINDS, Difference, compare
from .page import gather, written
from .page_data import page_data
from .progress import doing
from .subjects import on_device, read
from .table import param_table, terminal_width
from .table_text import wants_color
from .templates import page_html

#: How many rows of one kind of difference are shown.
ROWS = 20


def table(given: Namespace) -> int:
    """Print the table of a model or checkpoint."""
    with on_device(given.device):
        shown = read(given.subject, key=given.key, seed=given.seed)
        # A case's loss needs a model that is run, which a table of its parameters does not.
        found = param_table(shown.inventory, *given.patterns)
    if given.json:
        _write(found.to_json(indent=2))
    else:
        _write(found.text(terminal_width(), color=wants_color(sys.stdout)))
    return 0


def page(given: Namespace) -> int:
    """Write the page of a model or checkpoint, and say where it is."""
    demand_writable(Path(given.output), given.output)
    with on_device(given.device):
        before = None
        if given.before is not None:
            before = read(given.before, key=given.before_key, seed=given.seed).inventory
        shown = read(given.subject, key=given.key, seed=given.seed)
        title = given.title or given.subject
        with doing(f"measuring {given.subject}"):
            if shown.run is None:
                contents = gather(shown.inventory, before=before, title=title)
            else:
                contents = gather_case(shown.run, before=before, title=given.title or "")
            if given.before is not None:
                contents.before = given.before
            data = page_data(contents)
    path = written(Path(given.output), page_html(data))
    if given.json:
        _write(json.dumps({"path": str(path), "notes": data["notes"]}, indent=2))
    else:
        _write(f"{path}\n" + "".join(f"note: {note}\n" for note in data["notes"]), end="")
    return 0


def diff(given: Namespace) -> int:
    """Print what differs between two models or checkpoints; 1 where something does."""
    with on_device(given.device):
        before = read(given.before, key=given.key, seed=given.seed).inventory
        after = read(given.after, key=given.key, seed=given.seed).inventory
        with doing("comparing"):
            found = compare(before, after)
    if given.json:
        _write(
            json.dumps(
                {
                    "before": given.before,
                    "after": given.after,
                    "differences": [
                        {"name": d.name, "kind": d.kind, "text": d.text, "change": d.change}
                        for d in found
                    ],
                },
                indent=2,
            )
        )
    else:
        most = None if given.all else ROWS
        _write("\n".join(_differences(found, given.before, given.after, most)))
    return 1 if found else 0


def checkpoint_result(path: str, error: ParamCheckError | None, *, as_json: bool) -> int:
    """Print what ``assert_checkpoint`` said of a checkpoint; 1 where it found something."""
    if as_json:
        findings = [] if error is None else [finding_data(finding) for finding in error.findings]
        outcome = "passed" if error is None else "failed"
        _write(json.dumps({"path": path, "outcome": outcome, "findings": findings}, indent=2))
    else:
        _write(f"{printable(path)}: whole and finite" if error is None else str(error))
    return 0 if error is None else 1


def _differences(
    found: Sequence[Difference], before: str, after: str, most: int | None
) -> list[str]:
    sides = f"{printable(before)} -> {printable(after)}"
    if not found:
        return [f"no differences: {sides}"]
    lines = [f"{plural(len(found), 'difference')}: {sides}"]
    for kind in KINDS:
        of_kind = [d for d in found if d.kind == kind]
        if not of_kind:
            continue
        if kind == "values":  # what moved most is what is looked for
            of_kind.sort(key=lambda d: -(d.change or 0))
        folded = fold_short(((printable(d.name), printable(d.text)) for d in of_kind), width=None)
        rows = [(row.name, row.value) for row in folded]
        lines += ["", f"{kind} ({len(of_kind)}):"]
        lines += [f"  {line}".rstrip() for line in align(rows[:most])]
        if most is not None and len(rows) > most:
            lines.append(f"  ... and {len(rows) - most} more (--all shows them)")
    return lines


def _write(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
