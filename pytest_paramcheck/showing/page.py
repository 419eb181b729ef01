"""A page of a model: one HTML file that shows what there is to see of its parameters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import printable
from ..parameters.files.paths import demand_writable, reason_of
from ..parameters.files.whole import write_whole
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.call import FAKE, Call, asks_nobody, exchange, running, writes_here
from .asked import read_optimizer
from .compared import compare
from .page_data import Contents, no_collection, page_data
from .rows import read_rows
from .runs import Measured, losses_of, measure
from .table import kinds_of
from .templates import page_html
from .totals import module_totals


class ParamPage:
    """What :func:`param_page` returns: ``html``, the whole page, and the ``path`` it lies at.

    In a notebook it shows itself.
    """

    def __init__(self, html: str, path: Path | None) -> None:
        self.html = html
        self.path = path

    def __fspath__(self) -> str:
        if self.path is None:
            raise TypeError("this page was not written to a file")
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"<ParamPage {printable(str(self.path or 'in memory'))}>"

    def _repr_html_(self) -> str:
        from .templates import frame_html

        return frame_html(self.html)


def param_page(
    model: Subject,
    path: str | os.PathLike[str] | None = None,
    *,
    inputs: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    before: Any = None,
    title: str = "",
) -> ParamPage:
    """Write a page on which a model's parameters can be looked at: one HTML file, no network.

    It has the tree of modules, to be searched, sorted and folded; what is frozen, not reached,
    not finite, tied; histograms of values; and, as far as there is something to measure them by:

    * ``inputs`` (a tensor, a tuple, a mapping, or a function that returns one of these) and
      ``loss``: gradients, their norms by depth, and which loss reaches what. With inputs a loss
      is a function of the output, without them of the model; several are a mapping of names to
      functions, or a list. Without a loss a fixed random projection of the output stands in.
      Without both, the gradients that the parameters have are shown. The model is left as it is,
      as by :func:`assert_grads_reach`.
    * ``optimizer`` (one, a list, a class, or a function of the model that returns one): the
      groups; and, where a loss is run, how far one step moves each parameter. The step is taken
      by a deep copy of model and optimizer.
    * ``before``, another model, state_dict, or the path of a checkpoint: what was added, removed,
      reshaped, retied since, and how far values moved.

    Parameters that are spread over ranks (``fully_shard``, tensor parallelism) are shown whole:
    every rank calls it, and the first one writes the page.

    A model on meta is shown without values. What cannot be run is said on the page. Without a
    ``path`` nothing is written: what is returned shows itself in a notebook, and has the page as
    ``.html``.

    Raises :class:`ParamCheckUsageError` for what is no subject or optimizer, for a checkpoint
    that cannot be read and a path that cannot be written.

    >>> import torch
    >>> from torch import nn
    >>> page = param_page(nn.Linear(3, 2), inputs=torch.ones(1, 3), optimizer=torch.optim.SGD)
    >>> "<h1>Linear</h1>" in page.html
    True
    """
    __tracebackhide__ = True
    call = Call("param_page", values=False, slices=True, flat=True)
    with running(call):
        contents = gather(
            model, inputs=inputs, loss=loss, optimizer=optimizer, before=before, title=title
        )
        html = page_html(page_data(contents))
        return ParamPage(html, None if path is None else _written_once(call, Path(path), html))


def gather(
    model: Subject,
    *,
    inputs: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    before: Any = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> Contents:
    """Measure what a page shows."""
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_none=True)
    entries = [entry for entry in inventory.entries if entry.tensor is not None]
    losses = losses_of(inputs, loss)
    if losses and inventory.root is None:
        raise ParamCheckUsageError(f"there is no model to run: {inventory.title} holds tensors")
    notes = list(notes)
    asked, groups = _groups(inventory, optimizer, notes)
    exchange(None)  # everybody is here: what the ranks hold is gathered
    fake = asks_nobody()
    if fake:
        notes.append(FAKE)
    on_meta = any(e.tensor is not None and e.tensor.device.type == "meta" for e in entries)
    measured = Measured()
    if on_meta:
        notes.append("on meta, where tensors have no values: structure only")
    elif losses and not fake and isinstance(inventory.root, nn.Module):
        measured = measure(inventory.root, entries, losses, optimizer)
    with no_collection():
        rows = read_rows(entries, asked, grads=False)
        modules = module_totals(rows, kinds_of(inventory))
    old = None if before is None else _subject(before)
    return Contents(
        title=title or inventory.title,
        inventory=inventory,
        entries=entries,
        rows=rows,
        modules=modules,
        measured=measured,
        groups=groups,
        before="" if old is None else _titled(before, old),
        differences=[] if old is None else compare(old, inventory, values=not fake),
        optimized=optimizer is not None,
        notes=notes,
        values=not fake,
    )


def _groups(
    inventory: Inventory, optimizer: Any, notes: list[str]
) -> tuple[dict[int, tuple[str, ...]], list[str]]:
    if optimizer is None:
        return {}, []
    if callable(optimizer) and not hasattr(optimizer, "param_groups"):
        import torch

        if (root := inventory.root) is None:
            raise ParamCheckUsageError("an optimizer is built from a model: pass one")
        by_class = isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
        try:
            optimizer = optimizer(
                [p for p in root.parameters() if p.requires_grad] if by_class else root
            )
        except Exception as error:  # whatever the user's function raises
            notes.append(f"the optimizer could not be built: {type(error).__name__}: {error}")
            return {}, []
    return read_optimizer(optimizer, inventory)


def _subject(before: Any) -> Inventory:
    __tracebackhide__ = True
    return take_inventory(Path(before) if isinstance(before, (str, os.PathLike)) else before)


def _titled(before: Any, inventory: Inventory) -> str:
    if isinstance(before, (str, os.PathLike)):
        return Path(before).name
    if inventory.root is None:
        return "the given state_dict" if inventory.saved else "the given tensors"
    return f"another {inventory.title}"


def _written_once(call: Call, path: Path, html: str) -> Path:
    """Write a page on the first of the ranks that its model is spread over, and say so on all."""
    __tracebackhide__ = True
    problem = ""
    if writes_here():
        try:
            written(path, html)
        except ParamCheckUsageError as error:
            problem = str(error)
    call.exchange(None, problem)  # where it returns, the page is there
    if problem:
        raise ParamCheckUsageError(problem)
    return path


def written(path: Path, html: str) -> Path:
    """Write a page, whole or not at all, and return where it lies.

    Raises :class:`ParamCheckUsageError` with the system's reason where that cannot be.
    """
    __tracebackhide__ = True
    demand_writable(path, str(path))
    try:
        write_whole(path, html.encode())
    except OSError as error:
        raise ParamCheckUsageError(f"{path} cannot be written: {reason_of(error)}") from None
    return path
