"""What the plugin's tests and the whole-model tests have in their conftests is used here too."""

from ..integration.conftest import ids, run
from ..unit.conftest import unbroken_lines
from ..whole_models.conftest import pytest_collection_modifyitems

__all__ = ["ids", "pytest_collection_modifyitems", "run", "unbroken_lines"]
