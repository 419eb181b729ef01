"""Findings and wrong calls end at the user's line, in every style of traceback."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

import pytest_paramcheck

from .conftest import STRICT, Run

PACKAGE = str(Path(pytest_paramcheck.__file__).parent)

#: In each of these the line that is wrong ends with "# here".
HEAD = """
    import unittest
    import pytest
    import torch
    from torch import nn
    from pytest_paramcheck import *
    from pytest_paramcheck import init, values

    def net():
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
"""
TYPOS = {
    "pattern": "assert_frozen(net(), 'backbone')",
    "name": "assert_tied(net(), '0.wieght', '1.weight')",
    "glob": "assert_finite(net(), 'blocks.*')",
    "negation": "assert_trainable(net(), '!blocks')",
    "class": "assert_frozen(net(), nn.Conv2d)",
    "group": "assert_ties(net(), {'0.weight', '1.weight'})",
    "shape": "assert_shapes(net(), {'0.weight': '2 x'})",
    "shape of nothing": "assert_shapes(net(), {'weight': (2, 3)})",
    "dtype": "assert_dtypes(net(), 'float23')",
    "device": "assert_devices(net(), 'gpu')",
    "count": "assert_param_count(net(), '8')",
    "no count": "assert_param_count(net())",
    "bound": "assert_grad_norm(net(), at_most='1')",
    "tolerance": "assert_same_values(net(), net(), rtol=-1)",
    "operation": "assert_ties_survive(net(), 'onnx')",
    "checkpoint": "assert_loaded(net(), 'missing.pt')",
    "subject": "assert_finite([net()])",
    "nothing": "assert_finite(nn.Identity())",
    "aspect": "assert_unchanged(net(), only='bits')",
    "optimizer": "assert_optimizer_covers(torch.optim.SGD, net())",
    "groups": "assert_param_groups(torch.optim.SGD(net().parameters()), net(), {'x': {'lr': 1}})",
    "init": "assert_init(net(), {'blocks': 'zeros'})",
    "list": "assert_frozen(net(), ['0', '1'])",
    "function": "assert_init(net(), {'0.weight': nn.init.normal_})",
    "condition": "assert_values(net(), {'0.weight': '>0'})",
    "share": "assert_grads_reach(net(), lambda m: None, at_least=50)",
    "parameters": "assert_finite(net().parameters())",
    "not built": "assert_finite(nn.Linear)",
    "swapped": "assert_optimizer_covers(net(), torch.optim.SGD(net().parameters()))",
    "decay": "assert_averaged(net(), net(), decay=1.5).__enter__()",
    "part": "assert_frozen(net(), part('0.weight', 0))",
    "by": "assert_tied(net(), '0.weight', '1.weight', by='memry')",
    "path": "assert_finite('model.pt')",
    "loss": "assert_grads_reach(net(), lambda m: None, 'blocks')",
    "manifest": "assert_manifest(net(), path=3)",
    "mapping": "assert_grads_present(net().state_dict())",
    "factory": "ModelCase(net())",
    "case": "ModelCase(net, frozen='backbone')",
    "cases": "parametrize_with_param_checks([net])",
    "table": "param_table(net(), 'blocks')",
    "method": "assert_finite(net().named_parameters)",
    "factory for a model": "assert_finite(net)",
    "optimizer for a model": "assert_updated(torch.optim.SGD(net().parameters())).__enter__()",
    "tensor": "assert_finite(torch.ones(2))",
    "no subject": "assert_registered(None)",
    "module as pattern": "assert_frozen(net(), net()[0])",
    "string for a list": "assert_frozen(net(), exactly='0')",
    "one name": "assert_tied(net(), '0.weight')",
    "two patterns": "assert_tied('0.weight', '1.weight')",
    "names that are no groups": "assert_ties(net(), [('0.weight')])",
    "size": "assert_shapes(net(), {'0.weight': 6})",
    "negative size": "assert_shapes(net(), {'0.weight': (2, -3)})",
    "pairs of shapes": "assert_shapes(net(), [('0.weight', (2, 3))])",
    "type": "assert_dtypes(net(), float)",
    "float count": "assert_param_count(net(), 8.0)",
    "no bound": "assert_grad_norm(net())",
    "loss for a function": "assert_grads_reach(net(), torch.ones(1))",
    "several losses": "assert_grads_reach(net(), lambda m: (1, 2))",
    "detached": "assert_grads_reach(net().state_dict(), lambda m: 3)",
    "nothing tied": "assert_tied_grads_sum(net(), lambda m: 3)",
    "saved": "assert_optimizer_state(torch.optim.SGD(net().parameters()), net(), saved=3)",
    "no setting": "assert_param_groups(torch.optim.SGD(net().parameters()), net(), {'0': 0.1})",
    "model and checkpoint": "assert_loaded(net().state_dict(), net())",
    "nested": "assert_loaded(net(), {'model': net().state_dict()})",
    "missing as a string": "assert_loaded(net(), net().state_dict(), missing='0.weight')",
    "no file": "assert_checkpoint('nope.pt')",
    "way": "assert_roundtrip(net(), through='pickel')",
    "number": "assert_init(net(), {'0.weight': init.normal(0, '1')})",
    "class of a distribution": "assert_init(net(), {'0.weight': init.normal})",
    "model for a factory": "assert_init_complete(net())",
    "bounds": "assert_values(net(), {'0.weight': values.between(2, 1)})",
    "build": "assert_resumes(net(), lambda objects: None)",
    "selects nothing": "assert_finite(net(), part('0.weight', slice(9, 12)))",
    "field": "ModelCase(net, steps=0)",
    "dict for a list": "ModelCase(net, frozen={'0': True})",
    "no cases": "parametrize_with_param_checks([])",
}
PLACES = """
    def test_with():
        with assert_unchanged(net(), "nope"):  # here
            pass

    def test_the_end_of_a_block():
        model = net()
        with assert_unchanged(model):  # here
            model[0].weight.data.add_(1)

    def test_a_fixture_of_ours(assert_frozen):
        assert_frozen(net())  # here

    class TestClass:
        def test_a_helper(self):
            self.check(net())

        def check(self, model):
            assert_tied(model, "0.weight", "1.weight")  # here

    class TestUnit(unittest.TestCase):
        def test_unittest(self):
            assert_finite(net(), "x")  # here

    @pytest.fixture
    def model():
        assert_finite(net(), "x")  # here

    def test_a_fixture_of_the_user(model):
        pass

    def test_a_loss():
        def loss(model):
            assert_finite(model, "x")  # here
        assert_grads_reach(net(), loss)

    def test_behind_a_context_manager_and_a_hook_of_torch():
        def hook(module, args, output):
            assert_finite(module, "x")  # here
        model = net()
        model.register_forward_hook(hook)
        assert_grads_reach(model, lambda m: m(torch.ones(4, 3)).sum())

    @parametrize_with_param_checks([ModelCase(net, frozen=["backbone"], name="a")])
    def test_parameters(check):
        check()  # here
