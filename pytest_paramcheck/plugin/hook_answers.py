"""What conftests answer about subjects, tensors and models: asked for the tests below them.

The readers of the package know nothing of pytest: around each test they are given the hooks of
the conftests above it, each through a function that holds the answer to what the hook promises.

Tests: ``tests/integration/test_hooks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pluggy

    from ..messages.errors import ParamCheckUsageError


def hooks_for(node: pytest.Item | pytest.Session) -> pluggy.HookRelay:
    """Return the hooks that are asked for a node: those of the conftests above it.

    What ``--param-model`` names lies below no folder: every conftest that is loaded is asked.
    """
    everywhere = isinstance(node, pytest.Session) or hasattr(node, "param_variant")
    return node.config.hook if everywhere else node.ihook


@contextmanager
def conftests_asked(item: pytest.Item) -> Iterator[None]:
    """Let the conftests above an item read its subjects, open its tensors, run its models."""
    with ExitStack() as stack:
        hooks = hooks_for(item)
        for name, (answer, asking) in _READERS.items():
            hook = getattr(hooks, name)
            if hook.get_hookimpls():
                stack.enter_context(asking(partial(answer, hook)))
        if hooks.pytest_paramcheck_inputs.get_hookimpls():
            stack.enter_context(_inputs_asked(InputsHook(hooks.pytest_paramcheck_inputs)))
        yield


def named_tensors(hook: Any, subject: object) -> list[Any] | None:
    """Return the (name, tensor) pairs that a conftest gives for a subject, or None.

    Raises :class:`ParamCheckUsageError`, naming the hook, for what are no pairs.
    """
    __tracebackhide__ = True
    answer = hook(subject=subject)
    if answer is None:
        return None
    pairs = _listed(answer, hook, "(name, tensor) pairs")
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise _wrong(hook, f"expected (name, tensor) pairs, got {_kind(pair)} among them")
    return pairs


def storages(hook: Any, tensor: Any) -> list[Any] | None:
    """Return the tensors that a conftest says hold a tensor's bytes, or None.

    Raises :class:`ParamCheckUsageError`, naming the hook, for what are no other tensors.
    """
    __tracebackhide__ = True
    answer = hook(tensor=tensor)
    if answer is None:
        return None
    from torch import Tensor

    parts = _listed(answer, hook, "a list of tensors")
    for part in parts:
        if not isinstance(part, Tensor):
            raise _wrong(hook, f"expected a list of tensors, got {_kind(part)} among them")
        if part is tensor:
            raise _wrong(
                hook,
                "a tensor does not hold itself: return the tensors inside it, or None",
            )
    return parts


class InputsHook:
    """Asks the conftests for the inputs of a model; equal where the same ones are asked.

    So that the one case run that is kept alive is used for the tests of one folder, and not for
    those of another, where another conftest may say otherwise.
    """

    def __init__(self, hook: Any) -> None:
        self._hook = hook
        self._answering = tuple(found.function for found in hook.get_hookimpls())

    def __call__(self, model: object) -> Any:
        __tracebackhide__ = True
        return self._hook(model=model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputsHook) and self._answering == other._answering

    def __hash__(self) -> int:
        return hash(self._answering)


def _listed(answer: object, hook: Any, expected: str) -> list[Any]:
    __tracebackhide__ = True
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable) or _is_tensor(answer):
        raise _wrong(hook, f"expected {expected}, got {_kind(answer)}")
    return list(answer.items()) if hasattr(answer, "items") else list(answer)


def _wrong(hook: Any, problem: str) -> ParamCheckUsageError:
    from ..messages.errors import ParamCheckUsageError

    return ParamCheckUsageError(f"hook {hook.name}: {problem}")


def _is_tensor(answer: object) -> bool:
    return hasattr(answer, "untyped_storage")


def _kind(value: object) -> str:
    return type(value).__name__


# The readers load torch: imported for the first test below a conftest that has the hook.


def _subject_readers(read: Callable[[object], list[Any] | None]) -> AbstractContextManager[None]:
    from ..parameters.subject.reading import subject_readers

    return subject_readers(read)


def _storage_openers(opened: Callable[[Any], list[Any] | None]) -> AbstractContextManager[None]:
    from ..parameters.tensors.memory import storage_openers

    return storage_openers(opened)


def _inputs_asked(ask: Callable[[Any], Any]) -> AbstractContextManager[None]:
    from ..model_checks.inputs import inputs_asked

    return inputs_asked(ask)


#: Hook -> what holds its answers to the promise, and what lets the readers ask.
_READERS: dict[
    str, tuple[Callable[..., list[Any] | None], Callable[..., AbstractContextManager[None]]]
] = {
    "pytest_paramcheck_named_tensors": (named_tensors, _subject_readers),
    "pytest_paramcheck_storages": (storages, _storage_openers),
}
