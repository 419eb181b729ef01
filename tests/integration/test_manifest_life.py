"""A manifest from its first run to its last: missing, created, different, updated, stale."""

from __future__ import annotations

from textwrap import dedent

import pytest

from .conftest import BARE, Run

UPDATE = "--param-update"
LINEAR = """
    from torch import nn

    def test_lm(assert_manifest):
        assert_manifest(nn.Linear(3, 2))
"""
HEADER = [
    "# pytest-paramcheck manifest, format 1",
    "# Registration order: optimizer checkpoints map by position. Written by --param-update.",
]


def said(result: pytest.RunResult) -> list[str]:
    """The message of the only failure, as it reads."""
    lines = result.outlines
    shown = [line.removeprefix("E") for line in lines if line.startswith("E  ")]
    return dedent("\n".join(shown)).splitlines()


def files(pytester: pytest.Pytester) -> list[str]:
    return sorted(
        path.relative_to(pytester.path).as_posix()
        for path in pytester.path.rglob("__params__/**/*.txt")
    )


def test_missing_created_matching(run: Run, pytester: pytest.Pytester) -> None:
    missing = run(LINEAR)
    missing.assert_outcomes(failed=1)
    assert said(missing) == [
        "ParamCheckError: no manifest: __params__/test_it/test_lm.txt (Linear)",
        "",
        "  __params__/test_it/test_lm.txt  the file does not exist yet",
        "",
        "  hint: create it: pytest --param-update, then review and commit it",
    ]
    assert files(pytester) == []

    created = run("", UPDATE)
    created.assert_outcomes(passed=1)
    assert [
        line for line in created.outlines if line.startswith("paramcheck: ") or "__p" in line
    ] == [
        "paramcheck: wrote 1 manifest:",
        "  __params__/test_it/test_lm.txt",
    ]
    path = pytester.path / "__params__/test_it/test_lm.txt"
    assert path.read_text().splitlines() == [
        *HEADER,
        "weight 2x3 float32 trainable",
        "bias 2 float32 trainable",
    ]

    matching = run("")
    matching.assert_outcomes(passed=1)
    again = run("", UPDATE)  # nothing to write, nothing to say
    for result in (matching, again):
        assert not [line for line in result.outlines if line.startswith("paramcheck: ")]


BEFORE = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5, bias=False)
"""


def test_every_kind_of_difference_and_the_update(run: Run, pytester: pytest.Pytester) -> None:
    source = (
        "import torch\nfrom torch import nn\n{}\n"
        "def test_it(assert_manifest):\n    assert_manifest(Model())\n"
    )
    run(source.format(BEFORE), UPDATE).assert_outcomes(passed=1)
    changes = {
        "self.extra = nn.Linear(2, 2, bias=False)": "not in the manifest: extra.weight",
        "del self.norm": "removed from the model: norm.weight, norm.bias",
        "self.norm.half()": "dtype changed: norm.weight, norm.bias",
        "self.norm.requires_grad_(False)": "role changed: norm.weight, norm.bias",
        "self.emb = nn.Embedding(6, 4)": "reshaped: emb.weight",
        "self.head.weight = self.emb.weight": "tie changed: head.weight",
        "self.tail = self.head; del self.head": "probably renamed: head.weight",
        "self.register_buffer('mask', torch.ones(2))": "not in the manifest: mask",
    }
    found = {}
    for change in changes:
        result = run(source.format(BEFORE + f"        {change}\n"))
        result.assert_outcomes(failed=1)
        lines = said(result)
        found[change] = lines[0].removeprefix("ParamCheckError: ").removesuffix(" (Model)")
        assert any("if intended: pytest --param-update rewrites" in s for s in lines)
    assert found == changes

    run(source.format(BEFORE + "        self.norm.half()\n"), UPDATE).assert_outcomes(passed=1)
    run("").assert_outcomes(passed=1)


MANY = """
    import pytest
    from torch import nn

    @pytest.mark.parametrize("size", [2, 3], ids=["small", "big"])
    def test_sizes(assert_manifest, size):
        assert_manifest(nn.Linear(size, size))

    class TestLM:
        def test_two(self, assert_manifest):
            assert_manifest(nn.Linear(2, 2), "encoder")
            assert_manifest(nn.Linear(3, 3), "decoder")

    @pytest.mark.params
    def test_devices(assert_manifest):
        assert_manifest(nn.Linear(4, 4))

    @pytest.mark.params
    @pytest.mark.parametrize("size", [5])
    def test_both(assert_manifest, size):
        assert_manifest(nn.Linear(size, size))