"""

SUBTEST = """
    def test_a_subtest(subtests):
        with subtests.test("one"):
            assert_finite(net(), "x")  # here
"""


def _file(pytester: pytest.Pytester) -> list[str]:
    typos = [
        f"def test_typo_{number}():\n    {call}  # here"
        for number, call in enumerate(TYPOS.values())
    ]
    parts = [HEAD, PLACES, SUBTEST if pytest.version_tuple >= (9,) else ""]
    source = "\n\n".join([*map(dedent, parts), *typos])
    pytester.makepyfile(test_it=source)
    return source.strip().splitlines()


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
def test_every_error_ends_at_the_users_line(pytester: pytest.Pytester, style: str) -> None:
    lines = _file(pytester)
    reports = pytester.inline_run(*STRICT, f"--tb={style}").getfailures()
    texts = [str(report.longrepr) for report in reports]
    ours = [report for report in reports if hasattr(report.longrepr, "reprcrash")]

    crashes = [report.longrepr.reprcrash for report in ours]
    assert [str(c) for c in crashes if Path(c.path).name != "test_it.py"] == []
    assert [str(c) for c in crashes if not lines[c.lineno - 1].endswith("# here")] == []
    # A line may be that of several reports: each check of a wrong declaration says so.
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# here")}
    assert {crash.lineno for crash in crashes} == wrong
    assert [text for text in texts if PACKAGE in text] == []
    if style in ("auto", "short", "line"):
        of_typos = [str(r.longrepr) for r in ours if "test_typo" in r.nodeid]
        assert len(of_typos) == len(TYPOS)
        assert [text for text in of_typos if len(text.splitlines()) > 12] == []
        # The last lines are the error and where it was raised, and nothing is behind them.
        ends = [" ".join(text.splitlines()[-4:]) for text in of_typos]
        assert [end for end in ends if "ParamCheckUsageError" not in end] == []


@pytest.mark.parametrize("style", ["auto", "short", "line", "native"])
def test_an_error_of_the_collection_ends_at_the_users_line(run: Run, style: str) -> None:
    result = run(
        """
        from torch import nn
        from pytest_paramcheck import ModelCase
        CASE = ModelCase(nn.Identity, frozen="backbone")
        """,
        f"--tb={style}",
    )

    said = "did you mean ['backbone']?"
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not any(PACKAGE in line for line in result.outlines)
    assert any(line.endswith(said) for line in result.outlines)
    if style in ("auto", "short"):
        assert "test_it.py:3: in <module>" in result.outlines


def test_the_whole_traceback_is_there_for_who_asks(run: Run) -> None:
    source = "import torch\ndef test_a(assert_finite): assert_finite(torch.nn.Identity())"

    result = run(source, "--full-trace")

    assert any("reading.py" in line for line in result.outlines)


def test_an_error_that_is_not_ours_keeps_its_traceback(run: Run) -> None:
    result = run(
        """
        from torch import nn
        def test_a(assert_grads_reach):
            assert_grads_reach(nn.Linear(2, 2), lambda model: 1 / 0)
        """,
        "--tb=native",
    )

    assert any("assert_grads_reach" in line and PACKAGE in line for line in result.outlines)
    assert any(line.endswith("in <lambda>") for line in result.outlines)


def test_a_wrong_declaration_is_named(run: Run) -> None:
    result = run(
        """
        from torch import nn
        from dataclasses import replace
        from pytest_paramcheck import ModelCase, parametrize_with_param_checks

        CASE = ModelCase(
            lambda: nn.Linear(3, 2),
            frozen=["backbone"],
            name="linear",
        )
        OTHER = replace(CASE, name="other")

        @parametrize_with_param_checks([CASE, OTHER])
        def test_a(check): check()
        """,
        "--tb=line",
        "-k",
        "check_frozen",
    )

    said = (
        "ParamCheckUsageError: pattern 'backbone' matches nothing in Linear; "
        "it has weight, bias (ModelCase "
    )
    places = [line for line in result.outlines if "test_it.py:13: " in line]
    assert [place.partition("test_it.py:13: ")[2] for place in places] == [
        f"{said}'linear', test_it.py:5)",
        f"{said}'other', test_it.py:10)",
    ]


def test_a_model_of_the_command_line_is_named(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(net="def make(): return 3")

    result = run("", "--param-model=net:make", "-k", "check_finite")

    assert next(line for line in result.outlines if "UsageError: " in line) == (
        "ParamCheckUsageError: the factory of make returned int, no nn.Module "
        "(ModelCase 'make', --param-model=net:make)"
    )


#: What plugins for asynchronous tests do: the coroutine runs in a loop of theirs.
RUNS_COROUTINES = """
    import asyncio, inspect
    import pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem):
        if inspect.iscoroutinefunction(pyfuncitem.obj):
            wanted = pyfuncitem._fixtureinfo.argnames
            given = {name: pyfuncitem.funcargs[name] for name in wanted}
            asyncio.run(pyfuncitem.obj(**given))
            return True
