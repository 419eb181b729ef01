"""Gradients written elsewhere than into ``.grad``: to a tensor on the Parameter (``main_grad``)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..tensors.content import no_values, version_of
from ..tensors.digest import read_contents


class Elsewhere:
    """The tensors on parameters that are called gradients, as they were before a pass."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._before = [_gradients(parameter) for parameter in self._parameters]

    def written(self) -> list[str]:
        """Return for each parameter the attribute that was written since, or ``""``."""
        return [
            next(
                (name for name, now in _gradients(parameter).items() if before.get(name) != now),
                "",
            )
            for parameter, before in zip(self._parameters, self._before, strict=True)
        ]


def _gradients(parameter: Tensor) -> dict[str, tuple[int, int | None, bytes]]:
    """What each such attribute holds: the version too, because a gradient can be zero."""
    return {
        name: (id(value), version_of(value), read_contents([value])[0].digest)
        for name, value in parameter.__dict__.items()
        if "grad" in name and isinstance(value, Tensor) and not no_values(value)
    }
