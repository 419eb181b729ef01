"""Which ids a marked test gets, in which order, and on which device it runs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Run

ONE = """
    import pytest, torch
    @pytest.mark.params
    def test_a():
        print("made on", torch.ones(1).device)
"""
SUITE = """
    import pytest
    @pytest.mark.params
    @pytest.mark.parametrize("x", [1, 2])
    def test_a(x): pass
    def test_b(): pass
    @pytest.mark.params
    def test_c(): pass
    class TestD:
        @pytest.mark.parametrize("y", "ab")
        def test_e(self, y): pass
"""


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], ["test_a[cpu]"]),
        (["--param-device=meta"], ["test_a[meta]"]),
        (["--param-device=cpu", "--param-device=meta"], ["test_a[cpu]", "test_a[meta]"]),
        (["--param-device=meta,cpu"], ["test_a[meta]", "test_a[cpu]"]),
        (["--param-device=meta, cpu meta", "--param-device=meta"], ["test_a[meta]", "test_a[cpu]"]),
        (["--param-device=cpu:0"], ["test_a[cpu:0]"]),
        (["-o", "param_devices=meta cpu"], ["test_a[meta]", "test_a[cpu]"]),
        (["-o", "param_devices=meta", "--param-device=cpu"], ["test_a[cpu]"]),
        (["--param-device=auto"], ["test_a[cpu]"]),
        (["--param-device=all"], ["test_a[cpu]"]),
    ],
)
def test_ids(ids, args: list[str], expected: list[str]) -> None:
    assert ids(ONE, *args) == expected


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ["cuda"]),
        ("accelerator", ["cuda"]),
        ("all", ["cpu", "cuda"]),
        ("meta,all,cuda:1", ["meta", "cpu", "cuda", "cuda:1"]),
    ],
)
def test_words_on_a_machine_with_accelerators(ids, choice: str, expected: list[str]) -> None:
    assert ids(ONE, f"--param-device={choice}") == [f"test_a[{name}]" for name in expected]


def test_the_device_is_the_default_in_the_body(run: Run) -> None:
    result = run(ONE, "--param-device=meta,cpu", "-s", "-p", "no:terminal")
    assert [line for line in result.outlines if "made" in line] == ["made on meta", "made on cpu"]


def test_ids_and_order_do_not_depend_on_xdist(run: Run, plugin_args: tuple[str, ...]) -> None:
    result = run(SUITE, "--param-device=cpu,meta", "--junitxml=out.xml", *plugin_args)
    result.assert_outcomes(passed=9)
    names = [
        *("test_a[cpu-1]", "test_a[cpu-2]", "test_a[meta-1]", "test_a[meta-2]", "test_b"),
        *("test_c[cpu]", "test_c[meta]", "test_e[a]", "test_e[b]"),
    ]
    assert [case["name"] for case in junit_cases()] == names


def test_unmarked_ids_are_untouched_without_the_plugin(pytester: pytest.Pytester, ids) -> None:
    source = "\n".join(line for line in SUITE.splitlines() if "mark.params" not in line)
    pytester.makeconftest("def pytest_configure(config): pass")
    expected = [
        "test_a[1]",
        "test_a[2]",
        "test_b",
        "test_c",
        "TestD::test_e[a]",
        "TestD::test_e[b]",
    ]
    assert ids(source, "--param-device=meta,cpu") == expected
    assert ids(source, "-p", "no:paramcheck") == expected


def test_the_property_reaches_junit(run: Run, plugin_args: tuple[str, ...]) -> None:
    run(
        ONE + "    def test_plain(): pass\n",
        "--param-device=meta",
        "--junitxml=out.xml",
        *plugin_args,
    )
    assert {case["name"]: case["device"] for case in junit_cases()} == {
        "test_a[meta]": "meta",
        "test_plain": None,
    }


def junit_cases(module: str = "test_it") -> list[dict[str, str | None]]:
    """The tests of a module in out.xml, each with its ``param_device`` property."""
    found = []
    for case in ElementTree.parse(Path("out.xml")).iter("testcase"):
        if str(case.get("classname")).partition(".")[0] != module:
            continue
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        found.append({"name": case.get("name"), "device": properties.get("param_device")})
    return found


# -- param_device and order ------------------------------------------------------------------


def test_param_device_is_the_device_of_the_test(run: Run) -> None:
    result = run(
        """
        import pytest, torch
        @pytest.mark.params
        def test_marked(param_device, param_dtype, request):
            assert isinstance(param_device, torch.device)
            assert param_device.type == request.node.name[12:-1] == torch.ones(1).device.type
            assert param_dtype is torch.float32
        """,
        "--param-device=cpu,meta",
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("args", "device", "dtype"),
    [
        ([], "cpu", "float32"),
        (["--param-device=meta,cpu", "--param-dtype=float64,float32"], "meta", "float64"),
    ],
)
def test_an_unmarked_test_gets_the_first_chosen(run: Run, args, device: str, dtype: str) -> None:
    result = run(
        f"""
        import torch
        def test_unmarked(param_device, param_dtype):
            assert param_device == torch.device({device!r})
            assert param_dtype is torch.{dtype}
            assert torch.ones(1).device.type == "cpu"
            assert torch.ones(1).dtype is torch.float32
        """,
        *args,
    )
    result.assert_outcomes(passed=1)


def test_an_unmarked_test_is_skipped_where_the_first_device_is_absent(run: Run) -> None:
    result = run("def test_a(param_device): pass", "-o", "param_devices=cuda:9", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*torch sees no cuda device"])


TWO_MODULES = """
    import pytest
    {mark}
    def test_one({argument}): pass
    def test_two(): pass
    {mark}
    def test_three({argument}): pass
