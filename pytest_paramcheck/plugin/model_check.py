"""What a test of ``parametrize_with_param_checks`` receives, as its annotation.

Tests: ``tests/unit/test_public_surface.py``.
"""

from __future__ import annotations

from typing import Protocol


class ModelCheck(Protocol):
    """One check of one model: the argument ``check`` of a test, which the test calls.

    >>> from pytest_paramcheck import ModelCheck
    >>> def test_parameters(check: ModelCheck) -> None:
    ...     check()
    """

    @property
    def name(self) -> str:
        """The name of the check, one of ``CHECKS`` or of a conftest's own: ``check_finite``."""
        ...

    @property
    def model(self) -> str:
        """The name of the case."""
        ...

    def __call__(self) -> None:
        """Run the check. Skips the test where there is nothing to look at.

        Raises :class:`ParamCheckError` for what does not hold.
        """
        ...
