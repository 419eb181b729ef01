"""Who is frozen and who is trainable: one answer per parameter, whatever name it is asked by."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import shorten
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.walk import first_places, walk_modules
from ..parameters.tensors.describe import dtype_text
from .writers import module_text

#: How many of one parameter's names a sentence lists.
_NAMES = 4


def demand_flags(inventory: Inventory) -> None:
    """Raise for a subject that holds values only: requires_grad is False in all of them."""
    tensors = list(inventory.tensors)
    if inventory.saved or (
        inventory.root is None
        and any(tensor is not None for tensor in tensors)
        and not any(
            isinstance(t, nn.Parameter) or (t is not None and t.requires_grad) for t in tensors
        )
    ):
        what = f"{inventory.title} holds"
        if inventory.saved or inventory.from_pairs:
            what = "a state_dict holds" if inventory.saved else "these pairs hold"
        raise ParamCheckUsageError(
            f"{what} values, detached from the model: who is frozen cannot be asked of them; "
            f"pass the model, or its named_parameters()"
        )


def why_not_trainable(tensor: Tensor) -> str:
    """Return why no gradient can move a parameter, or ``""`` where one can."""
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return f"{dtype_text(tensor)} takes no gradient"
    if not is_lazy(tensor) and tensor.is_inference():
        return "an inference tensor: it was made under inference_mode, autograd cannot save it"
    if not tensor.requires_grad:
        return "requires_grad=False"
    return ""


_FREEZE = "freeze it: requires_grad_(False)"
_TRAIN = "let it train: requires_grad_(True)"


def _trainable_by(tensor: Tensor) -> str:
    """Return what makes a parameter trainable that is not."""
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return "convert it before it is made a parameter: nn.Parameter(x.float())"
    if not is_lazy(tensor) and tensor.is_inference():
        return "build the model outside torch.inference_mode()"
    return _TRAIN


def flags(
    entries: Iterable[Entry],
    *,
    frozen: bool,
    listed: frozenset[str] | None = None,
    excluded: frozenset[str] = frozenset(),
    exactly: bool = False,
) -> list[Finding]:
    """Find the entries that are not as their names say.

    ``listed`` are the names expected to be frozen (or trainable, as ``frozen`` says): one of
    an entry's names is enough; None: all. With ``exactly``, all other entries are expected to be
    the opposite; ``excluded`` are the names by which some of them were taken away.
    """
    findings = []
    wanted = "frozen" if frozen else "trainable"
    for entry in entries:
        if entry.tensor is None:
            continue
        names = tuple(entry.names)
        asked = [name for name in names if listed is None or name in listed]
        reason = why_not_trainable(entry.tensor)
        holds = not entry.trainable if frozen else not reason
        against = [name for name in names if name in excluded]
        if asked and not holds:
            found = "requires_grad=True" if frozen else reason
            why = _one_parameter(names, asked)
            hint = _FREEZE if frozen else _trainable_by(entry.tensor)
            findings.append(Finding(names, f"not {wanted}", found=found, why=why, hint=hint))
        elif exactly and not asked and holds:
            found = f"requires_grad={not frozen}"
            why = _taken_away(names, against)
            # One parameter that is asked to be both has no flag that is right.
            hint = "" if why else f"{_TRAIN if frozen else _FREEZE}; if this is intended, list it"
            problem = f"{wanted}, but not listed"
            findings.append(Finding(names, problem, found=found, why=why, hint=hint))
    return findings


def in_train_mode(inventory: Inventory, names: Collection[str] | None) -> list[Finding]:
    """Find the modules that hold what is named (None: anything) and are in train mode.

    What a module holds itself: its parameters and buffers, not those of its children.
    """
    if inventory.root is None:
        return []
    findings = []
    seen: set[int] = set()
    every = names is None
    walk = list(first_places(inventory.root) if every else walk_modules(inventory.root))
    modules = {prefix[:-1]: module for prefix, _, module in walk}
    for prefix, _, module in walk:
        if not module.training or id(module) in seen:
            continue
        own = [
            prefix + key
            for held in (module._parameters, module._buffers)
            for key, tensor in held.items()
            if tensor is not None
        ]
        held_names = tuple(name for name in own if names is None or name in names)
        if not held_names:
            continue
        seen.add(id(module))
        called = type(module).__name__
        moves = isinstance(module, _NormBase) and module.track_running_stats
        findings.append(
            Finding(
                held_names,
                "in train mode",
                found=f"{called} in train mode",
                why="each forward moves its statistics" if moves else "",
                hint=f"{module_text(modules, prefix[:-1])}.eval() after every model.train()",
            )
        )
    return findings


def _one_parameter(names: tuple[str, ...], asked: list[str]) -> str:
    if len(names) == 1:
        return ""
    known = frozenset(asked)
    others = [name for name in names if name not in known]
    if not others:
        return f"one parameter under {len(names)} names"
    return f"{_listed(asked)} is the same parameter as {_listed(others)}"


def _taken_away(names: tuple[str, ...], against: list[str]) -> str:
    """Say of a parameter with several names by which of them a pattern took it away."""
    others = [name for name in names if name not in against]
    if not against or not others:
        return ""
    return f"{_listed(against)} is taken away, and is the same parameter as {_listed(others)}"


def _listed(names: list[str]) -> str:
    return shorten(names if len(names) <= _NAMES else fold_names(names), _NAMES)
