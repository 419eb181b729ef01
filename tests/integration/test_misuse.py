"""Wrong markers, options and ini values: the whole text of each error."""

from __future__ import annotations

import pytest

from .conftest import Run

SUITE = "import pytest\n@pytest.mark.params\ndef test_a(): pass"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            "'cpu', devices='cpu'",
            " takes no positional arguments, got ('cpu'); it takes devices=, dtypes= and ranks=",
        ),
        (
            "device='cpu'",
            " has no argument 'device'; did you mean 'devices'?",
        ),
        (
            "n_coins=4, devices='cpu'",
            " has no argument 'n_coins'; it takes devices=, dtypes= and ranks=",
        ),
        ("dtype='float64'", " has no argument 'dtype'; did you mean 'dtypes'?"),
        ("Devices='cpu'", " has no argument 'Devices'; did you mean 'devices'?"),
        (
            "on_device='cpu'",
            " has no argument 'on_device'; did you mean 'devices'?",
        ),
        (
            "devices=['cpu', '!meta']",
            "(devices=['cpu', '!meta']): '!meta' beside 'cpu': name what is supported, or with "
            "'!' what is not",
        ),
        (
            "devices='!auto'",
            "(devices='!auto'): 'auto' is a choice for --param-device; devices= names what the "
            "test supports, e.g. 'cpu' or 'accelerator'",
        ),
        (
            "devices='cuda:256'",
            "(devices='cuda:256'): 'cuda:256' is not a device name: an index is at most 127",
        ),
        ("devices=[]", "(devices=[]): no device given"),
        ("devices=''", "(devices=''): no device given"),
        (
            "devices='CUDA'",
            "(devices='CUDA'): 'CUDA' is not a device name; did you mean 'cuda'?",
        ),
        (
            "devices='!'",
            (
                "(devices='!'): '!' is not a device name; a device is a torch device "
                "like 'cuda' or 'cuda:1', or accelerator, auto or all"
            ),
        ),
        (
            "devices=['cpu', 'accelerator:1']",
            (
                "(devices=['cpu', 'accelerator:1']): 'accelerator:1' is not a device "
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
    result = run(SUITE + "\npytestmark = pytest.mark.params(device='cpu')", "-q")
    assert result.ret == pytest.ExitCode.INTERRUPTED


# -- a marker of our name that means something else ---------------------------------------------

LEFT_ALONE = (
    "ParamCheckWarning: test_a: @pytest.mark.params({args}) is left alone: the marker of "
    "pytest-paramcheck takes devices=, dtypes= and ranks= only{hint} (ini param_marker gives it "
    "another name)"
)
FOREIGN = [
    ("[0, 1.5]", ""),
    ("n_coins=4", ""),
    ("services=['db'], types=3", ""),
    ("'a', [1, 2]", "; did you mean @pytest.mark.parametrize?"),
    ("('a', 'b'), [(1, 2)]", "; did you mean @pytest.mark.parametrize?"),
    ("'cpu'", "; did you mean devices='cpu'?"),
    ("['cpu', 'meta']", "; did you mean devices=['cpu', 'meta']?"),
    ("2", "; did you mean ranks=2?"),
    ("[2, 4]", "; did you mean ranks=[2, 4]?"),
]


@pytest.mark.parametrize(("args", "hint"), FOREIGN)
def test_a_foreign_marker_is_left_alone_with_one_warning(run: Run, args: str, hint: str) -> None:
    source = f"""
    import pytest, torch
    @pytest.mark.params({args})
    def test_a():
        assert torch.ones(1).device.type == "cpu"
    @pytest.mark.params(n_coins=5)
    def test_b(): pass
    @pytest.mark.params
    def test_ours(): pass
    """
    as_warning = ("-W", "default::pytest_paramcheck.ParamCheckWarning")
    result = run(source, "--param-device=meta", "-v", *as_warning)
    result.assert_outcomes(passed=3, warnings=1)
    said = [line for line in result.outlines if "ParamCheckWarning" in line]
    assert [line.partition(": ")[2] for line in said] == [LEFT_ALONE.format(args=args, hint=hint)]
    result.stdout.fnmatch_lines(["*::test_a PASSED*", "*::test_b PASSED*", "*test_ours[[]meta[]]*"])


def test_a_foreign_marker_of_a_test_case(run: Run) -> None:
    source = """
    import pytest, unittest
    @pytest.mark.params(n_coins=4)
    class TestIt(unittest.TestCase):
        def test_a(self): pass
        def test_b(self): pass
    """
    result = run(source, "-W", "default::pytest_paramcheck.ParamCheckWarning")
    result.assert_outcomes(passed=2, warnings=1)


@pytest.mark.parametrize("args", [(), ("-n", "0")], ids=["plain", "n0"])
def test_the_marker_can_have_another_name(run: Run, pytester, args: tuple[str, ...]) -> None:
    pytester.makeini("[pytest]\nparam_marker = on_devices\nmarkers = params(n_coins): theirs")
    source = """
    import pytest, torch
    @pytest.mark.params(n_coins=4)
    def test_theirs(): pass
    @pytest.mark.on_devices(devices=["cpu", "meta"])
    def test_ours(request):
        assert torch.ones(1).device.type == request.node.name[10:-1]
    """
    run(source, *args).assert_outcomes(passed=3)
    listed = run("", "--markers").outlines
    assert any(o.startswith("@pytest.mark.on_devices(*, devices=None") for o in listed)
    wrong = run(source.replace("devices=[", "device=["))
    assert (
        "test_it.py::test_ours: @pytest.mark.on_devices has no argument 'device'; did you mean "
        "'devices'?"
    ) in wrong.outlines


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b", "'a b' is not the name of a marker"),
        ("class", "'class' is not the name of a marker"),
        ("skipif", "'skipif' is another marker's name"),
    ],
)
def test_no_name_of_a_marker(run: Run, name: str, text: str) -> None:
    result = run(SUITE, "-o", f"param_marker={name}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [o for o in result.errlines if o] == [f"ERROR: param_marker (ini): {text}"]


NO_SEED = "is not a seed; a seed is an integer from 0 to 2**63 - 1"


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("device", ",", "no device given"),
        ("device", "Cpu", "'Cpu' is not a device name; did you mean 'cpu', 'xpu' or 'hpu'?"),
        ("device", "all:0", "'all:0' is not a device name: 'all' takes no index"),
        ("device", "accelerator", "'accelerator': torch sees no accelerator on this machine"),
        (
            "dtype",
            "bf16",
            "'bf16' cannot be a default dtype; did you mean 'bfloat16'?",
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
