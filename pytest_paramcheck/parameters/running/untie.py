"""What each use of a tied parameter gives to its gradient, by a copy of the model without ties.

It cannot be read off the model: autograd adds the contributions up as they arrive. In a copy
in which every name has a parameter of its own they arrive apart.

Tests: ``tests/unit/test_tied_grads_sum.py``.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from ..subject.copies import deep_copy
from ..subject.inventory import Entry, Inventory
from ..subject.reading import take_inventory
from ..subject.walk import first_places, walk_modules
from ..tensors.content import no_values
from .explain import explain
from .grad_places import Backward, GradAt
from .gradstate import GradState
from .reach import LossFn, gradients_of
from .reasons import Reason
from .unreached import Missing, runnable


@dataclass(frozen=True, slots=True)
class TiedGradient:
    """A tie group, the gradient of the one parameter, and that of each name in the untied copy.

    ``hooked`` says whether the parameter itself has hooks, ``lost`` are the names whose use
    gives no gradient though there is one, with the reason. ``elsewhere`` is the attribute that
    a gradient was written to instead of ``.grad``.
    """

    names: tuple[str, ...]
    total: Tensor | None
    uses: tuple[Tensor | None, ...]
    hooked: bool = False
    lost: tuple[tuple[str, Missing], ...] = ()
    elsewhere: str = ""


def tied_gradients(
    model: nn.Module,
    inventory: Inventory,
    tied: Sequence[Entry],
    loss_fn: LossFn,
    *,
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> list[TiedGradient]:
    """Run ``loss_fn`` on a model and on its untied copy; return the gradients of tied entries.

    Raises :class:`ParamCheckUsageError` for a ``loss_fn`` that runs another model.
    """
    __tracebackhide__ = True
    tensors = runnable(tied, inventory)
    copied = untied_copy(model)
    apart = take_inventory(copied)
    names = [name for entry in tied for name in entry.names]
    with not_averaged(model), not_averaged(copied):
        firsts = [entry.name for entry in tied]
        totals, elsewhere = gradients_of(
            model, loss_fn, tensors, names=firsts, grad=grad, backward=backward
        )
        uses, _ = gradients_of(
            copied, loss_fn, _tensors(apart, names), names=names, grad=grad, backward=backward
        )
    for name, one in zip([e.name for e in tied] + names, totals + uses, strict=True):
        if one is not None and (reason := no_values(one)):
            raise ParamCheckUsageError(f"the gradient of {name} cannot be compared: {reason}")
    if all(use is None for use in uses) and any(total is not None for total in totals):
        raise ParamCheckUsageError(
            "loss_fn does not use the model it is given: the untied copy got no gradient; "
            "write loss_fn(model) so that it calls its argument"
        )
    per_name = iter(uses)
    groups = [
        TiedGradient(
            tuple(entry.names),
            total,
            tuple(next(per_name) for _ in entry.names),
            hooked=bool(tensor._backward_hooks),
            elsewhere=attribute if total is None else "",
        )
        for entry, tensor, total, attribute in zip(tied, tensors, totals, elsewhere, strict=True)
    ]
    return _with_lost(groups, apart, loss_fn)


@contextmanager
def not_averaged(model: nn.Module) -> Iterator[None]:
    """Let DistributedDataParallel leave gradients as they are on this rank inside the block.

    It would average those of a model, and not those of its untied copy: a sum compared with a mean.
    """
    loaded = sys.modules.get("torch.nn.parallel.distributed")
    kind = getattr(loaded, "DistributedDataParallel", ())
    with ExitStack() as stack:
        for _, _, module in first_places(model):
            if isinstance(module, kind):
                stack.enter_context(module.no_sync())
        yield


def _with_lost(
    groups: Sequence[TiedGradient], apart: Inventory, loss_fn: LossFn
) -> list[TiedGradient]:
    """Add to each group the names that are used and yet contribute nothing."""
    __tracebackhide__ = True
    without = [
        name
        for group in groups
        for name, use in zip(group.names, group.uses, strict=True)
        if use is None and not group.elsewhere
    ]
    if not without:
        return list(groups)
    reasons = explain(apart, loss_fn, _tensors(apart, without))
    lost = {
        name: Missing(apart.by_name[name], GradState.NONE, reason)
        for name, reason in zip(without, reasons, strict=True)
        if is_lost(reason)
    }
    return [
        replace(group, lost=tuple((n, lost[n]) for n in group.names if n in lost))
        for group in groups
    ]


def is_lost(reason: Reason) -> bool:
    """Whether a name without a gradient in the untied copy is used all the same."""
    # One that never gets near the parameter under that name is no defect: forward goes through
    # another of its names.
    return reason.kind in ("no_grad", "inference", "left", "detached", "swallowed", "hooked")


def _tensors(inventory: Inventory, names: Sequence[str]) -> list[Tensor]:
    return [tensor for name in names if (tensor := inventory.named[name]) is not None]


def untied_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model whose tied parameters and shared modules are separate.

    The first name of each tie keeps the copy's own parameter, so that references outside the
    registry (a plain list of layers) count as the first name's. Buffers of shared modules stay
    shared. Raises :class:`ParamCheckUsageError` for a model that cannot be copied.
    """
    __tracebackhide__ = True
    try:
        copied = deep_copy(model)
    except Exception as error:
        raise ParamCheckUsageError(
            f"{type(model).__name__} cannot be deep-copied, so its uses cannot be separated: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    _keep_flags(model, copied)
    _keep_attributes(model, copied)
    _split_modules(copied, {id(copied)}, ())
    owners = _owners(copied)
    for group in take_inventory(copied).tie_groups:
        for name in group[1:]:
            owner, key = owners[name]
            # A scripted module's registry is no dict: it has no get().
            if key in owner._parameters:
                # Through setattr, which modules with lists of their weights (LSTM) listen to.
                setattr(owner, key, _twin(owner._parameters[key]))
    return copied


def _keep_flags(model: nn.Module, copied: nn.Module) -> None:
    """Give the copied modules the modes of the originals (a deep copy of some resets them)."""
    for (_, _, old), (_, _, new) in zip(walk_modules(model), walk_modules(copied), strict=True):
        if new.training is not old.training:
            new.training = old.training


def _keep_attributes(model: nn.Module, copied: nn.Module) -> None:
    """Give the copied parameters what hangs on the originals, which a deep copy drops."""
    for (_, _, old), (_, _, new) in zip(walk_modules(model), walk_modules(copied), strict=True):
        for key, parameter in old._parameters.items():
            if parameter is not None and parameter.__dict__ and key in new._parameters:
                _hang_on(parameter, new._parameters[key])


def _hang_on(old: Tensor, new: Tensor | None) -> None:
    for name, value in old.__dict__.items():
        if new is not None and name not in new.__dict__:
            own = value.detach().clone() if isinstance(value, Tensor) else value
            setattr(new, name, own)


def _twin(parameter: Tensor | None) -> Tensor | None:
    if parameter is None or isinstance(parameter, nn.Parameter):
        twin = copy.deepcopy(parameter)
        if parameter is not None:
            _hang_on(parameter, twin)
        return twin
    # A copied scripted module holds plain tensors, and takes Parameters only.
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _split_modules(module: nn.Module, seen: set[int], path: tuple[nn.Module, ...]) -> None:
    """Give each further path of a shared module a module of its own, with the same parameters."""
    for key, child in module._modules.items():
        if child is None or any(child is above for above in path) or child is module:
            continue  # a module that contains itself has no end of paths
        if id(child) in seen:
            child = _shallow(child)
            module._modules[key] = child
        seen.add(id(child))
        _split_modules(child, seen, (*path, module))


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if type(value) in (dict, OrderedDict, list, set):
            vars(twin)[name] = value.copy()
    return twin


def _owners(root: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Every name of the inventory, with the module that holds it and the key there."""
    owners: dict[str, tuple[nn.Module, str]] = {}
    for prefix, raw_prefix, module in walk_modules(root):
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, Tensor):
                name = prefix + key
                owners[raw_prefix + key if name in owners else name] = module, key
    return owners
