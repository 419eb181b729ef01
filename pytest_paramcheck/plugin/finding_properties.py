"""Findings as data: a property of the report, for JUnit files and tools that read no text.

One property, ``paramcheck_findings``, whose value is JSON: every value of a property ends as
text in a JUnit file, and has to cross from xdist's workers.

Tests: ``tests/integration/test_reporting.py`` and ``test_model_cases.py``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ..messages.findings import finding_data
from ..messages.wording import printable

if TYPE_CHECKING:
    from ..messages.errors import ParamCheckError

KEY = "paramcheck_findings"
#: A failure of a large model is a few reasons for thousands of names.
MOST = 200


def note_findings(item: pytest.Item, failure: BaseException) -> None:
    """Let the reports of an item carry the findings that it failed with."""
    from ..messages.errors import ParamCheckError, chain

    errors = [one for one in chain(failure) if isinstance(one, ParamCheckError)]
    if errors:
        item.user_properties.append((KEY, json.dumps(list(map(_data, errors)))))


def forget_findings(item: pytest.Item) -> None:
    """Take away what an earlier run of the same item failed with."""
    item.user_properties[:] = [one for one in item.user_properties if not _is_ours(one)]


def _is_ours(given: object) -> bool:
    # Other plugins need not write pairs.
    return isinstance(given, tuple) and given[:1] == (KEY,)


def _data(error: ParamCheckError) -> dict[str, object]:
    return {
        "subject": printable(error.subject),
        "findings": list(map(finding_data, error.findings[:MOST])),
        "left_out": max(len(error.findings) - MOST, 0),
    }
