"""Models that do not follow where they are moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import bug, checked

ROWS = torch.linspace(-1, 1, 24).reshape(6, 4)


class Keeps(nn.Linear):
    """Its ``_apply`` puts a buffer back as it was, or leaves it to torch."""

    def __init__(self, planted: bool) -> None:
        super().__init__(4, 3)
        self.planted = planted
        self.register_buffer("scale", torch.ones(3))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        scale = self.scale
        super()._apply(fn, recurse)
        if self.planted:
            self.scale = scale
        return self


@bug("moves", "buffer that an _apply() leaves in its dtype", checked("check_dtype_move"), "scale")
def buffer_keeps_its_dtype(planted: bool) -> nn.Module:
    return Keeps(planted)


@bug("moves", "buffer that an _apply() leaves on its device", checked("check_device_move"), "scale")
def buffer_keeps_its_device(planted: bool) -> nn.Module:
    return Keeps(planted)


class Windowed(nn.Linear):
    """Multiplies by a plain tensor; where ``moves``, one that it moves to its input itself."""

    def __init__(self, moves: bool) -> None:
        super().__init__(4, 3)
        self.moves = moves
        self.window = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        window = self.window.to(x) if self.moves else self.window
        return super().forward(x * window)


@bug(
    "moves",
    "plain tensor that a cast leaves behind",
    checked("check_dtype_move", inputs=ROWS),
    "window",
)
def plain_tensor_keeps_its_dtype(planted: bool) -> nn.Module:
    return Windowed(moves=not planted)


@bug(
    "moves",
    "plain tensor that stays on the cpu",
    checked("check_device_move", inputs=ROWS),
    "window",
)
def plain_tensor_keeps_its_device(planted: bool) -> nn.Module:
    return Windowed(moves=not planted)


class Tables(nn.Linear):
    """Adds rows of tables in a dict, which are registered or not."""

    def __init__(self, registered: bool) -> None:
        super().__init__(4, 3)
        self.tables = {"short": torch.zeros(3, dtype=torch.long)}
        if registered:
            self.register_buffer("short", self.tables.pop("short"))

    def forward(self, x: Tensor) -> Tensor:
        table = self.tables.get("short", getattr(self, "short", None))
        assert table is not None
        return super().forward(x) + table


@bug(
    "moves",
    "table of integers in a dict that stays on the cpu",
    checked("check_device_move", inputs=ROWS),
    "tables['short']",
)
def table_keeps_its_device(planted: bool) -> nn.Module:
    return Tables(registered=not planted)


class Turns(nn.Linear):
    def __init__(self, cut: bool) -> None:
        super().__init__(4, 4)
        turns = torch.polar(torch.ones(2), torch.ones(2))
        self.register_buffer("turns", turns if cut else torch.view_as_real(turns))


@bug("moves", "complex buffer that a real dtype cuts", checked("check_dtype_move"), "turns")
def complex_buffer_is_cut(planted: bool) -> nn.Module:
    return Turns(cut=planted)


class Thaws(nn.Linear):
    """Makes everything trainable again when it is moved."""

    def __init__(self, planted: bool) -> None:
        super().__init__(4, 3)
        self.planted = planted
        self.requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        return self.requires_grad_(self.planted)


@bug("moves", "frozen layer that a move thaws", checked("check_device_move"), "weight", "bias")
def move_thaws(planted: bool) -> nn.Module:
    return Thaws(planted)


class Narrow(nn.Linear):
    """Rebuilds its weight where it is moved, and forgets what a user hung on its shape."""

    def __init__(self, planted: bool) -> None:
        super().__init__(4, 3)
        self.planted = planted

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if self.planted:
            self.weight = nn.Parameter(self.weight[:2])
        return self


@bug("moves", "layer cut down where it is moved", checked("check_dtype_move"), "weight")
def move_cuts_rows(planted: bool) -> nn.Module:
    return Narrow(planted)
