"""The extension points: the example of each docstring made real, and wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from .conftest import BARE, Run

NO_PLUGIN = ("-p", "no:paramcheck")


def conftest(pytester: pytest.Pytester, source: str, folder: str = ".") -> None:
    place = pytester.path / folder
    place.mkdir(exist_ok=True)
    (place / "conftest.py").write_text(dedent(source), encoding="utf-8")


def write_test(pytester: pytest.Pytester, source: str, folder: str) -> None:
    place = pytester.path / folder
    place.mkdir(exist_ok=True)
    (place / f"test_{folder}.py").write_text(dedent(source), encoding="utf-8")


# -- whole-model checks of one's own ------------------------------------------------------------

CHECKS = """
    from pytest_paramcheck import NothingToCheck, assert_init
    from pytest_paramcheck.init import zeros

    def pytest_paramcheck_checks():
        def check_biases_start_at_zero(case):
            if not any(name.endswith("bias") for name, _ in case.model.named_parameters()):
                raise NothingToCheck("no bias")
            assert_init(case.model, {"*bias": zeros()})

        return [check_biases_start_at_zero]
"""
CASES = """
    from torch import nn
    from pytest_paramcheck import ModelCase, parametrize_with_param_checks

    @parametrize_with_param_checks([
        ModelCase(lambda: nn.Linear(3, 2), name="random"),
        ModelCase(lambda: nn.LayerNorm(3), name="zero"),
        ModelCase(lambda: nn.Linear(3, 2, bias=False), name="none"),
    ])
    def test_p(check): check()
"""


def test_a_check_of_ones_own(run: Run, pytester: pytest.Pytester) -> None:
    conftest(pytester, CHECKS)
    result = run(CASES, "-rs", "-k", "biases")

    result.assert_outcomes(failed=1, passed=1, skipped=1, deselected=3 * len(BARE))
    assert "random: 1 of 1 checks failed: check_biases_start_at_zero" in result.outlines
    assert any(line.endswith(": no bias") for line in result.outlines if "SKIPPED" in line)


def test_a_check_of_ones_own_can_be_expected_to_fail(run: Run, pytester: pytest.Pytester) -> None:
    conftest(pytester, CHECKS)
    source = CASES.replace(
        'name="random"', 'name="random", expected_failures={"check_biases_start_at_zero": "yes"}'
    )

    run(source, "-k", "biases").assert_outcomes(
        xfailed=1, passed=1, skipped=1, deselected=3 * len(BARE)
    )


def test_checks_of_a_directory_do_not_reach_its_neighbors(
    ids: Callable[..., list[str]], pytester: pytest.Pytester
) -> None:
    conftest(pytester, CHECKS, "inner")
    write_test(pytester, CASES, "inner")
    write_test(pytester, CASES, "outer")

    assert ids("", "inner", "-k", "biases and zero-") == ["test_p[zero-check_biases_start_at_zero]"]
    assert ids("", "outer", "-k", "biases") == []


def test_a_conftest_below_the_root_answers_for_models(run: Run, pytester: pytest.Pytester) -> None:
    conftest(pytester, "")
    conftest(
        pytester,
        """
        import torch
        from pytest_paramcheck import assert_shapes

        class Tree: pass

        def pytest_paramcheck_named_tensors(subject):
            return [("a", torch.ones(2))] if isinstance(subject, Tree) else None

        def pytest_paramcheck_checks():
            def check_tree(case): assert_shapes(Tree(), {"a": (2,)})
            return [check_tree]
        """,
        "tests",
    )
    for where in ((), ("tests",)):
        result = run("", "--param-model=torch.nn:ReLU", "-k", "check_tree", *where)
        assert result.parseoutcomes()["passed"] == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("lambda case: None", "expected a list of functions, got function"),
        ("'check_x'", "expected a list of functions, got str"),
        ("['check_x']", "a check is a function with a name of its own, got 'check_x'"),
        (
            "[functools.partial(print)]",
            "a check is a function with a name of its own, got "
            "functools.partial(<built-in function print>)",
        ),
        (
            "[check_finite]",
            "check_finite is a registered check: give yours another name",
        ),
        ("[check_mine, check_other]", "two checks are called check_mine"),
    ],
)
def test_wrong_answers_about_checks(
    run: Run, pytester: pytest.Pytester, answer: str, text: str
) -> None:
    conftest(
        pytester,
        f"""
        import functools

        def check_finite(case): pass
        def check_mine(case): pass
        def check_other(case): pass
        check_other.__name__ = "check_mine"

        def pytest_paramcheck_checks():
            return {answer}
        """,
    )
    result = run(CASES)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"test_it.py::test_p: hook pytest_paramcheck_checks: {text}" in result.outlines
    models = run("", "--param-model=torch.nn:ReLU", "--co")
    assert models.ret == pytest.ExitCode.USAGE_ERROR
    assert models.errlines[0] == (
        f"ERROR: --param-model=torch.nn:ReLU: hook pytest_paramcheck_checks: {text}"
    )


def test_an_answer_of_none_adds_nothing(run: Run, pytester: pytest.Pytester) -> None:
    conftest(pytester, "def pytest_paramcheck_checks(): return None")

    run(CASES, "-k", "ties").assert_outcomes(passed=3, deselected=3 * (len(BARE) - 1))


# -- a subject that is no nn.Module -------------------------------------------------------------

TREE = """
    import torch

    class State:
        def __init__(self, tree):
            self.tree = tree

        def leaves(self):
            for key, value in self.tree.items():
                if isinstance(value, dict):
                    yield from (((key, *path), leaf) for path, leaf in State(value).leaves())
                else:
                    yield (key,), value
