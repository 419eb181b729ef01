"""The assertion that no parameter is kept where ``nn.Module`` does not look."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ..checks import registered as checks
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..messages.wording import did_you_mean
from ..parameters.running.graph import leaves_of_call, names_of_held
from ..parameters.running.preserve import put_away
from ..parameters.running.undo import Undo
from ..parameters.subject.fsdp import gathered_copies
from ..parameters.subject.hidden import hidden_tensors
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.reading import take_inventory
from .verdict import one_verdict


@one_verdict(values=False, runs=True)
def assert_registered(
    model: nn.Module,
    loss_fn: Callable[[Any], Tensor] | None = None,
    *,
    tensors: bool = False,
    allow: str | nn.Module | Sequence[str | nn.Module] = (),
) -> None:
    """Assert that no parameter or module hides from ``parameters()``.

    Looks into lists, tuples, sets, dictionaries, dataclasses and other objects in the plain
    attributes of the model's modules, into arrays of objects, iterators and caches, partials,
    closures and hooks.

    Passes on a second reference to something registered, whoever holds it (optimizers,
    schedulers, caches, metrics), on modules without parameters and buffers, and on activations
    and inputs that were made to require a gradient.

    * ``loss_fn=``: also runs ``loss_fn(model)``, puts everything back as :func:`assert_grads_reach`
      does, and looks at the leaves of its graph.
    * ``tensors=True``: asks for plain tensors too: they do not follow ``.to()`` and are not saved.
    * ``allow=``: what is hidden on purpose (a frozen teacher): a path, what is below it, or a glob;
      a module stands for all that it holds (a loss with parameters that another optimizer trains).

    Fails, naming the path (``layers[2].weight``), what was found there and the line that
    registers it.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a subject that is no
    module, a loss that is no tensor, and an ``allow`` that names nothing.

    >>> from torch import nn
    >>> assert_registered(nn.Sequential(nn.Linear(3, 2)))

    >>> model = nn.Identity()
    >>> model.layers = [nn.Linear(3, 2)]
    >>> assert_registered(model)
    Traceback (most recent call last):
        ...
    ParamCheckError: not registered: layers[0].weight, layers[0].bias (Identity)
    <BLANKLINE>
      layers[0].weight  Parameter 2x3 float32 cpu: Linear in a list
      layers[0].bias    Parameter 2 float32 cpu: Linear in a list
    <BLANKLINE>
      hint: self.layers = nn.ModuleList(...)
    """
    __tracebackhide__ = True
    if not isinstance(model, nn.Module):
        raise ParamCheckUsageError(
            f"assert_registered looks into an nn.Module, not {type(model).__name__}: "
            f"a mapping has nothing but its entries"
        )
    allowed = (allow,) if isinstance(allow, (str, nn.Module)) else tuple(allow)
    elsewhere = {
        module: {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        for module in allowed
        if isinstance(module, nn.Module)
    }
    trained = {key for held in elsewhere.values() for key in held}
    inventory = take_inventory(model, allow_empty=True)
    hidden = hidden_tensors(inventory)
    findings = checks.not_registered(inventory, hidden, tensors=tensors, elsewhere=trained)
    seen = {id(item.tensor) for item in hidden.tensors}
    if loss_fn is not None:
        if not callable(loss_fn):
            raise ParamCheckUsageError(
                f"loss_fn is called with the model, and {type(loss_fn).__name__} is not a "
                f"function: "
                f"pass lambda model: ..."
            )
        findings += _findings_of_leaves(model, inventory, loss_fn, trained, seen)
    elif inventory.empty and not findings:
        raise ParamCheckUsageError(
            f"{inventory.title} has no parameters and no buffers, and hides none: "
            f"there is nothing to check"
        )
    for module, held in elsewhere.items():
        if seen.isdisjoint(held):
            raise ParamCheckUsageError(
                f"allow={type(module).__name__}(...) holds nothing that is hidden; leave it out"
            )
    paths = [path for path in allowed if isinstance(path, str)]
    raise_if(_without(findings, paths), inventory)


def _findings_of_leaves(
    model: nn.Module,
    inventory: Inventory,
    loss_fn: Callable[[Any], Tensor],
    elsewhere: Set[int],
    seen: set[int],
) -> list[Finding]:
    """Run the loss, and note its leaves as seen.

    In a frame of its own: an error keeps the assertion's, and what is in it.
    """
    __tracebackhide__ = True
    with Undo() as undo, undo:
        put_away(undo, model, loss_fn)
        known = [entry.tensor for entry in inventory.entries if entry.tensor is not None]
        # Asked after the call, which makes them.
        own = chain(known, gathered_copies(model))
        loss, leaves = leaves_of_call(lambda: loss_fn(model), own, loss_fn)
        later = hidden_tensors(inventory)
        named = names_of_held(loss_fn)
        findings = checks.unregistered_leaves(inventory, leaves, later, named, elsewhere)
        seen |= {id(leaf.tensor) for leaf in leaves}
    if loss is None:
        raise ParamCheckUsageError(
            "loss_fn must return the loss, one tensor: nothing can be followed from what "
            "it returned"
        )
    return [*findings, *checks.loss_without_graph(loss)]


def _without(findings: list[Finding], allow: Sequence[str]) -> list[Finding]:
    """Leave out the findings below the allowed paths; each of these must name something."""
    __tracebackhide__ = True
    left = findings
    for pattern in allow:
        matched = {id(f) for f in findings if _named(f.names[0], pattern)}
        if not matched:
            near = did_you_mean(pattern, [f.names[0] for f in findings])
            raise ParamCheckUsageError(
                f"allow={pattern!r} names nothing that is hidden;{near or ' leave it out'}"
            )
        left = [f for f in left if id(f) not in matched]
    return left


def _named(path: str, pattern: str) -> bool:
    below = path.startswith((f"{pattern}.", f"{pattern}["))
    # Only * is a wildcard: [0] is an index in these paths.
    glob = ".*".join(re.escape(part) for part in pattern.split("*"))
    return path == pattern or below or re.fullmatch(glob, path) is not None
