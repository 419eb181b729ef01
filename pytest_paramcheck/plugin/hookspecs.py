"""The extension points: hooks that a ``conftest.py`` or a plugin may implement.

They are asked through the test's own node, so that a conftest in a sub-directory answers for
the tests below it and for no others. For ``--param-model``, which lies in no directory, every
conftest answers that pytest loads at its start: beside its configuration, in the paths that are
named (or ``testpaths``) and in ``test*`` folders beside them.

Mark an implementation ``optionalhook=True`` where the tests also have to run without
this plugin (``-p no:paramcheck``)::

    @pytest.hookimpl(optionalhook=True)
    def pytest_paramcheck_checks(): ...

Tests: ``tests/integration/test_hooks.py`` and ``test_loading.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ..model_checks.run import CaseRun


@pytest.hookspec(firstresult=True)
def pytest_paramcheck_named_tensors(
    subject: object,
) -> Iterable[tuple[str, Tensor | None]] | None:
    """Return the (name, tensor) pairs of a subject that is no ``nn.Module``, or None.

    Every assertion then reads such a subject. Stops at the first answer that is not None. In
    conftest.py::

        def pytest_paramcheck_named_tensors(subject):
            if isinstance(subject, MyFlaxLikeState):
                return [("/".join(path), leaf) for path, leaf in subject.leaves()]
            return None
    """


@pytest.hookspec(firstresult=True)
def pytest_paramcheck_storages(tensor: Tensor) -> Iterable[Tensor] | None:
    """Return the tensors that hold a tensor subclass's bytes, or None for types you do not handle.

    Ties, shared memory and content are then judged by them. Only asked about subclasses. In
    conftest.py::

        def pytest_paramcheck_storages(tensor):
            if isinstance(tensor, MyPackedTensor):
                return [tensor.codes, tensor.scales]
            return None
    """


@pytest.hookspec
def pytest_paramcheck_checks() -> Sequence[Callable[[CaseRun], None]]:  # type: ignore[empty-body]
    """Return whole-model checks of your own: functions of one argument, a :class:`CaseRun`.

    Each becomes a test item of every :class:`ModelCase` beside the registered checks, under its
    own name. It raises AssertionError where something does not hold, and
    :class:`NothingToCheck` with the reason where there is nothing to look at. ``case.model`` is
    shared by all checks: change only what ``case.build()`` returns. In conftest.py::

        def pytest_paramcheck_checks():
            def check_biases_start_at_zero(case):
                assert_init(case.model, {"*.bias": zeros()})

            return [check_biases_start_at_zero]
    """


@pytest.hookspec(firstresult=True)
def pytest_paramcheck_devices(item: pytest.Item) -> Sequence[str] | None:
    """Return the devices that a marked test supports, or None to leave it to the marker.

    Says for a whole directory what ``@pytest.mark.params(devices=...)`` says for one test,
    ``["!meta"]`` included; a marker that names devices wins. Only asked about
    marked tests. In gpu_tests/conftest.py::

        def pytest_paramcheck_devices(item):
            return ["cuda"]
    """


@pytest.hookspec(firstresult=True)
def pytest_paramcheck_inputs(model: Module) -> object | None:
    """Return what the forward of a model takes, or None where you do not know the model.

    What ``ModelCase(inputs=...)`` takes: a tensor, a tuple for positions, a mapping for keywords,
    or a callable that returns one of these. Asked once for each model whose case declares neither
    inputs nor a loss, with a build that no check looks at; inputs that raise are a failure. Stops
    at the first answer that is not None. In conftest.py::

        def pytest_paramcheck_inputs(model):
            if isinstance(model, GPT):
                return lambda: torch.randint(model.config.vocab_size, (2, 16))
            return None
    """