"""


@pytest.mark.parametrize(
    ("argument", "args"),
    [
        ("", []),
        ("", ["--param-device=cpu,meta"]),
        ("param_device", []),
        ("param_device", ["--param-device=meta"]),
    ],
)
def test_a_marker_does_not_move_tests(ids, pytester, argument: str, args: list[str]) -> None:
    def order(mark: str, asked: str) -> list[str]:
        pytester.makepyfile(
            test_1=TWO_MODULES.format(mark=mark, argument=asked).replace("\n    ", "\n")
        )
        found = ids(TWO_MODULES.format(mark=mark, argument=asked), *args, name="test_2")
        return list(dict.fromkeys(name.partition("[")[0] for name in found))

    everything = ids(TWO_MODULES.format(mark="", argument=""), name="test_2")
    assert everything == ["test_one", "test_two", "test_three"]
    assert order("@pytest.mark.params", argument) == everything


def test_several_devices_regroup_the_tests_that_ask(ids) -> None:
    source = TWO_MODULES.format(mark="@pytest.mark.params", argument="param_device")
    assert ids(source, "--param-device=cpu,meta") == [
        *("test_one[cpu]", "test_three[cpu]", "test_one[meta]", "test_three[meta]", "test_two")
    ]


# -- what a marker supports ------------------------------------------------------------------


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    ("supported", "chosen", "expected"),
    [
        ("'cpu'", "", ["cpu"]),
        ("['meta', 'cpu']", "", ["meta", "cpu"]),
        ("'meta,cpu'", "", ["meta", "cpu"]),
        ("['meta', 'cpu']", "cpu,meta", ["cpu", "meta"]),
        ("'meta'", "cpu,meta", ["meta"]),
        ("'cuda'", "cuda:1", ["cuda:1"]),
        ("'cuda:1'", "cuda", ["cuda:1"]),
        ("'cuda:1'", "cuda:0", ["cuda:1 SKIPPED runs on cuda:1 only; chosen: cuda:0"]),
        ("'accelerator'", "", ["accelerator"]),
        ("'accelerator'", "all", ["cuda"]),
        ("'accelerator'", "cpu", ["accelerator SKIPPED runs on accelerator only; chosen: cpu"]),
        ("('cuda', 'accelerator')", "cuda", ["cuda"]),
        (
            "['cpu', 'cuda']",
            "meta",
            [
                "cpu SKIPPED runs on cpu and cuda only; chosen: meta",
                "cuda SKIPPED runs on cpu and cuda only; chosen: meta",
            ],
        ),
        ("torch.device('cuda', 1)", "", ["cuda:1"]),
        ("'cuda:7'", "", ["cuda:7 SKIPPED cuda:7: torch sees 2 cuda devices"]),
    ],
)
def test_devices_of_the_marker(run: Run, supported: str, chosen: str, expected: list[str]) -> None:
    source = f"""
    import pytest, torch
    @pytest.mark.params(devices={supported})
    def test_a(): pass
    """
    result = run(source, "-v", "-rs", *([f"--param-device={chosen}"] if chosen else []))
    assert marked_results(result) == expected


def marked_results(result: pytest.RunResult) -> list[str]:
    """Each id of test_a, with the reason where it was skipped."""
    assert not result.parseoutcomes().get("failed")
    found = []
    for line in result.outlines:
        if line.startswith("test_it.py::test_a["):
            name, _, rest = line.removeprefix("test_it.py::test_a[").partition("] ")
            if rest.startswith("SKIPPED"):
                reason = next(o for o in result.outlines if o.startswith("SKIPPED ["))
                name += f" SKIPPED {reason.split(': ', 1)[1]}"
            found.append(name)
    return found


@pytest.mark.parametrize(
    ("marker", "args", "expected"),
    [
        ("", ["--param-dtype=float64"], ["cpu-float64"]),
        ("", ["--param-dtype=bf16"], None),
        ("", ["--param-dtype=double,half"], ["cpu-float64", "cpu-float16"]),
        ("", ["-o", "param_dtypes=bfloat16"], ["cpu-bfloat16"]),
        ("dtypes=torch.float64", [], ["cpu-float64"]),
        (
            "dtypes=[torch.float64, 'bfloat16']",
            ["--param-dtype=bfloat16,float32"],
            ["cpu-bfloat16"],
        ),
        (
            "dtypes='float64'",
            ["--param-dtype=float16"],
            ["cpu-float64 SKIPPED runs in float64 only; chosen: float16"],
        ),
        (
            "",
            ["--param-device=cpu,meta", "--param-dtype=float32,float64"],
            ["cpu-float32", "cpu-float64", "meta-float32", "meta-float64"],
        ),
    ],
)
def test_dtypes(run: Run, marker: str, args: list[str], expected: list[str] | None) -> None:
    source = f"""
    import pytest, torch
    @pytest.mark.params({marker})
    def test_a(param_dtype, request):
        assert torch.ones(1).dtype is param_dtype is torch.get_default_dtype()
        assert str(param_dtype).removeprefix("torch.") in request.node.name
    def test_after():
        assert torch.get_default_dtype() is torch.float32
    """
    result = run(source, "-v", "-rs", *args)
    if expected is None:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
    else:
        assert marked_results(result) == expected


# -- where the marker stands -----------------------------------------------------------------


def test_marked_classes_modules_and_files(ids) -> None:
    source = """
    import pytest
    pytestmark = pytest.mark.params
    def test_module(): pass
    class TestClass:
        def test_in_class(self): pass
    @pytest.mark.params(devices="cpu")
    class TestNarrow:
        def test_class_narrows(self): pass
        @pytest.mark.params(devices="meta")
        def test_function_narrows(self): pass
    """
    assert ids(source, "--param-device=cpu,meta") == [
        *("test_module[cpu]", "test_module[meta]"),
        *("TestClass::test_in_class[cpu]", "TestClass::test_in_class[meta]"),
        "TestNarrow::test_class_narrows[cpu]",
        "TestNarrow::test_function_narrows[meta]",
    ]


def test_markers_are_merged_keyword_by_keyword_and_the_closest_wins(ids) -> None:
    source = """
    import pytest
    params = pytest.mark.params
    pytestmark = params(devices=["cpu", "meta"])
    @params(dtypes="bfloat16")
    def test_adds(): pass
    @params
    def test_bare(): pass
    @params(devices="meta")
    @params(dtypes="float16")
    def test_two(): pass
    @params(devices="meta")
    @params(devices="cpu")
    def test_the_inner_of_two(): pass
    @params(devices=None)
    def test_none_is_a_word(): pass
    @params(devices="meta", dtypes="float64")
    class TestBase:
        def test_m(self): pass
        @params(dtypes="float16")
        def test_narrower(self): pass
    @params(devices="cpu")
    class TestDerived(TestBase): pass
    class TestPlain(TestDerived): pass
    """
    assert ids(source) == [
        *("test_adds[cpu-bfloat16]", "test_adds[meta-bfloat16]"),
        *("test_bare[cpu]", "test_bare[meta]"),
        "test_two[meta-float16]",
        "test_the_inner_of_two[cpu]",
        "test_none_is_a_word[cpu]",
        *("TestBase::test_m[meta-float64]", "TestBase::test_narrower[meta-float16]"),
        *("TestDerived::test_m[cpu-float64]", "TestDerived::test_narrower[cpu-float16]"),
        *("TestPlain::test_m[cpu-float64]", "TestPlain::test_narrower[cpu-float16]"),
    ]


OF_PARAMETERS = """
    import pytest
    params = pytest.mark.params
    meta, double = params(devices=["meta"]), params(dtypes="float64")
    sets = [0, pytest.param(1, marks=meta), pytest.param(2, marks=[pytest.mark.x, double])]
    {mark}
    @pytest.mark.parametrize("i", sets)
    def test_a(i{asks}): pass
