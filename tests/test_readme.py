"""Every code block of README.md is executed, and what it shows is what pytest prints."""

from __future__ import annotations

import configparser
import re
import shlex

import pytest

# Before pytester takes its snapshot of sys.modules: torch cannot be imported twice.
import torch  # noqa: F401

import pytest_paramcheck
from pytest_paramcheck import CHECKS
from pytest_paramcheck.__main__ import main

from .documents import ROOT, Block, blocks_of, comparable
from .public import ASSERTIONS

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[Block]:
    return blocks_of(README)


def of(language: str) -> list[object]:
    """The blocks of a language, with the line as the test's id."""
    return [
        pytest.param(b, id=f"line{b.line}") for b in blocks() if b.language.startswith(language)
    ]


def test_no_block_has_a_language_that_nothing_runs() -> None:
    assert {b.language for b in blocks()} <= {"python", "console", "ini", "toml"}


@pytest.mark.parametrize("block", of("python"))
def test_python(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_readme=block.text)
    result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    if block.output:
        assert comparable("\n".join(result.outlines)) == comparable(block.output)
    else:
        assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("block", of("console"))
def test_console(block: Block, run_line) -> None:
    for line in block.text.strip().splitlines():
        run_line(line.removeprefix("$ "))


@pytest.fixture
def run_line(pytester: pytest.Pytester):
    """Run a pytest command on a marked test; hold set-up commands against tox.ini and .ci/run."""
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")

    def run_line(line: str) -> None:
        words = shlex.split(line)
        if "tox" in words:
            assert "run" in words, line
            if "-e" in words:
                assert f"testenv:{words[words.index('-e') + 1]}" in tox.sections()
            else:
                script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
                assert line in script.splitlines()
            return
        ours = words[:3] == ["python", "-m", "pytest_paramcheck"]
        assert ours or words[0] == "pytest", f"nothing runs {line!r}"
        pytester.makepyfile("import pytest\n@pytest.mark.params\ndef test_a(): pass")
        package = pytester.path / "package"
        package.mkdir(exist_ok=True)
        factory = (
            "from torch import nn\n"
            "def factory():\n    return nn.Linear(3, 2)\n"
            "def make(name, layers):\n    return nn.Sequential(nn.Linear(3, layers))\n"
        )
        (package / "module.py").write_text(factory, encoding="utf-8")
        if ours:
            assert main(words[3:]) == 0
            return
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words[1:])
        if result.ret == pytest.ExitCode.USAGE_ERROR:
            # A device this machine lacks, and nothing else, may be wrong with the command.
            result.stderr.fnmatch_lines("ERROR: --param-device (command line): * is not there: *")
        else:
            assert result.ret == pytest.ExitCode.OK

    return run_line


def test_the_setup_commands_stand_first() -> None:
    first, second = blocks()[:2]
    assert first.text.rstrip().endswith("tox run -e book")
    assert second.text.rstrip().endswith("tox run")


def test_the_fixtures_table_lists_every_assertion() -> None:
    table = README.partition("## Fixtures")[2].partition("##")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted([*ASSERTIONS, "param_device", "param_dtype"])


def test_the_checks_table_lists_every_check_in_order() -> None:
    table = README.partition("## Whole models")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(CHECKS)


def test_every_public_name_is_in_the_reference() -> None:
    """tox's docs environment builds the pages; a name that is on none is seen here."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    said = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    missing = [name for name in pytest_paramcheck.__all__ if not re.search(rf"\b{name}\b", said)]
    assert missing == []
