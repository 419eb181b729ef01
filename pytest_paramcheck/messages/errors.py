"""What an assertion raises: the two errors, and how a finding becomes one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from .findings import Finding, SubjectNames
from .rendering import MAX_ROWS, WIDTH, render
from .wording import printable


class ParamCheckError(AssertionError):
    """Raised when an invariant is violated; ``findings`` lists everything that was found.

    The text is rendered when it is asked for: at most ``max_rows`` rows after folding
    (``None`` for all of them, which is what ``pytest -vv`` sets), broken at ``width`` columns.
    """

    max_rows: int | None = MAX_ROWS
    width: int | None = WIDTH

    def __init__(
        self,
        findings: Iterable[Finding],
        subject: str = "",
        names: SubjectNames | None = None,
    ) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        self.subject = subject
        self.names = names or SubjectNames()
        super().__init__(self.findings, subject)

    def __str__(self) -> str:
        return render(self.findings, self.subject, self.max_rows, self.names, self.width)

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


class Named(Protocol):
    """What was read of a subject, as far as a message needs it: an inventory."""

    @property
    def title(self) -> str:
        """What messages call the subject."""
        ...

    @property
    def known_names(self) -> Mapping[str, object]:
        """Every name in it, or none where there are too many."""
        ...

    @property
    def buffer_names(self) -> Mapping[str, object]:
        """The names of its buffers."""
        ...


def raise_if(findings: Iterable[Finding], subject: str | Named, title: str = "") -> None:
    """Raise :class:`ParamCheckError` with all findings, if there are any.

    The last step of every assertion. Where ``subject`` is what was read and not just its title,
    the text can say how much of it the findings are; ``title`` is another name for it.
    """
    __tracebackhide__ = True
    found = tuple(findings)
    if not found:
        return
    if isinstance(subject, str):
        raise ParamCheckError(found, subject)
    buffers = tuple(name for name in subject.known_names if name in subject.buffer_names)
    parameters = tuple(name for name in subject.known_names if name not in subject.buffer_names)
    raise ParamCheckError(found, title or subject.title, SubjectNames(parameters, buffers))


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