"""
ASYNCHRONOUS = """
    import asyncio

    async def test_a_finding():
        await asyncio.sleep(0)
        assert_frozen(net())  # here

    @pytest.mark.params(devices="cpu")
    async def test_a_wrong_call_of_a_fixture(assert_frozen):
        await asyncio.sleep(0)
        assert_frozen(net(), "nope")  # here

    async def test_a_task():
        async def inner():
            await asyncio.sleep(0)
            assert_tied(net(), "0.weight", "1.weight")  # here
        await asyncio.gather(inner())

    async def test_a_block():
        model = net()
        with assert_unchanged(model):  # here
            await asyncio.sleep(0)
            model[0].weight.data.add_(1)
"""


@pytest.mark.parametrize("style", ["auto", "short", "native"])
def test_an_asynchronous_test_ends_at_the_users_line(pytester: pytest.Pytester, style: str) -> None:
    pytester.makeconftest(dedent(RUNS_COROUTINES))
    source = dedent(HEAD) + dedent(ASYNCHRONOUS)
    pytester.makepyfile(test_it=source)
    lines = source.strip().splitlines()

    reports = pytester.inline_run(*STRICT, f"--tb={style}").getfailures()

    crashes = [report.longrepr.reprcrash for report in reports]
    wrong = [number for number, line in enumerate(lines, 1) if line.endswith("# here")]
    assert [crash.lineno for crash in crashes] == wrong
    assert {Path(crash.path).name for crash in crashes} == {"test_it.py"}
    assert not any(PACKAGE in str(report.longrepr) for report in reports)


def test_what_annotations_read_is_the_users_line(pytester: pytest.Pytester) -> None:
    """GitHub's annotations and IDEs read a file and a line, of the error or of the item."""
    pytester.makepyfile(
        net=dedent("""
        from torch import nn

        def make():
            layer = nn.Linear(2, 2)
            layer.weight.data[0, 0] = float("nan")
            return layer
        """).strip()
    )
    source = dedent("""
        import pytest
        from net import make
        from pytest_paramcheck import *

        @pytest.fixture
        def model():
            assert_finite(make())

        def test_a(model):
            pass

        @parametrize_with_param_checks([ModelCase(make, name="net")])
        def test_b(check):
            check()
    """).strip()
    pytester.makepyfile(test_it=source)
    lines = source.splitlines()

    places = {
        report.nodeid: (report.location, getattr(report.longrepr, "reprcrash", None))
        for args in (("-k", "finite or test_a"), ("--param-model=net:make",))
        for report in pytester.inline_run(*STRICT, *args).getfailures()
    }

    def line(test: str) -> str:
        (file, _, _), crash = places[test]
        assert (file, Path(crash.path).name) == ("test_it.py", "test_it.py")
        return lines[crash.lineno - 1]

    assert line("test_it.py::test_a") == "    assert_finite(make())"
    assert line("test_it.py::test_b[net-check_finite]") == "    check()"
    # An item of the command line has no test: it is where the factory is.
    assert [place[:2] for name, (place, _) in places.items() if name.startswith("net:make::")] == [
        ("net.py", 2)
    ]
