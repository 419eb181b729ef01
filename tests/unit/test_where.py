"""Where a rank is that does not answer, of its frames: the user's line, and what it waits in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_paramcheck.assertions import values
from pytest_paramcheck.plugin.ranks.where import Frame, place_of

TEST = Frame("/home/me/project/test_it.py", 9, "test_it")


@pytest.mark.parametrize(
    "libraries",
    ["/opt/env/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages"],
)
def test_a_collective_of_a_torch_in_another_environment(libraries: str) -> None:
    frames = [
        Frame(f"{libraries}/torch/distributed/distributed_c10d.py", 5356, "barrier"),
        Frame(f"{libraries}/torch/distributed/c10d_logger.py", 83, "wrapper"),
        TEST,
    ]
    said = (", at test_it.py:9 in test_it, in a collective (barrier)", True)

    assert place_of(frames, Path("/home/me/project"), failed=False) == said


@pytest.mark.parametrize(
    ("failed", "advice"), [(False, ": call it on every rank"), (True, "")], ids=["hangs", "stopped"]
)
def test_an_assertion_of_ours(failed: bool, advice: str) -> None:
    """Nobody forgot to call it where another rank has failed before."""
    frames = [
        Frame("/lib/site-packages/torch/distributed/distributed_c10d.py", 1, "all_gather"),
        Frame(str(values.__file__), 1, "assert_finite"),
        TEST,
    ]
    said, waits = place_of(frames, Path("/home/me/project"), failed=failed)

    assert waits
    assert said == (
        f", at test_it.py:9 in test_it, in assert_finite, which talks to the other ranks{advice}"
    )


def test_no_line_of_the_user() -> None:
    frame = Frame("/lib/site-packages/torch/distributed/distributed_c10d.py", 1, "barrier")

    assert place_of([frame], Path("/home/me"), failed=False) == ("", False)