"""
FOLDER = "__params__/test_it"
ALL = [
    f"{FOLDER}/TestLM.test_two.decoder.txt",
    f"{FOLDER}/TestLM.test_two.encoder.txt",
    f"{FOLDER}/test_both-5.txt",
    f"{FOLDER}/test_devices.txt",
    f"{FOLDER}/test_sizes-big.txt",
    f"{FOLDER}/test_sizes-small.txt",
]


def test_where_the_files_lie(run: Run, pytester: pytest.Pytester) -> None:
    result = run(MANY, UPDATE)

    result.assert_outcomes(passed=5)
    assert files(pytester) == ALL
    assert [line for line in result.outlines if "__params__" in line] == [
        f"  {ALL[n]}"
        for n in (5, 4, 1, 0, 3, 2)  # in the order of the tests
    ]


def test_devices_share_a_file(run: Run) -> None:
    run(MANY, UPDATE)

    run("", "--param-device=cpu,meta").assert_outcomes(passed=7)
    run("", "--param-device=meta", "-k", "devices").assert_outcomes(passed=1, deselected=4)


def stale(result: pytest.RunResult) -> list[str]:
    lines = result.outlines
    start = [n for n, line in enumerate(lines) if " unused manifest" in line]
    return [line for n in start for line in lines[n:] if line.startswith(("paramcheck", "  __"))]


def test_what_is_stale_is_said_at_the_end_of_a_full_run_only(
    run: Run, pytester: pytest.Pytester
) -> None:
    run(MANY, UPDATE)
    full = run(MANY.replace('"big"', '"large"'), UPDATE)

    assert stale(full) == [
        "paramcheck: 1 unused manifest (delete it if no test needs it):",
        f"  {FOLDER}/test_sizes-big.txt",
    ]
    assert full.ret == pytest.ExitCode.OK
    for partial in (("-k", "small"), ("test_it.py::TestLM",), ("--deselect", "test_it.py::TestLM")):
        assert stale(run("", *partial)) == []


LEFT_OUT = {
    # As plugins that split a suite do, some without a word to pytest.
    "told": "config.hook.pytest_deselected(items=items[:1]); del items[:1]",
    "not told": "del items[0]",
}
TWO = """
    import os
    from torch import nn

    def test_a(assert_manifest): assert_manifest(nn.Linear(3, 2))
    def test_b(assert_manifest):
        assert_manifest(nn.Linear(3, 2))
        assert "RED" not in os.environ
    def test_c(assert_manifest): pass
