"""Wrong markers, options and ini values: the whole text of each error."""

from __future__ import annotations

import pytest

from .conftest import Run

SUITE = "import pytest\n@pytest.mark.params\ndef test_a(): pass"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            "'a', [1, 2]",
            (
                " takes no positional arguments, got ('a', [1, 2]); did you mean "
                "@pytest.mark.parametrize?"
            ),
        ),
        (
            "device='cpu'",
            " has no argument 'device'; did you mean 'devices'?",
        ),
        (
            "n_coins=4",
            " has no argument 'n_coins'; it takes devices= and dtypes=",
        ),
        ("devices=[]", "(devices=[]): names no device"),
        ("devices=''", "(devices=''): names no device"),
        (
            "devices='CUDA'",
            "(devices='CUDA'): 'CUDA' is no device name; did you mean 'cuda'?",
        ),
        (
            "devices='!'",
            (
                "(devices='!'): '!' is no device name; a device is a torch device "
                "like 'cuda' or 'cuda:1', or accelerator, auto or all"
            ),
        ),
        (
            "devices=['cpu', 'accelerator:1']",
            (
                "(devices=['cpu', 'accelerator:1']): 'accelerator:1' is no device "
                "name: 'accelerator' takes no index"
            ),
        ),
        (
            "devices='auto'",
            (
                "(devices='auto'): 'auto' is a choice for --param-device; devices= "
                "names what the test supports, e.g. 'cpu' or 'accelerator'"
            ),
        ),
        (
            "dtypes='int8'",
            (
                "(dtypes='int8'): 'int8' cannot be a default dtype; choose from "
                "float32, float64, bfloat16 or float16"
            ),
        ),
        ("dtypes=()", "(dtypes=()): names no dtype"),
    ],
)
def test_a_wrong_marker_is_an_error_of_the_collection(run: Run, args: str, text: str) -> None:
    result = run(f"import pytest\n@pytest.mark.params({args})\ndef test_a(): pass", "-q")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if "ERROR collecting" in line)
    assert lines[start + 1] == f"test_it.py::test_a: @pytest.mark.params{text}"
    assert lines[start + 2].startswith("===="), "one line, no traceback"


def test_a_wrong_marker_further_out_is_an_error_as_well(run: Run) -> None:
    result = run(SUITE + "\npytestmark = pytest.mark.params(1)", "-q")
    assert result.ret == pytest.ExitCode.INTERRUPTED


NO_SEED = "is no seed; a seed is an integer from 0 to 2**63 - 1"


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("device", ",", "names no device"),
        ("device", "Cpu", "'Cpu' is no device name; did you mean 'cpu', 'xpu' or 'hpu'?"),
        ("device", "all:0", "'all:0' is no device name: 'all' takes no index"),
        ("device", "accelerator", "'accelerator': torch sees no accelerator on this machine"),
        (
            "dtype",
            "bf16",
            "'bf16' cannot be a default dtype; choose from float32, float64, bfloat16 or float16",
        ),
        ("dtype", ",", "names no dtype"),
        ("seed", "-1", f"'-1' {NO_SEED}"),
        ("seed", "1.5", f"'1.5' {NO_SEED}"),
        ("seed", str(2**63), f"'9223372036854775808' {NO_SEED}"),
    ],
)
@pytest.mark.parametrize("origin", ["command line", "ini"])
def test_a_bad_option_is_one_line_before_collection(
    run: Run, option: str, value: str, text: str, origin: str
) -> None:
    name = f"--param-{option}"
    args = [f"{name}={value}"]
    if origin == "ini":
        name = f"param_{option}{'' if option == 'seed' else 's'}"
        args = ["-o", f"{name}={value}"]
    result = run(SUITE, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.outlines == []
    assert [o for o in result.errlines if o] == [f"ERROR: {name} ({origin}): {text}"]
