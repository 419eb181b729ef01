"""Why a loss did not reach a parameter: the kinds of reason, and the place where a path ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

#: From the least to the most a parameter has to do with the loss.
Kind: TypeAlias = Literal[
    "unknown",  # the second run could not be made, or did not show it
    "unused",  # no operation took it
    "no_grad",  # used only where gradients are off
    "inference",
    "left",  # its value left torch: item(), numpy()
    "dropped",  # used, but the loss does not depend on the result
    "detached",  # the loss depends on it, through an operation without a gradient
    "swallowed",  # in the graph; a node gave no gradient for it
    "hooked",  # in the graph; a hook took the gradient away
    "cancelled",  # in the graph; the contributions add up to zero
    "summed",  # in the graph; added to every row, and the gradients of the rows add up to zero
    "zero",  # in the graph; from a node on, the gradient is zero
    "nonfinite",  # in the graph; from a node on, the gradient holds a NaN or an infinity
    "reached",  # this run gave it one: rounding decides, or the loss is another each time
    "untrainable",  # made in inference mode: autograd does not save it, and nothing may write it
]
RANK: dict[Kind, int] = {kind: rank for rank, kind in enumerate(Kind.__args__)}  # type: ignore[attr-defined]

#: torch's own function behind ``checkpoint(..., use_reentrant=True)``.
_REENTRANT = "CheckpointFunction"


@dataclass(frozen=True, slots=True)
class Place:
    """An operation and the module that ran it (``""``, ``""``: none of the model's).

    ``inside`` is the custom function in whose forward, or ``backward``, it ran. ``zeros`` are the
    all-zero parameters it multiplied by, ``operand`` says "zeros" or "nothing" where it multiplied
    a value that is all zero or empty. ``seen`` is False where it is not known what ran it.
    """

    operation: str
    module: str = ""
    cls: str = ""
    inside: str = ""
    backward: bool = False
    zeros: tuple[str, ...] = ()
    operand: str = ""
    seen: bool = True

    @property
    def checkpointed(self) -> bool:
        """Whether a reentrant checkpoint ran it before backward, where it records nothing."""
        return self.inside == _REENTRANT and not self.backward

    @property
    def recomputed(self) -> bool:
        """Whether a reentrant checkpoint ran it again, in backward, as the user wrote it."""
        return self.inside == _REENTRANT and self.backward


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a parameter was not reached; ``note`` is an error of the second run."""

    kind: Kind
    place: Place | None = None
    note: str = ""