"""


@pytest.mark.parametrize("how", LEFT_OUT)
@pytest.mark.parametrize(
    "args",
    [
        pytest.param((), id="plain"),
        pytest.param(("-n", "0"), id="n0"),
        pytest.param(("-n", "1"), id="n1", marks=pytest.mark.slow),  # a real worker
    ],
)
def test_tests_that_were_left_out_by_others_leave_nothing_unused(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    args: tuple[str, ...],
) -> None:
    pytester.makeconftest(
        "import os\n"
        "def pytest_collection_modifyitems(config, items):\n"
        f"    if 'PART' in os.environ: {LEFT_OUT[how]}\n"
    )
    run(TWO, UPDATE).assert_outcomes(passed=3)
    run(TWO.replace("test_a", "test_d"), UPDATE, name="test_other").assert_outcomes(passed=6)
    unused = pytester.path / "__params__/test_other/test_gone.txt"
    unused.write_bytes((pytester.path / "__params__/test_other/test_b.txt").read_bytes())
    monkeypatch.setenv("PART", "1")

    # The file of which all was collected is still told of.
    assert stale(run("", *args)) == [
        "paramcheck: 1 unused manifest (delete it if no test needs it):",
        "  __params__/test_other/test_gone.txt",
    ]


def test_stepwise_leaves_nothing_unused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_it=dedent(TWO))
    pytester.runpytest_inprocess(UPDATE).assert_outcomes(passed=3)
    monkeypatch.setenv("RED", "1")
    pytester.runpytest_inprocess("--sw").assert_outcomes(passed=1, failed=1)
    monkeypatch.delenv("RED")

    again = pytester.runpytest_inprocess("--sw")

    again.assert_outcomes(passed=2, deselected=1)
    assert stale(again) == []


def test_manifests_of_another_dtype_are_not_unused(run: Run) -> None:
    source = """
    import pytest
    from torch import nn
    @pytest.mark.params
    def test_a(assert_manifest): assert_manifest(nn.Linear(3, 2))
    """
    run(source, UPDATE)
    run("", UPDATE, "--param-dtype=float64,bfloat16").assert_outcomes(passed=2)

    for args in ((), ("--param-dtype=float64",), ("--param-dtype=bfloat16,float64",)):
        assert stale(run("", *args)) == []
    # Of another length: written in the same second, it would be taken for what is compiled.
    renamed = source.replace("test_a", "test_other")
    run(renamed, UPDATE, "--param-dtype=float64")
    assert stale(run("", "--param-dtype=float64"))[1:] == [f"  {FOLDER}/test_a-float64.txt"]


@pytest.mark.slow  # two real workers
def test_a_crashed_worker_takes_along_what_was_asked_for(run: Run) -> None:
    source = LINEAR + "    def test_more(assert_manifest): os._exit(3)\n"
    run(LINEAR, UPDATE)
    run(LINEAR, UPDATE, name="test_other")
    result = run("    import os" + source, "-n", "1", name="test_third")

    assert stale(result) == []


def test_a_test_that_did_not_come_so_far_leaves_nothing_stale(
    run: Run, pytester: pytest.Pytester
) -> None:
    run(MANY, UPDATE)
    skipped = MANY + "\n    @pytest.mark.skip\n    def test_more(): pass\n"

    assert stale(run(skipped)) == []
    failed = MANY.replace("assert_manifest(nn.Linear(4, 4))", "1 / 0; assert_manifest(None)")
    assert stale(run(failed)) == []
    assert stale(run(failed, "-x")) == []


def test_a_run_without_manifests_says_nothing(run: Run) -> None:
    result = run("def test_it(): pass", UPDATE)

    assert not [line for line in result.outlines if line.startswith("paramcheck: ")]


def test_two_calls_of_one_test_need_names(run: Run) -> None:
    source = LINEAR + "        assert_manifest(nn.Linear(3, 2))\n"
    result = run(source, UPDATE)

    result.assert_outcomes(failed=1)
    assert said(result) == [
        "ParamCheckUsageError: a second manifest without name in one test: give each its own, "
        "assert_manifest(model, 'encoder')"
    ]


def test_a_parametrized_model_case_takes_a_path(run: Run, pytester: pytest.Pytester) -> None:
    source = dedent(
        """
        from torch import nn
        from pytest_paramcheck import ModelCase, assert_manifest, parametrize_with_param_checks

        @parametrize_with_param_checks(
            ModelCase(lambda: nn.Linear(3, 2), name="linear", manifest="linear.txt")
        )
        def test_p(check): check()
        """
    )
    missing = run(source, "-k", "manifest")

    missing.assert_outcomes(failed=1, deselected=len(BARE))
    assert said(missing)[0] == "ParamCheckError: no manifest: linear.txt (Linear)"