"""
READS = """
    from tree import State

    def pytest_paramcheck_named_tensors(subject):
        if isinstance(subject, State):
            return [("/".join(path), leaf) for path, leaf in subject.leaves()]
        return None
"""
STATES = """
    import torch, pytest
    from pytest_paramcheck import ParamCheckError
    from tree import State

    def test_state(assert_finite, assert_shapes, assert_unchanged):
        state = State({"a": {"w": torch.ones(2)}, "b": torch.tensor([float("nan")])})
        assert_shapes(state, {"a/w": (2,), "b": (1,)})
        with pytest.raises(ParamCheckError) as error:
            assert_finite(state)
        assert str(error.value).splitlines()[0] == "not finite: b (State)"
        with assert_unchanged(state):
            pass

    def test_modules_are_read_as_ever(assert_param_count):
        assert_param_count(torch.nn.Linear(3, 2), total=8)
"""


def test_a_subject_of_ones_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(tree=dedent(TREE))
    conftest(pytester, READS)

    run(STATES).assert_outcomes(passed=2)


def test_subjects_of_a_directory_do_not_reach_its_neighbors(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(tree=dedent(TREE))
    pytester.syspathinsert()
    conftest(pytester, READS, "inner")
    write_test(pytester, STATES, "inner")
    write_test(
        pytester,
        """
        import pytest, torch
        from pytest_paramcheck import ParamCheckUsageError
        from tree import State

        def test_unknown(assert_finite):
            with pytest.raises(ParamCheckUsageError) as error:
                assert_finite(State({"a": torch.ones(1)}))
            assert str(error.value) == (
                "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
                "Path of a checkpoint, got State"
            )
        """,
        "outer",
    )

    run("").assert_outcomes(passed=3)


PAIRS = "hook pytest_paramcheck_named_tensors: expected (name, tensor) pairs, got "


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("torch.ones(2)", f"{PAIRS}Tensor"),
        ("3", f"{PAIRS}int"),
        ("'ab'", f"{PAIRS}str"),
        ("[torch.ones(1)]", f"{PAIRS}Tensor among them"),
        ("[(1, torch.ones(1))]", f"{PAIRS}tuple among them"),
        ("[('a', 3)]", "'a' is not a tensor but int 3"),
        ("[]", "object has no parameters and no buffers: there is nothing to check"),
    ],
)
def test_wrong_answers_about_subjects(
    run: Run, pytester: pytest.Pytester, answer: str, text: str
) -> None:
    conftest(
        pytester, f"import torch\ndef pytest_paramcheck_named_tensors(subject): return {answer}"
    )
    result = run(
        "import torch\ndef test_it(assert_finite): assert_finite(object())", "-q", "--tb=short"
    )

    result.assert_outcomes(failed=1)
    assert f"E   ParamCheckUsageError: {text}" in result.outlines


# -- a tensor subclass with its own storages ----------------------------------------------------

PACKED = """
    import torch

    class Packed(torch.Tensor):
        @staticmethod
        def __new__(cls, codes):
            return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

        def __init__(self, codes):
            self.codes = codes

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise NotImplementedError(str(func))
"""
OPENS = """
    from packed import Packed

    def pytest_paramcheck_storages(tensor):
        if isinstance(tensor, Packed):
            return [tensor.codes]
        return None
