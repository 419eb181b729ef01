"""The command line: what each command prints, writes and returns; ``declare`` has its own file."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from pytest_paramcheck.__main__ import main
from pytest_paramcheck.plugin.command import check
from pytest_paramcheck.showing.progress import doing

from ..models import LM

MODULE = """
    import torch
    from torch import nn

    from pytest_paramcheck import ModelCase


    def mlp(width=4):
        return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))


    def tied():
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        model[1].weight = model[0].weight
        return model


    def untied():
        return nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))


    def broken():
        raise RuntimeError("no weights here\\nsecond line")


    def ends():
        raise SystemExit(3)


    def foreign():
        model = nn.Module()
        model.add_module("l\u1edbp", nn.Linear(1, 1))
        return model


    CASE = ModelCase(mlp, inputs=torch.ones(3, 2), optimizer=torch.optim.SGD)
    """


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with a module of models in it, which is where the commands are given."""
    name = "models_of_" + request.node.name.partition("[")[0]
    (tmp_path / f"{name}.py").write_text(dedent(MODULE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MODELS", name)
    return tmp_path


@pytest.fixture
def models(request: pytest.FixtureRequest) -> str:
    """The name of that module: of its own for each test, because modules stay imported."""
    return "models_of_" + request.node.name.partition("[")[0]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_table_of_a_model(capsys: pytest.CaptureFixture[str], models: str) -> None:
    assert run(capsys, "table", f"{models}:mlp(width=8)", "2") == (
        0,
        dedent("""\
            Sequential: 9 parameters, all trainable; float32 on cpu, 36 bytes

            name      shape  elements  state
            2.weight  1x8           8  trainable
            2.bias    1             1  trainable
            """),
        "",
    )


def test_a_table_of_a_checkpoint_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save({"model": LM().state_dict(), "step": 3}, tmp_path / "last.pt")

    status, out, _ = run(capsys, "table", "last.pt", "--key", "model", "--json")

    read = json.loads(out)
    assert status == 0
    assert [row["name"] for row in read["rows"]] == ["emb.weight", "head.weight"]
    assert read["modules"][0]["bytes"] == 2 * 11 * 6 * 4


def test_a_model_on_meta(capsys: pytest.CaptureFixture[str], models: str) -> None:
    status, out, _ = run(capsys, "table", f"{models}:mlp(1000000000)", "--device=meta")

    assert (status, out.splitlines()[0]) == (
        0,
        "Sequential: 4,000,000,001 parameters, all trainable; float32 on meta, 16.0 GB",
    )
    assert torch.empty(1).device.type == "cpu"


def test_colors_go_to_a_terminal_only(
    capsys: pytest.CaptureFixture[str], models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in run(capsys, "table", f"{models}:mlp")[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[1mname" in run(capsys, "table", f"{models}:mlp")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run(capsys, "table", f"{models}:mlp")[1]


def test_progress_is_for_terminals(
    capsys: pytest.CaptureFixture[str], models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "table", f"{models}:mlp")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(capsys, "table", f"{models}:mlp")[2] == f"building {models}:mlp ...\r\x1b[K"


def test_a_page_of_a_case(capsys: pytest.CaptureFixture[str], models: str, tmp_path: Path) -> None:
    status, out, _ = run(capsys, "page", f"{models}:CASE", "-o", "out/mlp.html")

    assert (status, out) == (0, f"{Path('out', 'mlp.html')}\n")
    html = (tmp_path / "out" / "mlp.html").read_text(encoding="utf-8")
    assert "<h1>mlp</h1>" in html
    assert '"losses":["projection of the output"]' in html
    assert '"groups":["0: SGD lr 0.001, weight_decay 0"]' in html


def test_a_page_of_what_cannot_be_run_says_so(
    capsys: pytest.CaptureFixture[str], models: str
) -> None:
    assert run(capsys, "page", f"{models}:mlp", "--title=Mine", "--json") == (
        0,
        dedent("""\
            {
              "path": "parameters.html",
              "notes": [
                "not run, so without gradients: no inputs to run it on: ModelCase(inputs=...)"
              ]
            }
            """),
        "",
    )
    assert "<h1>Mine</h1>" in Path("parameters.html").read_text(encoding="utf-8")


def test_a_page_of_two(capsys: pytest.CaptureFixture[str], models: str) -> None:
    arguments = ("page", f"{models}:untied", "--before", f"{models}:tied", "-o", "two.html")

    assert run(capsys, *arguments)[0] == 0

    html = Path("two.html").read_text(encoding="utf-8")
    assert f'"before":"{models}:tied"' in html
    assert '"text":"tie lost: 0.weight = 1.weight"' in html


def test_what_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old = {f"h.{n}.w": torch.ones(2) for n in range(3)} | {"gone": torch.ones(1)}
    new = {f"h.{n}.w": torch.ones(2) * (1 + n) for n in range(3)} | {
        f"new.{n}": torch.ones(3) for n in range(2)
    }
    torch.save(old, tmp_path / "old.pt")
    torch.save(new, tmp_path / "new.pt")

    assert run(capsys, "diff", "old.pt", "new.pt") == (
        1,
        dedent("""\
            5 differences: old.pt -> new.pt

            added (2):
              new.{0,1}  Tensor 3 float32 cpu

            removed (1):
              gone  Tensor 1 float32 cpu

            values (2):
              h.2.w  moved by 2 of its norm
              h.1.w  moved by 1 of its norm
            """),
        "",
    )
    assert run(capsys, "diff", "old.pt", "old.pt") == (0, "no differences: old.pt -> old.pt\n", "")
    status, out, _ = run(capsys, "diff", "old.pt", "new.pt", "--json")
    assert status == 1
    assert json.loads(out)["differences"][0] == {
        "name": "h.1.w",
        "kind": "values",
        "text": "moved by 1 of its norm",
        "change": 1.0,
    }


def test_many_differences_are_cut_unless_all_are_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save({"x" * n: torch.ones(1) for n in range(1, 31)}, tmp_path / "old.pt")
    torch.save({"x": torch.ones(1)}, tmp_path / "new.pt")

    short = run(capsys, "diff", "old.pt", "new.pt")[1].splitlines()
    whole = run(capsys, "diff", "old.pt", "new.pt", "--all")[1].splitlines()

    assert short[-1] == "  ... and 9 more (--all shows them)"
    assert (len(short), len(whole)) == (3 + 20 + 1, 3 + 29)


def test_a_checkpoint_is_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "good.pt")
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "bad.pt")

    assert run(capsys, "check", "good.pt") == (0, "good.pt: whole and finite\n", "")
    status, out, _ = run(capsys, "check", "bad.pt")
    assert (status, out.splitlines()[0]) == (1, "not finite: w (bad.pt)")
    status, out, _ = run(capsys, "check", "bad.pt", "--json")
    assert (status, json.loads(out)["findings"][0]["problem"]) == (1, "not finite")


def test_wrong_calls(capsys: pytest.CaptureFixture[str], models: str, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "good.pt")
    for arguments, said in {
        ("table", "none.pt"): (
            "none.pt: there is no such file, and it is not a module:factory either"
        ),
        ("table", f"{models}:mlpp"): (
            f"{models}:mlpp: {models} has no 'mlpp'; did you mean 'mlp'?"
        ),
        ("table", f"{models}:mlp", "--key=model"): (
            f"--key is for checkpoints, and {models}:mlp names a model"
        ),
        ("table", f"{models}:mlp", "nothing"): ("pattern 'nothing' matches nothing in Sequential"),
        ("check", "good.pt", "-x"): "a checkpoint takes no further arguments: -x",
        ("table", ""): "'': there is no such file, and it is not a module:factory either",
        ("table", f"{models}.py:mlp"): (
            f"{models}.py:mlp: no module named '{models}.py' from {tmp_path} or on sys.path; "
            f"did you mean {models}?"
        ),
        ("page", f"{models}:broken", "-o", "."): ". is a folder: name a file in it",
    }.items():
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {said}")
        assert err.endswith("\n")
    assert run(capsys, "table", f"{models}:mlp", "--device=cuda:99")[0] == 2


@pytest.mark.parametrize("command", ["table", "page", "declare"])
def test_what_a_model_raises_is_one_line_and_its_place(
    capsys: pytest.CaptureFixture[str], models: str, command: str
) -> None:
    status, out, err = run(capsys, command, f"{models}:broken")

    assert (status, out) == (2, "")
    assert err == (
        "error: RuntimeError: no weights here\n"
        f"  at {sys.modules[models].__file__}:23, in broken; --traceback shows how it came there\n"
    )


def test_the_whole_traceback(capsys: pytest.CaptureFixture[str], models: str) -> None:
    status, out, err = run(capsys, "table", f"{models}:broken", "--traceback")

    assert (status, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith(
        "RuntimeError: no weights here\nsecond line\n"
        "error: RuntimeError: no weights here\n"
        f"  at {sys.modules[models].__file__}:23, in broken\n"
    )


def test_a_model_that_ends_the_process(capsys: pytest.CaptureFixture[str], models: str) -> None:
    status, out, err = run(capsys, "table", f"{models}:ends")

    assert (status, out) == (2, "")
    assert err.startswith("error: SystemExit: 3\n")


def test_names_that_the_output_cannot_show(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)

    assert main(["table", f"{models}:foreign"]) == 0

    assert rb"l\u1edbp.weight" in written.getvalue()
    assert out.errors == "strict"  # as it was


def test_without_any_output(models: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    assert main(["page", f"{models}:mlp"]) == 0
    assert main(["table", f"{models}:broken"]) == 2

    assert (folder / "parameters.html").exists()
    assert sys.stdout is sys.stderr is None


def test_an_output_without_room(
    capsys: pytest.CaptureFixture[str], models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["table", f"{models}:mlp"]) == 2
    monkeypatch.undo()

    assert capsys.readouterr().err.startswith("error: OSError: [Errno 28]")


def test_an_unknown_option_ends_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["table", "x.pt", "--what"])

    assert ended.value.code == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith("error: unrecognized arguments: --what")
    )


def test_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["table"], ["page"], ["diff"], ["check"], ["declare"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        assert "exit status: 0: done, and nothing is wrong" in capsys.readouterr().out


def test_ctrl_c(
    capsys: pytest.CaptureFixture[str], models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_paramcheck.showing.commands.read", interrupted)

    assert run(capsys, "table", f"{models}:mlp") == (130, "", "")


@pytest.mark.slow
def test_no_command_but_check_loads_pytest(folder: Path, models: str) -> None:
    torch.save({"w": torch.ones(2)}, folder / "good.pt")
    script = dedent(f"""
        import sys
        from pytest_paramcheck.__main__ import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        print("torch" in sys.modules)
        main(["table", "{models}:mlp"])
        main(["page", "{models}:mlp"])
        main(["diff", "{models}:tied", "{models}:untied"])
        main(["check", "good.pt"])
        print("pytest" in sys.modules, "torch" in sys.modules)
        """)

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )

    loaded = [line for line in done.stdout.splitlines() if re.fullmatch("(True|False| )+", line)]
    assert loaded == ["False", "False True"]


@pytest.mark.slow
def test_a_model_is_checked_by_pytest(folder: Path, models: str) -> None:
    def check(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest_paramcheck", "check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    passed = check(f"{models}:CASE", "-q", "-k", "finite or frozen")
    as_json = check(f"{models}:tied", "--json", "-k", "check_distinct or check_ties or reach")

    assert (passed.returncode, passed.stderr) == (0, "")
    assert "2 passed" in passed.stdout
    assert as_json.returncode == 0
    outcomes = {one["check"]: one["outcome"] for one in json.loads(as_json.stdout)["checks"]}
    assert outcomes["check_ties"] == "passed"


def test_a_reader_that_has_seen_enough(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return kept.fileno()

    with Path("kept").open("w", encoding="utf-8") as kept:
        monkeypatch.setattr(sys, "stdout", Closed())
        assert main(["table", f"{models}:mlp"]) == 0


@pytest.mark.parametrize("stderr", [None, io.StringIO()], ids=["none", "closed"])
def test_progress_needs_no_standard_error(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under pythonw there is none."""
    if stderr is not None:
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    with doing("reading"):
        pass


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (pytest.ExitCode.OK, 0),
        (pytest.ExitCode.TESTS_FAILED, 1),
        (pytest.ExitCode.INTERRUPTED, 2),
        (pytest.ExitCode.USAGE_ERROR, 2),
        (pytest.ExitCode.NO_TESTS_COLLECTED, 2),
    ],
    ids=str,
)
def test_what_check_returns_for_what_pytest_does(
    code: pytest.ExitCode, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest, "main", lambda arguments: code)
    assert check("models:mlp", [], as_json=False) == status
