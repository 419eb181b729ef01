"""Every code block of the documentation is executed, and every public name has its place."""

from __future__ import annotations

import ast
import re
import shlex
import sys

import pytest

pytest.importorskip("sphinx", reason="no Sphinx: tox run -e docs")

# Before pytester takes its snapshot of sys.modules: torch cannot be imported twice, nor can the
# parts of it that the first optimizer and the first dispatch mode load. Only where the tests run:
# loading them takes seconds.
import torch
import torch._dynamo
import torch._inductor.test_operators  # noqa: F401

from ..documents import ROOT, Block, blocks_of, comparable

DOCS = ROOT / "docs"
#: Written by commands, each with a test that it is up to date; their blocks are messages.
WRITTEN = {"gallery.md", "planted_bugs.md", "questions.md", "first_contact.md"}
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.name not in WRITTEN and "_build" not in path.parts
}
BLOCKS = {
    f"{page}:{block.line}": block for page, text in PAGES.items() for block in blocks_of(text)
}


#: What the commands on the pages are about.
FACTORIES = """
from torch import nn

def factory():
    return nn.Linear(3, 2)

def wider():
    return nn.Linear(4, 2, bias=False)
"""


def of(language: str) -> list[object]:
    return [pytest.param(b, id=name) for name, b in BLOCKS.items() if b.language == language]


def test_no_block_has_a_language_that_nothing_runs() -> None:
    assert {block.language for block in BLOCKS.values()} <= {"python", "console", "yaml"}


@pytest.mark.parametrize("block", of("python"))
def test_python(
    block: Block, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block with a test is a test file, one with a hook a conftest, any other a script."""
    names = {node.name for node in ast.parse(block.text).body if isinstance(node, ast.FunctionDef)}
    if any(name.startswith("pytest_") for name in names):
        pytester.makeconftest(block.text)
        pytester.makepyfile("def test_a(): pass")
        result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
        assert result.ret == pytest.ExitCode.OK
    elif any(name.startswith("test_") for name in names):
        pytester.makepyfile(test_page=block.text)
        result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
        assert result.ret == pytest.ExitCode.OK
    else:
        exec(compile(block.text, "<page>", "exec"), {"__name__": "__main__"})
        if block.output:
            assert comparable(capsys.readouterr().out) == comparable(block.output)


@pytest.mark.parametrize("block", of("console"))
def test_console(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.params\ndef test_a(): pass")
    (pytester.path / "package").mkdir()
    (pytester.path / "package" / "module.py").write_text(FACTORIES, encoding="utf-8")
    for line in block.text.strip().splitlines():
        words = shlex.split(line, comments=True)
        if "tox" in words:
            assert line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
            continue
        if words[:3] == ["python", "-m", "pytest_paramcheck"]:
            result = pytester.run(sys.executable, *words[1:])
            said = re.search(r"# exit status (\d+)$", line)
            assert result.ret == (int(said[1]) if said else 0)
            if block.output:
                assert comparable(result.stdout.str()) == comparable(block.output)
            continue
        assert words[0] == "pytest", f"nothing runs {line!r}"
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words[1:])
        assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("question", "page", "answer"),
    [
        (
            "the arguments of `assert_shapes`",
            "reference/assertions.md",
            "autofunction:: assert_shapes",
        ),
        ("how to run this on a GPU", "howto/devices.md", "pytest --param-device=auto"),
        ("how to see all rows of a failure", "howto/failures.md", "`pytest -vv` prints every row"),
        ("how to leave a parameter out", "howto/selecting.md", '`"!..."` takes away'),
        ("what ALIASED means", "reference/words.md", "| `ALIASED` | no | exactly the same |"),
        ("how to use it in CI", "howto/ci.md", "runs-on: ubuntu-latest"),
    ],
)
def test_what_newcomers_ask_is_one_link_away(question: str, page: str, answer: str) -> None:
    [row] = [line for line in PAGES["index.md"].splitlines() if question in line]

    assert f"({page}" in row
    assert answer in PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_left_out_of_the_index(page: str) -> None:
    assert page == "index.md" or re.search(
        rf"^{page.removesuffix('.md')}$", PAGES["index.md"], re.MULTILINE
    )