"""
STORAGES = """
    import pytest, torch
    from packed import Packed
    from pytest_paramcheck import ParamCheckError

    def test_shared_codes(assert_untied):
        codes = torch.arange(4)
        assert_untied(Packed(codes), Packed(codes.clone()))
        with pytest.raises(ParamCheckError) as error:
            assert_untied(one=Packed(codes), two=Packed(codes))
        assert str(error.value).splitlines()[0] == "shares memory: one, two"
"""


def test_a_tensor_of_ones_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(packed=dedent(PACKED))
    conftest(pytester, OPENS)

    run(STORAGES).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("3", "expected a list of tensors, got int"),
        ("tensor.codes", "expected a list of tensors, got Tensor"),
        ("[3]", "expected a list of tensors, got int among them"),
        (
            "[tensor]",
            "a tensor does not hold itself: return the tensors inside it, or None",
        ),
    ],
)
def test_wrong_answers_about_storages(
    run: Run, pytester: pytest.Pytester, answer: str, text: str
) -> None:
    pytester.makepyfile(packed=dedent(PACKED))
    conftest(pytester, f"def pytest_paramcheck_storages(tensor): return {answer}")
    result = run(STORAGES, "-q", "--tb=short")

    result.assert_outcomes(failed=1)
    said = f"E   ParamCheckUsageError: hook pytest_paramcheck_storages: {text}"
    assert said in result.outlines


# -- devices for one directory ------------------------------------------------------------------

MARKED = """
    import pytest

    @pytest.mark.params
    def test_any(param_device): pass

    @pytest.mark.params(devices=["cpu"])
    def test_named(param_device): pass

    def test_unmarked(): pass
"""


def test_devices_of_one_directory(ids: Callable[..., list[str]], pytester: pytest.Pytester) -> None:
    conftest(pytester, "def pytest_paramcheck_devices(item): return ['meta']", "inner")
    write_test(pytester, MARKED, "inner")
    write_test(pytester, MARKED, "outer")

    assert ids("", "inner", "--param-device=cpu,meta") == [
        "test_any[meta]",
        "test_named[cpu]",  # the marker's own word wins
        "test_unmarked",
    ]
    assert ids("", "outer", "--param-device=cpu,meta") == [
        "test_any[cpu]",
        "test_any[meta]",
        "test_named[cpu]",
        "test_unmarked",
    ]


def test_devices_by_item(ids: Callable[..., list[str]], pytester: pytest.Pytester) -> None:
    conftest(
        pytester,
        """
        def pytest_paramcheck_devices(item):
            return "meta" if item.name.startswith("test_any") else None
        """,
    )

    assert ids(MARKED, "--param-device=cpu,meta")[0:2] == ["test_any[meta]", "test_named[cpu]"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("[]", "no device given"),
        (
            "['CUDA']",
            "'CUDA' is not a device name; did you mean 'cuda'?",
        ),
        (
            "['all']",
            "'all' is a choice for --param-device; devices= names what the test supports, e.g. "
            "'cpu' or 'accelerator'",
        ),
    ],
)
def test_wrong_answers_about_devices(
    run: Run, pytester: pytest.Pytester, answer: str, text: str
) -> None:
    conftest(pytester, f"def pytest_paramcheck_devices(item): return {answer}")
    result = run(MARKED)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (
        f"test_it.py::test_any: hook pytest_paramcheck_devices returned {answer}: {text}"
        in result.outlines
    )


# -- without the plugin -------------------------------------------------------------------------


def test_an_optional_hook_does_not_mind_that_the_plugin_is_off(
    run: Run, pytester: pytest.Pytester
) -> None:
    hooks = {"checks": "", "named_tensors": "subject", "storages": "tensor", "devices": "item"}
    for optional in ("(optionalhook=True)", ""):
        conftest(
            pytester,
            "import pytest\n"
            + "".join(
                f"@pytest.hookimpl{optional}\n"
                f"def pytest_paramcheck_{name}({argument}): return None\n"
                for name, argument in hooks.items()
            ),
        )
        result = run("def test_it(): pass", *NO_PLUGIN)
        if optional:
            result.assert_outcomes(passed=1)
            run("def test_it(): pass").assert_outcomes(passed=1)
        else:  # what the docstring warns of
            assert result.ret != pytest.ExitCode.OK
            assert any(
                "unknown hook 'pytest_paramcheck_" in line
                for line in result.outlines + result.errlines
            )


# -- pytest_paramcheck_inputs ---------------------------------------------------------------------

ANSWER = """
import torch
def pytest_paramcheck_inputs(model):
    return lambda: torch.ones(4, {size}) if isinstance(model, torch.nn.Linear) else None
