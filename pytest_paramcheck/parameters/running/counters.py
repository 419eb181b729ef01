"""How often an average says that it was updated: counts in tensors and in plain attributes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..subject.inventory import Inventory
from ..tensors.content import no_values

#: torch's own name for the count of an average whose first update copies.
_TORCH = "n_averaged"


class Counters:
    """The integers of an average that count something, as they are before a block."""

    def __init__(self, average: Inventory, pairs: Mapping[str, str]) -> None:
        self._pairs = pairs
        self._before = self._counts(average)
        #: Whether it is torch's AveragedModel, or one that counts as that does.
        self.copies_first = any(name.rpartition(".")[2] == _TORCH for name in self._before)

    def read(self, average: Inventory) -> tuple[int | None, int | None]:
        """Return how many updates there had been before the block, and how many were in it.

        None where no integer became larger.
        """
        now = self._counts(average)
        raised = [
            (name.rpartition(".")[2] != _TORCH, before, now[name] - before)
            for name, before in self._before.items()
            if now.get(name, before) > before
        ]
        if not raised:
            return None, None
        _, before, more = min(raised)
        return before, more

    def _counts(self, average: Inventory) -> dict[str, int]:
        counts = {
            name: int(tensor)
            for name, tensor in average.named.items()
            if name not in self._pairs and tensor is not None and _is_count(tensor)
        }
        held = {} if average.root is None else vars(average.root)
        return {name: n for name, n in held.items() if type(n) is int} | counts


def _is_count(tensor: Tensor) -> bool:
    if tensor.numel() != 1 or tensor.dtype is torch.bool or no_values(tensor):
        return False
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized)
