"""The plugin's tests about devices, with the second device wherever they say meta.

Meta is the device that every machine has besides the cpu, and the one on which nothing is
computed. What holds of it in the files below has to hold of a device that computes.
"""

from __future__ import annotations

import re

import pytest

from ..integration.conftest import Run, no_accelerator, two_cards
from ..integration.test_absent import *  # noqa: F403
from ..integration.test_devices import *  # noqa: F403
from ..integration.test_environment import *  # noqa: F403
from . import here

__all__ = ["here", "no_accelerator", "two_cards"]

#: They read ids from files, or compare a device with one that has no index, as meta has none.
for name in (
    "test_ids_and_order_do_not_depend_on_xdist",
    "test_the_property_reaches_junit",
    "test_the_device_is_the_default_in_the_body",
):
    del globals()[name]


def there(text: str) -> str:
    return re.sub(r"\bmeta\b", "twin", text)


def back(lines: list[str]) -> list[str]:
    return [re.sub(r"\btwin\b", "meta", line) for line in lines]


@pytest.fixture
def run(run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As the tests know it, but what runs is about the second device."""
    written = pytester.makepyfile

    def makepyfile(*args: str, **kwargs: str) -> object:
        return written(*map(there, args), **{name: there(text) for name, text in kwargs.items()})

    monkeypatch.setattr(pytester, "makepyfile", makepyfile)

    def translated(source: str = "", *args: str, **kwargs: str) -> pytest.RunResult:
        result = run(source, *map(there, args), **kwargs)
        return pytest.RunResult(
            result.ret, back(result.outlines), back(result.errlines), result.duration
        )

    return translated