"""
RUNS = ("-k", "grads_finite", "-rs")


def test_a_conftest_says_what_the_models_below_it_take(run: Run, pytester: pytest.Pytester) -> None:
    """Of one case in three folders: what another conftest said of it before plays no part."""
    pytester.makepyfile(
        shared="import torch\nfrom pytest_paramcheck import ModelCase\n"
        "CASE = ModelCase(lambda: torch.nn.Linear(3, 2), name='linear')\n"
    )
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\npythonpath = '.'")
    source = (
        "from pytest_paramcheck import parametrize_with_param_checks\n"
        "from shared import CASE\n"
        "@parametrize_with_param_checks(CASE)\n"
        "def test_it(check): check()\n"
    )
    for folder, size in (("a_right", 3), ("b_wrong", 2), ("c_none", None)):
        (pytester.path / folder).mkdir()
        (pytester.path / folder / f"test_{folder}.py").write_text(source)
        if size:
            (pytester.path / folder / "conftest.py").write_text(ANSWER.format(size=size))
    result = run("", *RUNS)

    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["skipped"]) == (1, 1, 1)
    said = [line for line in result.outlines if line.startswith("linear")]
    assert said == [
        "linear (b_wrong/test_b_wrong.py): 1 of 1 checks failed: check_grads_finite",
        "linear (a_right/test_a_right.py): 1 check passed, run on inputs from "
        "pytest_paramcheck_inputs; not declared: frozen, shapes, optimizer",
        "linear (c_none/test_c_none.py): 0 checks passed; not declared: frozen, shapes, optimizer",
        "linear (c_none/test_c_none.py): 1 check needs inputs (check_grads_finite): "
        "ModelCase(inputs=...)",
    ]


def test_a_conftest_says_what_the_models_of_the_command_line_take(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(ANSWER.format(size=3))
    result = run("", "--param-model=torch.nn:Linear(3, 2)", *RUNS, "--junitxml=out.xml")

    assert result.parseoutcomes()["passed"] == 1
    assert (
        "Linear(3, 2): 1 check passed, run on inputs from pytest_paramcheck_inputs; "
        "not declared: frozen, shapes, optimizer" in result.outlines
    )
    written = (pytester.path / "out.xml").read_text(encoding="utf-8")
    assert 'name="param_inputs" value="inputs from pytest_paramcheck_inputs"' in written


def test_what_a_guess_does_not_come_to_is_said_in_a_line_of_its_own(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        masked="""
        import torch
        from torch import nn
        class Net(nn.Linear):
            example_input_array = torch.linspace(-1, 1, 6).reshape(2, 3)
            def __init__(self):
                super().__init__(3, 2)
                self.of_mask = nn.Linear(3, 2)
            def forward(self, x, mask=None):
                return super().forward(x) if mask is None else self.of_mask(x * mask)
        """
    )
    result = run("", "--param-model=masked:Net", "-k", "reach or check_finite", "--junitxml=x.xml")

    assert [line for line in result.outlines if line.startswith("Net")] == [
        "Net: 2 checks passed, run on inputs from example_input_array; "
        "not declared: frozen, shapes, optimizer",
        "Net: not reached by the inputs from example_input_array: 2 parameters, of_mask "
        "(mask is None): ModelCase(inputs=...)",
    ]
    written = (pytester.path / "x.xml").read_text(encoding="utf-8")
    assert written.count('"param_left_out" value="2 parameters, of_mask (mask is None)"') == 1


def test_guesses_that_do_not_run_are_named_in_the_summary(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        wrong="""
        import torch
        class Net(torch.nn.Linear):
            example_input_array = torch.ones(2, 5)
            def __init__(self): super().__init__(3, 2)
        """
    )
    result = run("", "--param-model=wrong:Net", "-k", "finite")

    assert [line for line in result.outlines if line.startswith("Net")] == [
        "Net: 1 check passed; not declared: frozen, shapes, optimizer",
        "Net: 1 check needs inputs (check_grads_finite): ModelCase(inputs=...); those from "
        "example_input_array raise RuntimeError: mat1 and mat2 shapes cannot be multiplied "
        "(2x5 and 3x2)",
    ]
