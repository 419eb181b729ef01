"""What a run that tested nothing on a device says of the reasons."""

from __future__ import annotations

import pytest

from pytest_paramcheck.plugin.device_report import Tally
from pytest_paramcheck.plugin.properties import DEVICE


def skipped(reason: str, device: str = "cpu") -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="t.py::test_a",
        location=("t.py", 0, "test_a"),
        keywords={},
        outcome="skipped",
        longrepr=("t.py", 1, f"Skipped: {reason}"),
        when="setup",
        user_properties=[(DEVICE, device)],
    )


def test_the_commonest_reasons_are_said() -> None:
    tally = Tally()
    for count, reason in enumerate(("rarest", "rare", "often", "oftenest"), start=1):
        for _ in range(count):
            tally.add(skipped(reason))

    assert tally.untested(["cuda"]) == [
        "--param-device=cuda: none of the 10 marked tests ran on it "
        "(4 skipped: oftenest; 3 skipped: often; 2 skipped: rare)"
    ]
