"""The assertion about running averages of a model: EMA, weight averaging, soft updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..checks import averaged as checks
from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.functions import takes
from ..parameters.running.counters import Counters
from ..parameters.running.kept import require_values
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.namesakes import namesakes
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.blend import spread_over
from ..parameters.tensors.content import no_values
from ..parameters.tensors.raw import plain_address
from .block import Block


def assert_averaged(
    ema: Subject,
    model: Subject,
    decay: float | Callable[..., float] = 0.99,
    *,
    buffers: checks.Buffers = "copy",
) -> Block:
    """Assert that a ``with`` block updates a running average of a model once.

    Passes where each parameter of ``ema`` is ``decay`` x what it was before the block + (1 -
    ``decay``) x the model's, as the model is at the end of the block, within the rounding of its
    dtype. Non-persistent buffers are not asked. Names are the same on both sides, or carry what a
    wrapper puts in front of all (``module.`` of ``torch.optim.swa_utils.AveragedModel``, whose
    first update copies). What has no namesake in the model is not asked. ``ema`` may be the dict in
    which an average keeps its tensors.

    * ``decay=``: a number, or a function of the number of updates before this one, as the average
      counts them (``n_averaged``, an integer attribute that the block raises), or of nothing.
    * ``buffers=``: what they are afterwards: the model's (``"copy"``), averaged as well
      (``"average"``; counts may be any) or as before (``"keep"``).

    Fails, naming each entry with the weights that it was really made with: never updated,
    updated twice or before the optimizer's step, copied where it had to be averaged and the other
    way round, another decay, another parameter's values, memory shared with the model, updates
    that the rounding of a short dtype swallows, and parameters that train and have no average.

    Raises :class:`ParamCheckError` at the end of the block; :class:`ParamCheckUsageError` for
    another ``decay`` or ``buffers``, subjects without a name in common, values that cannot be
    read, and a model that still has the values of its average: then nothing can be told.

    >>> import copy, torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> ema = copy.deepcopy(model)
    >>> with assert_averaged(ema, model, decay=0.9), torch.no_grad():
    ...     model.weight += 1  # in the place of a training step
    ...     model.bias += 1
    ...     for mean, new in zip(ema.parameters(), model.parameters()):
    ...         _ = mean.lerp_(new, 0.1)
    >>> with assert_averaged(ema, model, decay=0.9), torch.no_grad():
    ...     _ = ema.bias.lerp_(model.bias, 0.9)
    Traceback (most recent call last):
    ParamCheckError: never updated: weight; decay the wrong way round: bias (Linear)
    <BLANKLINE>
      never updated:
        weight  expected 0.9 x before + 0.1 x model, found as before the block, bit for bit
      decay the wrong way round:
        bias  expected 0.9 x before + 0.1 x model, found 0.1 x before + 0.9 x model
    """
    __tracebackhide__ = True
    _validate(decay, buffers)  # first: a block that is made and never entered warns
    return _Averaged(ema, model, decay, buffers)


class _Averaged(Block):
    _assertion = "assert_averaged"

    def __init__(
        self,
        ema: Subject,
        model: Subject,
        decay: float | Callable[..., float],
        buffers: checks.Buffers,
    ) -> None:
        super().__init__(ema, ())
        self._model = model
        self._decay = decay
        self._buffers = buffers
        self._before: dict[str, Tensor] = {}
        self._samples: dict[str, Tensor] = {}
        self._pairs: Mapping[str, str] = {}
        self._counters: Counters | None = None

    def _begin(self, inventory: Inventory) -> None:
        __tracebackhide__ = True
        model = take_inventory(self._model)
        self._pairs = namesakes(inventory, model)
        asked = [
            entry
            for entry in inventory.entries
            if entry.tensor is not None
            and (name := next((n for n in entry.names if n in self._pairs), None)) is not None
            and model.by_name[self._pairs[name]].persistent
        ]
        if not asked:
            raise ParamCheckUsageError(
                f"{inventory.title} and {model.title} have no name in common: an average has the "
                f"names of its model, with one prefix for all at most"
            )
        require_values(asked)
        sources = {self._pairs[name] for name in self._pairs}
        with torch.no_grad():
            for entry in asked:
                name = next(n for n in entry.names if n in self._pairs)
                if entry.tensor is not None:
                    self._before[name] = entry.tensor.detach().clone()
            for source in model.parameters:
                tensor = source.tensor
                if tensor is None or not any(name in sources for name in source.names):
                    continue
                floating = tensor.is_floating_point() or tensor.is_complex()
                if floating and (plain_address(tensor) is not None or not no_values(tensor)):
                    self._samples[source.name] = spread_over(tensor)
        self._counters = Counters(inventory, self._pairs)

    def _end(self, inventory: Inventory) -> list[Finding]:
        before, self._before = self._before, {}
        samples, self._samples = self._samples, {}
        counters = self._counters
        number, counted = counters.read(inventory) if counters is not None else (None, None)
        kept = checks.Averaged(
            decay=_decay_of(self._decay, number, inventory),
            buffers=self._buffers,
            pairs=self._pairs,
            before=before,
            samples=samples,
            first=counters is not None and counters.copies_first and number == 0,
            counted=counted,
        )
        with torch.no_grad():
            return checks.not_averaged(inventory, take_inventory(self._model), kept)


def _validate(decay: object, buffers: object) -> None:
    if not callable(decay):
        _validate_decay(decay)
    elif not takes(decay, 0) and not takes(decay, 1):
        raise ParamCheckUsageError(
            "decay is a function of the number of updates before this one, or of nothing"
        )
    if buffers not in ("copy", "average", "keep"):
        raise ParamCheckUsageError(f"buffers={buffers!r}: buffers are 'copy', 'average' or 'keep'")


def _validate_decay(decay: object, said: str = "decay") -> float:
    if isinstance(decay, Tensor) and decay.numel() == 1:
        decay = decay.item()
    if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay <= 1:
        raise ParamCheckUsageError(
            f"{said} is {decay!r}: it is a number from 0 to 1, or a function that returns one"
        )
    return float(decay)


def _decay_of(
    decay: float | Callable[..., float], number: int | None, inventory: Inventory
) -> float:
    if not callable(decay):
        return float(decay)
    if not takes(decay, 1) or (number is None and takes(decay, 0)):
        found: object = decay()
    elif number is None:
        raise ParamCheckUsageError(
            f"decay is a function of the number of updates, and {inventory.title} has no count "
            f"that the block raised; pass the decay of this update"
        )
    else:
        found = decay(number)
    return _validate_decay(found, f"what decay({'' if number is None else number}) returns")
