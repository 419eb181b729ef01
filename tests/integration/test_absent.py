"""Devices that are not there, and runs that tested none: said aloud, never green."""

from __future__ import annotations

from textwrap import dedent

import pytest

from .conftest import Run

ONE = """
    import pytest
    @pytest.mark.params
    def test_a(): pass
    @pytest.mark.params(devices=["cpu", "meta", "cuda"])
    def test_b(): pass
    def test_unmarked(): pass
"""
NO_CUDA = "torch sees no cuda device"


@pytest.mark.parametrize(
    "args",
    [(), ("-n", "0"), pytest.param(("-n", "2"), marks=pytest.mark.slow)],
    ids=["plain", "n0", "n2"],
)
def test_from_the_command_line_it_is_one_line_before_collection(run: Run, args) -> None:
    result = run(ONE, "--param-device=cuda", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.outlines == []
    assert [line for line in result.errlines if line] == [
        f"ERROR: --param-device (command line): cuda is not there: {NO_CUDA}"
    ]


def test_from_the_ini_it_is_a_skip_with_the_reason(run: Run, plugin_args) -> None:
    result = run(ONE, "-o", "param_devices=cuda cpu", "-v", "-rs", *plugin_args)
    result.assert_outcomes(passed=3, skipped=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_a[[]cuda[]]*"])
    assert any(line.endswith(f": {NO_CUDA}") for line in result.outlines)


def test_a_device_only_the_marker_names_is_a_skip(run: Run) -> None:
    result = run(ONE, "-v", "-rs")
    result.assert_outcomes(passed=4, skipped=1)
    result.stdout.fnmatch_lines(["*test_b[[]cuda[]] SKIPPED*", f"SKIPPED*test_it.py:*: {NO_CUDA}"])


UNKNOWN = [
    (
        "cudaa",
        "torch knows no device type 'cudaa'; did you mean 'cuda'? A vendor's device exists once "
        "its package is imported, in a conftest",
    ),
    (
        "fast:1",
        "torch knows no device type 'fast'; a vendor's device exists once its package is "
        "imported, in a conftest",
    ),
]


@pytest.mark.parametrize(("device", "text"), UNKNOWN)
def test_a_device_that_no_machine_can_have_is_an_error_wherever_it_is_written(
    run: Run, pytester: pytest.Pytester, device: str, text: str
) -> None:
    for args, origin in (
        ([f"--param-device=cpu,{device}"], "--param-device (command line)"),
        (["-o", f"param_devices=cpu {device}"], "param_devices (ini)"),
    ):
        result = run(ONE, *args)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert [line for line in result.errlines if line] == [f"ERROR: {origin}: {text}"]
    for word in (device, f"!{device}"):
        marked = run(f"import pytest\n@pytest.mark.params(devices={word!r})\ndef test_a(): pass")
        assert marked.ret == pytest.ExitCode.INTERRUPTED
        assert (
            f"test_it.py::test_a: @pytest.mark.params(devices={word!r}): {text}" in marked.outlines
        )
    pytester.makeconftest(f"def pytest_paramcheck_devices(item): return [{device!r}]")
    hooked = run("import pytest\n@pytest.mark.params\ndef test_a(): pass")
    assert hooked.ret == pytest.ExitCode.INTERRUPTED
    assert (
        f"test_it.py::test_a: hook pytest_paramcheck_devices returned [{device!r}]: {text}"
        in hooked.outlines
    )


def test_a_device_that_a_conftest_brings_is_there_to_be_named(run: Run, pytester) -> None:
    """What a vendor's package does when it is imported: torch learns a name."""
    pytester.makeconftest(
        """
        import torch
        parse = torch.device
        class device:
            def __new__(cls, *args):
                return parse("meta") if args == ("vend",) else parse(*args)
        torch.device = device
        def pytest_unconfigure(): torch.device = parse
        """
    )
    source = """
    import pytest
    @pytest.mark.params(devices=["cpu", "vend"])
    def test_a(): pass
    """
    assert run(source, "--co").ret == pytest.ExitCode.OK
    assert run(source, "--co", "-o", "param_devices=vend").ret == pytest.ExitCode.OK


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("device", "cause"),
    [
        ("cuda:9", "cuda:9 is not there: torch sees no cuda device"),
        ("mps", "mps is not there: torch sees no mps device"),
        ("accelerator", "'accelerator': torch sees no accelerator on this machine"),
        (
            "hpu",
            "hpu is not there: torch cannot allocate on hpu: No module named 'torch.hpu'",
        ),
    ],
)
def test_each_cause(run: Run, device: str, cause: str) -> None:
    result = run(ONE, f"--param-device=cpu,{device}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [o for o in result.errlines if o] == [f"ERROR: --param-device (command line): {cause}"]


# -- a run that cannot lie -------------------------------------------------------------------

ALL_SKIPPED = """
    import pytest
    @pytest.mark.params
    def test_a(param_device):
        if param_device.type == "meta":
            pytest.skip("needs values")
    def test_unmarked(): pass
"""


def error_lines(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("ERROR: ")]


def test_all_skipped_on_an_asked_device_fails_the_run(run: Run, plugin_args) -> None:
    result = run(ALL_SKIPPED, "--param-device=cpu", "--param-device=meta", *plugin_args)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(result) == [
        "ERROR: --param-device=meta: none of the 2 marked tests ran on it (1 skipped: needs values)"
    ]


def test_tests_that_suit_no_asked_device_fail_the_run(run: Run) -> None:
    source = "import pytest\n@pytest.mark.params(devices='cpu')\ndef test_a(): pass"
    for args in ([], ["test_it.py::test_a"]):
        result = run(source, "--param-device=meta", *args)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert error_lines(result) == [
            (
                "ERROR: --param-device=meta: none of the 1 marked test ran on it "
                "(1 skipped: runs on cpu only; chosen: meta)"
            )
        ]


def test_tests_that_all_support_another_asked_device_fail_the_run(run: Run) -> None:
    source = "import pytest\n@pytest.mark.params(devices='cpu')\ndef test_a(): pass"
    result = run(source, "--param-device=cpu,meta")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(result) == [
        "ERROR: --param-device=meta: none of the 1 marked test ran on it"
    ]


@pytest.mark.parametrize("devices", ["['!meta']", "['!meta', '!cuda']"])
def test_nothing_is_due_where_every_test_says_that_it_does_not_run(
    run: Run, devices: str, plugin_args: tuple[str, ...]
) -> None:
    source = f"""
    import pytest
    @pytest.mark.params(devices={devices})
    def test_a(): pass
    @pytest.mark.params(devices={devices})
    def test_b(param_device): pass
    """
    result = run(source, "--param-device=cpu,meta", *plugin_args)
    result.assert_outcomes(passed=2)
    assert (result.ret, error_lines(result)) == (pytest.ExitCode.OK, [])

    one = dedent(source) + "@pytest.mark.params(devices='cpu')\ndef test_c(): pass\n"
    mixed = run(one, "--param-device=cpu,meta", *plugin_args)
    assert mixed.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(mixed) == ["ERROR: --param-device=meta: none of the 1 marked test ran on it"]

    nowhere = run(source, "--param-device=meta", *plugin_args)
    nowhere.assert_outcomes(skipped=2)
    assert nowhere.ret == pytest.ExitCode.TESTS_FAILED
    reason = f"does not run on {'meta or cuda' if 'cuda' in devices else 'meta'}; chosen: meta"
    assert error_lines(nowhere) == [
        f"ERROR: --param-device=meta: none of the 2 marked tests ran on it (2 skipped: {reason})"
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["-o", "param_devices=meta cpu"],  # asked for in the ini only
        ["--param-device=meta,cpu", "test_it.py::test_a[cpu]"],  # the rest left out on purpose
        ["--param-device=meta,cpu", "-k", "cpu"],
        ["--param-device=meta,cpu", "--deselect", "test_it.py::test_a[meta]"],
        ["--param-device=cpu"],
        ["--param-device=meta,cpu", "test_it.py::test_unmarked"],
    ],
)
def test_what_does_not_fail_a_run(run: Run, args: list[str]) -> None:
    result = run(ALL_SKIPPED, *args)
    assert result.ret == pytest.ExitCode.OK
    assert error_lines(result) == []


def test_an_interrupted_run_says_nothing_about_what_it_did_not_reach(run: Run) -> None:
    source = "import pytest\n@pytest.mark.params\ndef test_a(): raise RuntimeError"
    result = run(source, "--param-device=cpu,meta", "-x")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(result) == []


def test_failures_and_xfails_are_tests_that_ran(run: Run) -> None:
    source = """
    import pytest
    @pytest.fixture
    def broken(): raise RuntimeError
    @pytest.mark.params(devices="cpu")
    def test_a(broken): pass
    @pytest.mark.params(devices="meta")
    @pytest.mark.xfail
    def test_b(): raise RuntimeError
    """
    result = run(source, "--param-device=cpu,meta")
    result.assert_outcomes(errors=1, xfailed=1)
    assert error_lines(result) == []
