"""What a machine without the device is told. Nothing here builds or needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..integration.conftest import Run
from . import build, twin


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("c++", "no C++ compiler (apt-get install g++, or set CXX)"),
        ("ninja", "no ninja (pip install ninja)"),
    ],
)
def test_what_it_lacks(monkeypatch: pytest.MonkeyPatch, program: str, reason: str) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else f"/bin/{name}")
    assert build.why_not() == reason


def test_another_source_is_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    first = build.library()
    assert build.library() == first
    assert first.is_relative_to(tmp_path)
    changed = tmp_path / "twin.cpp"
    changed.write_text(build.SOURCE.read_text() + "// changed")
    monkeypatch.setattr(build, "SOURCE", changed)
    assert build.library() != first


@pytest.mark.parametrize(
    ("required", "code"), [("", pytest.ExitCode.OK), ("1", pytest.ExitCode.TESTS_FAILED)]
)
def test_a_run_without_it_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, required: str, code: pytest.ExitCode
) -> None:
    monkeypatch.setattr(twin, "is_there", lambda: False)
    monkeypatch.setattr(twin, "library", lambda: Path("nowhere.so"))
    monkeypatch.setattr(twin, "why_not", lambda: "no C++ compiler")
    monkeypatch.setenv(twin.REQUIRED, required)
    result = run("def test_a(): pass", "-p", "tests.second_device.twin")
    assert result.ret == code
    assert result.outlines == ["nothing was run on a second device: no C++ compiler"]
