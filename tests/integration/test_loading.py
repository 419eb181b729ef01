"""A run without model tests does not pay for torch: checked in ``sys.modules``, never by timing."""

from __future__ import annotations

import pytest

WITNESS = """
    import sys
    def pytest_unconfigure(config):
        names = sorted(name for name in sys.modules if name.partition(".")[0] in ("torch", "numpy"))
        with open("loaded.txt", "w") as file:
            file.write(" ".join(names))
"""
RUNS = {
    "unmarked tests": (),
    "help": ("--help",),
    "markers": ("--markers",),
    "fixtures": ("--fixtures",),
    "collection": ("--co", "--param-device=cpu,meta"),
    "a failing test": ("-rA", "-vv", "--runxfail"),
}


def loaded(pytester: pytest.Pytester, args: tuple[str, ...], conftest: str = "") -> str:
    """Run pytest on a test without a model and return which torch modules it had loaded."""
    pytester.makeconftest(WITNESS)
    (pytester.path / "conftest.py").write_text(
        conftest + (pytester.path / "conftest.py").read_text(), encoding="utf-8"
    )
    pytester.makepyfile(
        """
        import pytest
        def test_a(): pass
        @pytest.mark.xfail
        def test_b(): assert False
        """
    )
    # Other plugins are not the question: some of them import torch themselves.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        result = pytester.runpytest_subprocess("-p", "pytest_paramcheck.plugin", *args)
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    return (pytester.path / "loaded.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("args", RUNS.values(), ids=RUNS.keys())
def test_torch_is_not_loaded(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    assert loaded(pytester, args) == ""


def test_the_witness_sees_torch_where_it_is_loaded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(torch="")  # it goes by the name: torch itself takes seconds
    assert loaded(pytester, (), conftest="import torch\n") == "torch"


def test_collecting_marked_tests_does_not_load_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_marked="""
        import pytest
        @pytest.mark.params(devices=["cpu", "cuda:1"], dtypes="bfloat16")
        def test_c(assert_shapes, param_device, param_dtype): pass
        """
    )
    assert loaded(pytester, ("--co",)) == ""


def test_a_run_without_manifests_does_not_load_what_reads_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = WITNESS.replace(
        'name.partition(".")[0] in ("torch", "numpy")', '".manifest." in name'
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugin = ("-p", "pytest_paramcheck.plugin")
    pytester.makeconftest(witness)
    pytester.makepyfile("def test_a(): pass")
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=1)
    assert (pytester.path / "loaded.txt").read_text(encoding="utf-8") == ""
    (pytester.path / "__params__").mkdir()
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=1)
    assert "pytest_paramcheck.manifest.paths" in (pytester.path / "loaded.txt").read_text("utf-8")


def test_importing_the_package_loads_neither_torch_nor_pytest(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(
        script="""
        import sys
        import pytest_paramcheck
        dir(pytest_paramcheck), pytest_paramcheck.__version__
        print(sorted({"torch", "pytest", "_pytest", "numpy"} & set(sys.modules)))
        """
    )
    assert pytester.runpython(script).outlines == ["[]"]


@pytest.mark.slow  # loads torch in a process of its own
def test_a_conftest_may_import_the_package_before_it_names_the_plugin(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest would warn that it is too late to rewrite assertions: there are none."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(
        """
        from pytest_paramcheck import parametrize_with_param_checks
        pytest_plugins = ["pytest_paramcheck.plugin"]
        """
    )
    pytester.makepyfile("def test_a(assert_tied): pass")

    result = pytester.runpytest_subprocess("-W", "error")

    result.assert_outcomes(passed=1)


@pytest.mark.slow  # loads torch in a process of its own
def test_pytest_may_be_started_where_the_package_is_loaded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("def test_a(assert_tied): pass")
    script = pytester.makepyfile(
        script="""
        import pytest, pytest_paramcheck.plugin
        names = ("-p", "pytest_paramcheck", "-p", "pytest_paramcheck.plugin")
        raise SystemExit(pytest.main(["-W", "error", *names]))
        """
    )

    assert pytester.runpython(script).ret == pytest.ExitCode.OK
