"""Checks that are known to find nothing in a model are not collected for it."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _finds_nothing(item)]


def _finds_nothing(item: pytest.Item) -> bool:
    known = getattr(getattr(item, "module", None), "finds_nothing", None)
    check = getattr(item, "callspec", None) and item.callspec.params.get("check")
    return bool(known and check and known(check.model, check.name))
