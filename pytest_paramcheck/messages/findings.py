"""What a check returns and what an assertion raises: :class:`Finding` and the two errors.

A finding holds strings and numbers only, never a tensor: an exception lives as long as its
traceback does, and one that held tensors would keep a model's memory alive with it.
Neither torch nor pytest is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .rendering import render


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold of a subject.

    ``names`` are the parameters it is about, ``problem`` is the kind of thing that does not
    hold (``"not tied"``, ``"no gradient"``): findings of one kind are shown together.
    ``why`` and ``hint`` are empty where the cause is not known. ``rows`` are details shown
    one below the other, each a label and a text.
    """

    names: tuple[str, ...]
    problem: str
    expected: str = ""
    found: str = ""
    why: str = ""
    hint: str = ""
    rows: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """Return expectation, observation and reason in one line."""
        if self.expected and self.found:
            said = f"expected {self.expected}, found {self.found}"
        else:
            said = self.found or (f"expected {self.expected}" if self.expected else "")
        return ": ".join(part for part in (said, self.why) if part)


class ParamCheckError(AssertionError):
    """An invariant that does not hold; ``findings`` lists everything that was found.

    The text is rendered when it is asked for: at most ``max_rows`` rows after folding
    (``None`` for all of them, which is what ``pytest -vv`` sets).
    """

    max_rows: int | None = 10

    def __init__(self, findings: Iterable[Finding], subject: str = "") -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        self.subject = subject
        super().__init__(self.findings, subject)

    def __str__(self) -> str:
        return render(self.findings, self.subject, self.max_rows)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.findings, self.subject, self.max_rows)


class ParamCheckUsageError(ValueError):
    """A wrong call: an unknown name, a pattern without a match, an empty subject."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_usage, self.args


def show_all(error: BaseException) -> None:
    """Lift the row limit of an error and of every error it came from or contains."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ParamCheckError):
            current.max_rows = None
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]


def _rebuild(findings: Iterable[Finding], subject: str, rows: int | None) -> ParamCheckError:
    error = ParamCheckError(findings, subject)
    error.max_rows = rows
    return error


def _rebuild_usage(*args: object) -> ParamCheckUsageError:
    return ParamCheckUsageError(*args)


# pytest prints an exception's module in front of its name, and its short summary is cut at
# the terminal's width: the names of the parameters are worth more there than our module's
# (pytest's own outcomes do the same). Pickling goes through the functions above instead.
ParamCheckError.__module__ = "builtins"
ParamCheckUsageError.__module__ = "builtins"
