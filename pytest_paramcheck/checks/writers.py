"""Who wrote a parameter in a block, and why nobody did: the causes of the findings of ``blocks``.

A cause is stated only where it was seen: a step is one where the content differed right after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from ..messages.wording import join_words
from ..parameters.running.kept import AfterBlock, Kept
from ..parameters.running.watch import Seen, Watch
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.content import version_of
from ..parameters.tensors.describe import dtype_text

#: ``(what was kept, its names, it now, how it was replaced) -> (reason, hint)`` where it is known
#: what changed an entry, else two ``""``.
Cause: TypeAlias = Callable[[Kept, tuple[str, ...], Tensor, str], tuple[str, str]]
LOW_PRECISION = ("bfloat16", "float16")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def causes(inventory: Inventory, watch: Watch, after: AfterBlock) -> Cause:
    """Return what is known about writers: normalization statistics, optimizers that stepped."""

    @cache
    def changed() -> dict[str, bool]:
        return {
            name: now is not None and after.moved(old, now)
            for old, names, now in after.rows
            for name in (names if old.part is None else old.names)
        }

    def cause(old: Kept, names: tuple[str, ...], now: Tensor, replaced: str) -> tuple[str, str]:
        for name in names if old.part is None else old.names:
            owner, _, leaf = name.rpartition(".")
            if leaf not in _STATISTICS:
                continue
            module = inventory.module_at.get(owner)
            if not isinstance(module, _NormBase) or not module.training:
                continue
            # A BatchNorm counts its forwards: without one, somebody else wrote.
            counts = isinstance(module, _BatchNorm) and module.num_batches_tracked is not None
            count = f"{owner}.num_batches_tracked".lstrip(".")
            if counts and not changed().get(count, True):
                continue
            called = type(module).__name__
            at = module_text(inventory.module_at, owner)
            hint = (
                f"{at}.eval() after every model.train() keeps the statistics of {called}; "
                f"requires_grad does not"
            )
            return f"{called} in train mode updates it in every forward", hint
        if replaced:
            return "", ""
        seen = watch.seen(old.watched)
        if seen.writers and old.part is not None:
            return _stepped_part(seen)
        if seen.writers:
            return _stepped(seen, now, inventory)
        if version_of(now) != old.version and (
            found := _renormalizing(inventory.module_at, old, names)
        ):
            return found
        return _unseen_writer(old, now, seen, watch), ""

    return cause


def _renormalizing(
    modules: dict[str, nn.Module], old: Kept, names: tuple[str, ...]
) -> tuple[str, str] | None:
    """Return what an embedding with ``max_norm`` does to the rows that it looks up."""
    for name in names if old.part is None else old.names:
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        if leaf == "weight" and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            if module.max_norm is None or old.tensor is not module.weight:
                continue
            layer = f"{type(module).__name__}(max_norm={module.max_norm:g})"
            hint = f"{module_text(modules, owner)}.max_norm = None keeps them as they are"
            return f"{layer} shortens the rows that it looks up, in every forward", hint
    return None


def module_text(modules: dict[str, nn.Module], path: str) -> str:
    """Return how code reaches a module: ``model.blocks[0].norm``."""
    text, at = "model", ""
    for part in path.split(".") if path else ():
        indexed = part.isdigit() and isinstance(modules.get(at), (nn.Sequential, nn.ModuleList))
        if not indexed and not part.isidentifier():
            return f"model.get_submodule({path!r})"
        text += f"[{part}]" if indexed else f".{part}"
        at = f"{at}.{part}".lstrip(".")
    return text


def _stepped(seen: Seen, now: Tensor, inventory: Inventory) -> tuple[str, str]:
    """Return what a step that wrote an entry did, and how it would have left it alone."""
    writers = join_words(seen.writers)
    decay = seen.weight_decay and not seen.momentum
    if seen.shared and inventory.saved:
        hint = "state_dict() shares memory with the model: keep copy.deepcopy(model.state_dict())"
    elif seen.shared and seen.wrote_with:
        hint = f"it shares memory with what {writers} steps: keep a clone()"
    elif seen.shared:
        hint = f"a parameter group with weight_decay=0 for it in {writers}" if decay else ""
    elif seen.wrote_with is None:
        hint = f"a step has to skip it: `if p.grad is None: continue` in {writers}"
    elif not seen.wrote_with:
        hint = (
            f"its gradient has to be None, not zero: zero_grad(set_to_none=True), or keep it out "
            f"of {writers}"
        )
    elif not now.requires_grad:
        hint = (
            f"its gradient has to be None: zero_grad(set_to_none=True) once it is frozen, or keep "
            f"it out of {writers}"
        )
    else:
        hint = (
            "freeze it with requires_grad_(False) before the backward pass, or train a copy: "
            "copy.deepcopy(model)"
        )
    if seen.wrote_with:
        frozen = "" if now.requires_grad or seen.shared else ", although it is frozen"
        return f"{writers} stepped {_it(seen)} with the gradient in .grad{frozen}", hint
    return _stepped_without(seen), hint


def _stepped_part(seen: Seen) -> tuple[str, str]:
    """Return what a step did to some elements: of a parameter, not all can be kept out of it."""
    writers = join_words(seen.writers)
    if seen.wrote_with:
        hint = f"set their gradient to zero before {writers} steps"
        return f"{writers} stepped them with the gradient in .grad", hint
    hint = "bits differ where 0.0 became -0.0: with atol=1e-12 numbers are compared"
    if seen.weight_decay or seen.momentum:
        hint = f"write them back after {writers} stepped: their zero gradient does not stop it"
    return _stepped_without(seen), hint


def _stepped_without(seen: Seen) -> str:
    """Return what a step that wrote without a gradient, or with a zero one, moved it by."""
    writers, it = join_words(seen.writers), _it(seen)
    if seen.wrote_with is None:
        doubt = "weight decay?" if seen.weight_decay else "weight decay or state of its own?"
        return f"{writers}'s step wrote {it} although it has no gradient ({doubt})"
    by = []
    if seen.weight_decay:
        by.append(f"weight decay {seen.weight_decay:g}")
    if seen.momentum:
        by.append("momentum of earlier steps")
    if by:
        return f"{writers} moved {it} by {join_words(by)} only, its gradient was all zero"
    return f"{writers} stepped {it} with a gradient of all zero"


def _it(seen: Seen) -> str:
    return "a parameter on this memory" if seen.shared else "it"


def _unseen_writer(old: Kept, now: Tensor, seen: Seen, watch: Watch) -> str:
    """Say what ``_version`` tells about a writer that is not an optimizer: a hint, no proof."""
    version = version_of(now)
    if version is None or old.version is None:
        return ""
    if version == old.version:
        return "written behind autograd's back (.data, numpy, the storage)"
    if seen.cut_short:
        return f"written in place; {_cut_short(seen)}"
    if seen.optimizers:
        return f"written in place; {join_words(seen.optimizers)} stepped, but did not change it"
    if not watch.optimizers:
        return "written in place, and no optimizer stepped"
    if watch.unread:
        return f"written in place; what {join_words(watch.unread)} holds cannot be read"
    return f"written in place; {join_words(watch.optimizers)} stepped, but does not hold it"


def without_gradient(seen: Seen, elsewhere: str) -> tuple[str, str]:
    """Return how a parameter changed without a gradient, and what to do about it.

    ``elsewhere`` is the attribute that a gradient was written to instead of ``.grad``.
    """
    why = _stepped_without(seen) if seen.writers else _nothing_stepped(seen)
    if elsewhere:
        return f"{why}; {_elsewhere_text(elsewhere)}", _elsewhere_hint(elsewhere)
    if seen.optimizers and seen.arrived and not seen.stepped_with:
        cleared = seen.stepped_with is None
        how = "cleared" if cleared else "made all zero"
        hint = _ZERO_GRAD if cleared else _MADE_ZERO
        return f"{why}; a gradient had arrived, and was {how} before the step", hint
    return why, ""


def _nothing_stepped(seen: Seen) -> str:
    other = "something else wrote it"
    if seen.cut_short:
        return _cut_short(seen)
    if seen.optimizers:
        stepped = join_words(seen.optimizers)
        if seen.stepped_with is None:
            return f"{stepped} stepped without a gradient for it, {other}"
        if seen.stepped_with and seen.lr == 0:
            return f"{stepped} stepped it with lr 0, {other}"
        gradient = "the gradient it got" if seen.stepped_with else "a gradient of all zero"
        return f"{stepped}'s step with {gradient} wrote nothing, {other}"
    if seen.arrived:
        gradient = "its gradient was not finite (a GradScaler skips such a step)"
        return f"{gradient} and no optimizer stepped it, {other}"
    if seen.arrived is not None:
        return f"its gradient was all zero and no optimizer stepped it, {other}"
    return f"no gradient reached it and no optimizer stepped it, {other}"


def _cut_short(seen: Seen) -> str:
    return f"an error ended {_whose_step(seen)} half way, and what it wrote is not known"


def _whose_step(seen: Seen) -> str:
    return f"{join_words(seen.cut_short)}'s step"


def _elsewhere_text(attribute: str) -> str:
    return f"its .{attribute} was written, not its .grad"


def _elsewhere_hint(attribute: str) -> str:
    return f"pass grad={attribute!r}"


def not_changed(
    old: Kept, now: Tensor, seen: Seen, watch: Watch, elsewhere: str, finite: bool
) -> tuple[str, str]:
    """Return why a parameter did not move, and what to do about it.

    ``finite`` says whether all gradients that arrived in the block are finite.
    """
    if not old.requires_grad:
        unfrozen = ", unfrozen in the block" if now.requires_grad else ""
        return f"frozen (requires_grad=False{unfrozen})", ""
    if seen.arrived is None and seen.stepped_with is None:
        if elsewhere:
            return _elsewhere_text(elsewhere), _elsewhere_hint(elsewhere)
        return (
            "no gradient reached it",
            "assert_grads_reach(model, loss_fn) says why a gradient does not arrive",
        )
    if not seen.arrived and not seen.stepped_with:
        return "its gradient was all zero", ""
    if not seen.optimizers:
        return _not_stepped(watch, finite)
    stepped = join_words(seen.optimizers)
    if not seen.stepped_with:
        if seen.shared:
            return f"{stepped} stepped {_it(seen)} with a gradient of all zero", ""
        if seen.stepped_with is not None:
            return (
                f"its gradient was made all zero before {stepped} stepped",
                _MADE_ZERO,
            )
        return (
            f"its gradient was cleared before {stepped} stepped",
            _ZERO_GRAD,
        )
    if seen.writers:
        return f"{join_words(seen.writers)} moved it, but at the end it has its old values", ""
    if seen.cut_short:
        return f"got a gradient, but an error ended {_whose_step(seen)} before it wrote it", ""
    if seen.lr == 0:
        return f"got a gradient, but {stepped} stepped it with lr 0", ""
    if not math.isfinite(seen.stepped_with):
        return f"its gradient was not finite, and {stepped}'s step wrote nothing", _SCALER_HINT
    rate = "" if seen.lr is None else f", lr {seen.lr:g}"
    size = f"largest gradient {seen.stepped_with:.3g}{rate}"
    if not seen.rounded:
        doubt = "does it warm up, delay or skip steps?"
        return f"got a gradient, but {stepped}'s step wrote nothing ({size}): {doubt}", ""
    dtype = dtype_text(now)
    low = dtype in LOW_PRECISION
    return (
        f"got a gradient, but {stepped}'s step was rounded away in {dtype} ({size})",
        "keep float32 master weights, or use stochastic rounding"
        if low
        else f"a larger lr, or a dtype that resolves more than {dtype}",
    )


_ZERO_GRAD = "call zero_grad() before backward() or after step(), not between the two"
_MADE_ZERO = (
    "look between backward() and step() for a clip to 0, a mask of zeros, or a "
    "zero_grad(set_to_none=False), which belongs before backward()"
)
_SCALER_HINT = "a GradScaler skips such a step and lowers its scale: GradScaler(init_scale=...)"


def _not_stepped(watch: Watch, finite: bool) -> tuple[str, str]:
    if not watch.optimizers:
        if finite:
            return "got a gradient, but no optimizer stepped", ""
        said = "no optimizer stepped, and a gradient was not finite: a GradScaler skips such a step"
        return said, _SCALER_HINT
    if watch.unread:
        return f"got a gradient, but what {join_words(watch.unread)} holds cannot be read", ""
    return (
        f"got a gradient, but {join_words(watch.optimizers)} does not hold it",
        "assert_optimizer_covers(optimizer, model) names what is missing and what is stale",
    )
