"""What an assertion raises: the two errors, and how a finding becomes one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .findings import Finding
from .rendering import MAX_ROWS, render
from .wording import printable


class ParamCheckError(AssertionError):
    """An invariant that does not hold; ``findings`` lists everything that was found.

    The text is rendered when it is asked for: at most ``max_rows`` rows after folding
    (``None`` for all of them, which is what ``pytest -vv`` sets).
    """

    max_rows: int | None = MAX_ROWS

    def __init__(self, findings: Iterable[Finding], subject: str = "") -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        self.subject = subject
        super().__init__(self.findings, subject)

    def __str__(self) -> str:
        return render(self.findings, self.subject, self.max_rows)

    def __reduce__(self) -> tuple[object, ...]:
        # The state as Python's own exceptions hand it on: with max_rows and notes.
        return _rebuild, (self.findings, self.subject), self.__dict__


class ParamCheckUsageError(ValueError):
    """A wrong call: an unknown name, a pattern without a match, an empty subject.

    Where it has several arguments, each is a line of its text.
    """

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_usage, self.args, self.__dict__


def raise_if(findings: Iterable[Finding], subject: str) -> None:
    """Raise :class:`ParamCheckError` with all findings, if there are any.

    The last step of every assertion.
    """
    __tracebackhide__ = True
    found = tuple(findings)
    if found:
        raise ParamCheckError(found, subject)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and every error it came from or contains, each once."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]


def show_all(error: BaseException) -> None:
    """Lift the row limit of an error and of every error it came from or contains."""
    for one in chain(error):
        if isinstance(one, ParamCheckError):
            one.max_rows = None


def _rebuild(findings: Iterable[Finding], subject: str) -> ParamCheckError:
    return ParamCheckError(findings, subject)


def _rebuild_usage(*args: object) -> ParamCheckUsageError:
    return ParamCheckUsageError(*args)


# pytest prints an exception's module in front of its name, and its short summary is cut at
# the terminal's width: the names of the parameters are worth more there than our module's
# (pytest's own outcomes do the same). Pickling goes through the functions above instead.
ParamCheckError.__module__ = "builtins"
ParamCheckUsageError.__module__ = "builtins"
