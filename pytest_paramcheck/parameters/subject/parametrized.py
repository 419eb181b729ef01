"""Weights that a module computes from other parameters: parametrizations, old-style norms, pruning.

``module.weight`` is then no parameter but a fresh tensor per access; its leaves are registered
under other names. Two consequences for ties: a user's name for the weight (``head.weight``) must
lead to the leaves, and a leaf that is shared with a plain parameter is *not* tied to it, because
the two sides do different arithmetic on one memory (weight_norm, spectral_norm, a pruning mask).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from .inventory import Inventory

#: Old-style hooks of torch.nn.utils: suffixes of the leaves, suffixes of the buffers, their name.
_HOOKED = (
    (("_orig",), ("_mask",), "pruning"),
    (("_orig",), ("_u",), "spectral_norm"),
    (("_g", "_v"), (), "weight_norm"),
)
_LEAF_ENDINGS = tuple({suffix for leaves, _, _ in _HOOKED for suffix in leaves})


@dataclass(frozen=True, slots=True)
class Computed:
    """A weight computed from leaves: its public name, what computes it, the leaves' names.

    ``inputs`` are the ids of every tensor the arithmetic reads: two computed weights are the
    same weight exactly where ``how`` and ``inputs`` are equal.
    """

    name: str
    how: tuple[str, ...]
    leaves: tuple[str, ...]
    inputs: tuple[int, ...]

    @property
    def by(self) -> str:
        return ", ".join(self.how)


def may_be_leaf(name: str) -> bool:
    """Whether a name is spelled like a leaf: a cheap no for models that compute no weights."""
    return name.endswith(_LEAF_ENDINGS) or "parametrizations." in name


def computed_weights(inventory: Inventory) -> list[Computed]:
    """Return every computed weight of a module, once for each of its names."""
    return [
        computed
        for name, module in inventory.modules
        for computed in (
            *_parametrized(f"{name}." if name else "", module),
            *_hooked(f"{name}." if name else "", module),
        )
    ]


def _parametrized(prefix: str, module: nn.Module) -> Iterator[Computed]:
    # A scripted module's registries are no dicts: they have no get() and cannot be iterated.
    lists = dict(module._modules.items()).get("parametrizations")
    if lists is None:
        return
    for key, steps in lists._modules.items():
        if not isinstance(steps, ParametrizationList):
            continue
        below = f"{prefix}parametrizations.{key}."
        originals = [name for name in steps._parameters if name.startswith("original")]
        tensors: list[Tensor | None] = [steps._parameters[name] for name in originals]
        for step in steps.children():
            tensors += [*step.parameters(), *step.buffers()]
        yield Computed(
            prefix + key,
            tuple(type(step).__name__.lstrip("_") for step in steps.children()),
            tuple(below + name for name in originals),
            tuple(map(id, tensors)),
        )


def _hooked(prefix: str, module: nn.Module) -> Iterator[Computed]:
    for parameter in module._parameters.keys():  # noqa: SIM118 - see _parametrized
        for leaves, buffers, how in _HOOKED:
            if not parameter.endswith(leaves[0]):
                continue
            stem = parameter[: -len(leaves[0])]
            registered = [stem + suffix for suffix in leaves]
            aids = [stem + suffix for suffix in buffers]
            if (
                stem
                and stem not in module._parameters
                and all(name in module._parameters for name in registered)
                and all(name in module._buffers for name in aids)
                and hasattr(module, stem)
            ):
                tensors: list[Tensor | None] = [module._parameters[n] for n in registered]
                tensors += [module._buffers[n] for n in aids]
                yield Computed(
                    prefix + stem,
                    (how,),
                    tuple(prefix + name for name in registered),
                    tuple(map(id, tensors)),
                )
                break
