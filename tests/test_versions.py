"""The versions that are promised are the versions that are tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest_paramcheck

ROOT = Path(__file__).parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def found(pattern: str, name: str) -> list[str]:
    return re.findall(pattern, read(name), re.MULTILINE)


def test_the_oldest_torch_that_is_promised_is_tested() -> None:
    (promised,) = found(r'^    "torch>=([\d.]+)"', "pyproject.toml")
    (tested,) = found(r"^    oldest: torch==([\d.]+)$", "tox.ini")
    assert tested == f"{promised}.0"


def test_the_oldest_pytest_that_is_promised_is_tested() -> None:
    (promised,) = found(r'^    "pytest>=([\d.]+)"', "pyproject.toml")
    assert found(r"^    pytest==([\d.]+)\.\*$", "tox.ini") == [promised]


def test_each_python_that_is_promised_is_tested() -> None:
    promised = found(r'^    "Programming Language :: Python :: 3\.(\d+)"', "pyproject.toml")
    (named,) = found(r"^\[testenv:py{([\d,]+)}\]$", "tox.ini")
    (base,) = set(found(r"^base_python = python3\.(\d+)$", "tox.ini"))
    assert {f"3{minor}" for minor in promised} <= {*named.split(","), f"3{base}"}


def test_the_hosted_run_has_each_environment_of_a_version() -> None:
    file = ".github/workflows/tests.yml"
    rows = dict(re.findall(r'\{env: ([\w-]+), python: "([\d.]+)"\}', read(file)))
    (pythons,) = found(r"^\[testenv:py{([\d,]+)}\]$", "tox.ini")
    (torches,) = found(r"^\[testenv:torch-{([\w,]+)}\]$", "tox.ini")
    assert rows == {
        **{f"torch-{word}": "3.11" for word in torches.split(",")},
        **{f"py{number}": f"3.{number[1:]}" for number in pythons.split(",")},
    }


def test_nobody_asks_torch_for_its_default_device() -> None:
    """In torch 2.8 that raises once ``set_default_device(None)`` was called: ask a tensor."""
    package = Path(pytest_paramcheck.__file__).parent
    folders = [package, ROOT / "tests", ROOT / "examples"]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    asking = re.compile(r"(?<!`)torch\.get_default_device\(")
    assert len(files) > 100
    assert [str(f) for f in files if asking.search(f.read_text(encoding="utf-8"))] == []
