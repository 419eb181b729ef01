"""One verdict on all ranks: what an assertion says of a DTensor, it says on each of them.

Each rank asks its own shard; then the ranks of the mesh tell each other what they found, once, and
all of them raise the same or nothing. A plain subject is asked where it is: nothing is sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, cast, overload

from torch import Tensor, nn

from ..checks.ranks import of_all_ranks
from ..messages.errors import ParamCheckError, ParamCheckUsageError
from ..messages.findings import Finding, SubjectNames
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.call import Call, running
from ..parameters.tensors.sharded import distributed

P = ParamSpec("P")
T = TypeVar("T")


@overload
def one_verdict(function: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def one_verdict(
    *,
    called: str = ...,
    values: bool = ...,
    runs: bool = ...,
    slices: bool = ...,
    flat: bool = ...,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def one_verdict(function: Callable[P, T] | None = None, /, **said: Any) -> Any:
    """Let an assertion raise on all ranks or on none, where its subject is spread over them.

    ``called`` is its name, where that is not the function's. ``values``: it reads values or
    gradients. ``runs``: it calls functions of the user's; what these raise is not told to other
    ranks, which may be inside a collective of theirs. ``slices`` and ``flat``: it is right of what
    FullyShardedDataParallel holds (:class:`Call`).
    """
    if function is None:
        return functools.partial(_decorated, **said)
    return _decorated(function, **said)


def _decorated(
    function: Callable[P, T], *, runs: bool = False, called: str = "", **said: Any
) -> Callable[P, T]:
    @functools.wraps(function)
    def on_all_ranks(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        if distributed() is None:
            return function(*args, **kwargs)
        call = Call(called or function.__name__, **said)
        result: list[T] = []
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]

        def local() -> None:
            __tracebackhide__ = True
            try:
                call.read("tensor" if tensors else "", tensors)
                result.append(function(*args, **kwargs))
            except Exception:
                _read_what_was_given(call, (*args, *kwargs.values()))
                raise

        one_outcome(call, local, ParamCheckError if runs else Exception)
        return result[0] if result else cast("T", None)

    return on_all_ranks


def one_outcome(
    call: Call, local: Callable[[], None], told: type[BaseException] = Exception
) -> None:
    """Run what an assertion does here, and raise what comes out of it on all ranks.

    ``told``: which errors other ranks are told of, beside those of ours.
    """
    __tracebackhide__ = True
    if distributed() is None:
        local()
        return
    error: BaseException | None = None
    with running(call):
        try:
            local()
        except (ParamCheckError, ParamCheckUsageError, told) as raised:
            error = raised
        if call.alone or call.over:
            try:
                if error is not None:
                    raise error
            finally:
                error = None  # its traceback holds this frame, and with it the model
            return
        if call.outside:
            return
        findings: tuple[tuple[Finding, ...], str, SubjectNames] | None = None
        text = ""
        if isinstance(error, ParamCheckError):
            findings = (error.findings, error.subject, error.names)
        elif error is not None:
            usage = isinstance(error, ParamCheckUsageError)
            text = str(error) if usage else f"{type(error).__name__}: {error}"
        error = None
        heard = _under_its_name(call, findings, text)
    _raise_of_all(heard)


def _under_its_name(call: Call, facts: object, error: str) -> dict[int, Any]:
    """Exchange in a frame that bears the assertion's name.

    Where one rank never calls, the others are stopped while they wait, and all that can be read of
    them is the names of their frames.
    """

    def ask() -> dict[int, Any]:
        return call.exchange(facts, error)

    ask.__code__ = ask.__code__.replace(co_name=call.name)
    return ask()


def _raise_of_all(heard: dict[int, Any]) -> None:
    __tracebackhide__ = True
    found = {rank: one[0] if one else () for rank, one in heard.items()}
    merged = of_all_ranks(found)
    if merged:
        _, subject, names = next(one for one in heard.values() if one)
        raise ParamCheckError(merged, subject, names)


def _read_what_was_given(call: Call, given: Iterable[object]) -> None:
    """Note the subjects of a call that ended before it read one: other ranks may have gone on."""
    if call.meshes:
        return
    for one in given:
        if isinstance(one, nn.Module):
            try:
                take_inventory(one, allow_empty=True)
            except Exception:
                continue