"""


@pytest.mark.parametrize("asks", ["", ", param_device"])
def test_the_mark_of_a_parameter_set_is_the_closest(ids, pytester, asks: str) -> None:
    pytester.makeini("[pytest]\nmarkers = x")
    source = OF_PARAMETERS.format(mark="@params(devices=['cpu', 'meta'])", asks=asks)
    assert sorted(ids(source)) == sorted(
        [
            *("test_a[cpu-0]", "test_a[meta-0]"),
            "test_a[meta-1]",
            *("test_a[cpu-float64-2]", "test_a[meta-float64-2]"),
        ]
    )
    both = """
    import pytest
    params = pytest.mark.params
    @params(devices="cpu")
    @pytest.mark.parametrize("i", [0, pytest.param(1, marks=params(devices=["meta"]))])
    @pytest.mark.parametrize("j", (0, pytest.param(1, marks=params(dtypes=["float64"]))))
    def test_a(i, j): pass
    """
    assert sorted(ids(both)) == [
        *("test_a[cpu-0-0]", "test_a[cpu-float64-1-0]"),
        *("test_a[meta-0-1]", "test_a[meta-float64-1-1]"),
    ]


@pytest.mark.parametrize("asks", ["", ", param_device"])
def test_only_a_parameter_set_is_marked(ids, run: Run, pytester, asks: str) -> None:
    pytester.makeini("[pytest]\nmarkers = x")
    source = OF_PARAMETERS.format(mark="", asks=asks)
    if hasattr(pytest, "HIDDEN_PARAM"):
        assert sorted(ids(source)) == sorted(
            ["test_a[0]", "test_a[meta-1]", "test_a[cpu-float64-2]"]
        )
    else:  # without an id that names the device, but on it
        assert ids(source) == ["test_a[0]", "test_a[1]", "test_a[2]"]
    body = source.replace(
        "): pass", "): assert torch.ones(1).device.type == ('cpu', 'meta', 'cpu')[i]"
    )
    run("    import torch" + body).assert_outcomes(passed=3)


def test_a_mark_that_only_an_iterator_yields_is_refused(run: Run) -> None:
    source = """
    import pytest
    meta = pytest.mark.params(devices=["meta"])
    @pytest.mark.params
    def test_a(i): pass
    def pytest_generate_tests(metafunc):
        metafunc.parametrize("i", [0, pytest.param(1, marks=meta)])
    """
    result = run(source)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (
        "test_it.py::test_a: the params mark of a pytest.param adds meta, which is only seen where "
        "the parameter sets are a list in @pytest.mark.parametrize"
    ) in result.outlines
    run(source.replace('"meta"', '"cpu"')).assert_outcomes(passed=2)


# -- everywhere but ... ----------------------------------------------------------------------


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    ("supported", "chosen", "expected"),
    [
        ("'!meta'", "", ["cpu"]),
        ("['!meta']", "cpu,meta", ["cpu"]),
        ("['!meta']", "meta,cpu,cuda:1", ["cpu", "cuda:1"]),
        ("'!meta,!cuda'", "meta,cpu,cuda:1", ["cpu"]),
        ("'!cuda:1'", "cuda:0,cuda:1", ["cuda:0"]),
        ("'!accelerator'", "cpu,cuda,cuda:1", ["cpu"]),
        ("'!meta'", "meta", ["meta SKIPPED does not run on meta; chosen: meta"]),
        (
            "['!cpu', '!accelerator']",
            "cuda,cpu",
            ["cuda SKIPPED does not run on cpu or accelerator; chosen: cuda, cpu"],
        ),
        ("'!cpu'", "", ["cpu SKIPPED does not run on cpu; chosen: nothing"]),
    ],
)
def test_everywhere_but(run: Run, supported: str, chosen: str, expected: list[str]) -> None:
    source = f"import pytest\n@pytest.mark.params(devices={supported})\ndef test_a(): pass"
    result = run(source, "-v", "-rs", *([f"--param-device={chosen}"] if chosen else []))
    assert marked_results(result) == expected


def test_k_params_selects_the_marked(ids) -> None:
    assert ids(SUITE, "-k", "params") == ["test_a[cpu-1]", "test_a[cpu-2]", "test_c[cpu]"]


@pytest.mark.parametrize("mark", ["", "@pytest.mark.params\n"])
@pytest.mark.parametrize(
    ("name", "keyword"), [("param_device", "devices"), ("param_dtype", "dtypes")]
)
@pytest.mark.parametrize("how", ["mark", "indirect", "fixture", "hook"])
def test_parametrizing_our_fixtures_by_hand_is_an_error(
    run: Run, mark: str, name: str, keyword: str, how: str
) -> None:
    """The id would name what the test does not run on."""
    by = {
        "mark": f"@pytest.mark.parametrize({name!r}, ['meta', 'float64'])\n",
        "indirect": f"@pytest.mark.parametrize(['x', {name!r}], [(1, 2)], indirect=[{name!r}])\n",
        "fixture": f"@pytest.fixture(params=[1, 2])\ndef {name}(request): return request.param\n",
        "hook": f"def pytest_generate_tests(metafunc): metafunc.parametrize({name!r}, [1, 2])\n",
    }[how]
    source = f"def test_a({name}{', x' if how == 'indirect' else ''}): pass\n"
    if how in ("fixture", "hook"):
        source = by + mark + source
    else:
        source = mark + by + source
    result = run(f"import pytest\n{source}", "--param-device=cpu")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (
        f"test_it.py::test_a: {name} is not to be parametrized: the test would run elsewhere "
        f"than its id says; write @pytest.mark.params({keyword}=[...])"
    ) in result.outlines


def test_marked_after_the_collection(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.params)
        """
    )
    source = """
    import pytest, torch
    @pytest.mark.parametrize("x", [1, 2])
    def test_late(x):
        assert torch.ones(1).device.type == "meta"
        assert torch.initial_seed() == 0
    """
    run(source, "--param-device=meta").assert_outcomes(passed=2)
    result = run(
        source,
        "--param-device=meta,cpu",
        "-W",
        "default::pytest_paramcheck.plugin.ParamCheckWarning",
        "-k",
        "1",
    )
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        [
            (
                "*ParamCheckWarning: marked params after it was collected: test_late*1* runs on "
                "meta only, not on each of meta, cpu"
            )
        ]
    )
