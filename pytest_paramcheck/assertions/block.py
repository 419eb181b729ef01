"""What the assertions about a ``with`` block have in common: entered, left, and never forgotten.

Tests: ``tests/unit/test_unchanged.py`` and ``test_updated.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import TracebackType

from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..parameters.running.kept import Kept
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.parts import Part
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.call import Call
from .verdict import one_outcome


class Block:
    """The context of one ``with`` statement; ``_begin`` and ``_end`` are the assertion's."""

    _assertion = ""  # its public name
    _reads_values = True
    _of_slices = False  # whether it is right of slices of parameters
    _entered = _begun = _left = False

    def __init__(self, subject: Subject, patterns: tuple[Pattern, ...]) -> None:
        # An iterator can be read once, and is read before and after the block.
        self._subject: Subject = list(subject) if isinstance(subject, Iterator) else subject
        self._patterns = patterns
        self._kept: list[Kept] = []

    def _begin(self, inventory: Inventory) -> None:
        raise NotImplementedError

    def _end(self, inventory: Inventory) -> list[Finding]:
        raise NotImplementedError

    def _stop(self) -> None:
        """Take away what listens, however the block ended."""

    def __enter__(self) -> None:
        __tracebackhide__ = True
        if self._entered:
            raise ParamCheckUsageError(
                f"this {self._assertion} was entered before: call it again for a second block"
            )
        self._entered = True
        one_outcome(self._call(), lambda: self._begin(take_inventory(self._subject)))
        self._begun = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        entered, self._left = self._begun and not self._left, True
        self._stop()
        if not entered and kind is None:  # ExitStack.push() leaves what it does not enter
            raise ParamCheckUsageError(
                f"this {self._assertion} is left without having been entered: nothing was kept"
            )
        try:
            if kind is None:  # a rank whose block raised says nothing, and the others wait
                one_outcome(self._call(), self._compare)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Let go of models and copies: who keeps a block that is over need not keep these."""
        self.__dict__ = {"_entered": self._entered, "_begun": self._begun, "_left": True}

    def _compare(self) -> None:
        __tracebackhide__ = True
        try:
            inventory = take_inventory(self._subject, allow_empty=True)
            findings = self._end(inventory)
        finally:
            self._kept = []
        raise_if(findings, inventory)

    def _call(self) -> Call:
        # A part counts in the whole tensor, which no slice is.
        whole = any(isinstance(pattern, Part) for pattern in self._patterns)
        return Call(
            self._assertion, values=self._reads_values, slices=self._of_slices and not whole
        )

    def __del__(self) -> None:
        self._stop()  # a block that was entered and dropped: its hooks are of the whole process
        if not (self._entered or self._left):
            warnings.warn(
                f"{self._assertion} was called without `with`: it asserted nothing",
                stacklevel=2,
            )
        elif self._begun and not self._left:
            warnings.warn(
                f"{self._assertion} was entered and never left: it asserted nothing",
                stacklevel=2,
            )
