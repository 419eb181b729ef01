"""What a marked test runs in: default device, default dtype, seeds, and what leaks out: nothing."""

from __future__ import annotations

import pytest
from torch.utils._device import DeviceContext

from .conftest import Run

FIXTURES = """
    import pytest, torch
    built = []
    def here():
        return torch.ones(1).device.type
    @pytest.fixture
    def in_function():
        yield here()
        assert here() == "meta", "teardown"
    @pytest.fixture(scope="class")
    def in_class(): return here()
    @pytest.fixture(scope="module")
    def in_module(): return here()
    @pytest.fixture(scope="session")
    def in_session(): return here()
    @pytest.fixture(scope="session")
    def bound(param_device): return here()
    @pytest.fixture(scope="module")
    def bound_through_another(bound): return here()
"""


def test_function_fixtures_and_teardown_are_on_the_device_wider_ones_are_not(run: Run) -> None:
    result = run(
        FIXTURES
        + """
    @pytest.mark.params
    def test_narrow(in_function, in_class, in_module, in_session):
        assert in_function == here() == "meta"
        assert in_class == in_module == in_session == "cpu"
    def test_after():
        assert here() == "cpu"
    """,
        "--param-device=meta",
    )
    result.assert_outcomes(passed=2)


def test_wider_fixtures_that_request_param_device_are_on_it(run: Run) -> None:
    result = run(
        FIXTURES
        + """
    @pytest.mark.params
    def test_bound(in_session, bound, bound_through_another, param_device):
        assert in_session == "cpu"
        assert bound == bound_through_another == here() == param_device.type
    """,
        "--param-device=cpu,meta",
    )
    result.assert_outcomes(passed=2)


def test_a_fixture_bound_in_one_file_does_not_bind_its_namesake_in_another(
    run: Run, pytester
) -> None:
    pytester.makeconftest(
        """
        import pytest, torch
        @pytest.fixture(scope="session")
        def far(model): return torch.ones(1).device.type
        @pytest.fixture(scope="session")
        def model(): return torch.ones(1).device.type
        """
    )
    run(
        """
        import pytest, torch
        @pytest.fixture(scope="session")
        def model(param_device, model):
            assert model == "cpu"
            return torch.ones(1).device.type
        @pytest.mark.params
        def test_bound(model):
            assert model == "meta"
        """,
        "--co",
        name="test_1",
    )
    result = run(
        """
        import pytest, torch
        @pytest.fixture(scope="module")
        def model(): return torch.ones(1).device.type
        @pytest.fixture(scope="module")
        def user(model): return torch.ones(1).device.type
        @pytest.mark.params
        def test_not_bound(model, user):
            assert model == user == "cpu"
        """,
        "--param-device=meta",
        name="test_2",
    )
    result.assert_outcomes(passed=2)


def test_a_bound_fixture_stays_bound_where_an_unmarked_test_has_built_it(run: Run) -> None:
    result = run(
        FIXTURES
        + """
    def test_first(bound): assert bound == "cpu"
    @pytest.mark.params
    def test_second(bound, bound_through_another):
        assert bound_through_another == "meta"
    """,
        "--param-device=meta",
    )
    result.assert_outcomes(passed=2)


def test_a_bound_session_fixture_is_built_once_per_device(run: Run, pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        @pytest.fixture(scope="session")
        def model(param_device):
            print("BUILT", param_device)
        """
    )
    source = """
    import pytest
    @pytest.mark.params
    def test_one(model): pass
    @pytest.mark.params
    def test_two(model): pass
    """
    run(source, "--co", name="test_1")
    result = run(source, "--param-device=cpu,meta", "-s", name="test_2")
    result.assert_outcomes(passed=8)
    built = [word for line in result.outlines for word in line.split() if word in ("cpu", "meta")]
    assert built == ["cpu", "meta"]


def test_a_module_fixture_may_change_the_defaults_for_its_module(run: Run, pytester) -> None:
    source = """
    import pytest, torch
    @pytest.fixture(scope="module", autouse=True)
    def double():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        yield
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    @pytest.mark.params
    def test_marked():
        assert torch.ones(1).dtype is torch.float64
        assert torch.ones(1).device.type == "cpu"
    def test_unmarked():
        assert torch.ones(1).dtype is torch.float64
        assert torch.ones(1).device.type == "meta"
    @pytest.mark.params(devices="cpu", dtypes="bfloat16")
    def test_last():
        assert torch.ones(1).dtype is torch.bfloat16
        assert torch.ones(1).device.type == "cpu"
    """
    run(source, "--co")
    result = run(
        """
        import torch
        def test_other_module():
            assert torch.ones(1).dtype is torch.float32
            assert torch.ones(1).device.type == "cpu"
        """,
        name="test_next",
    )
    result.assert_outcomes(passed=4)


def test_a_default_device_left_behind_does_not_bring_ours_back(run: Run) -> None:
    result = run(
        """
        import pytest, torch
        @pytest.mark.params(devices="meta")
        def test_leaves_it():
            torch.set_default_device("cpu")
        def test_next():
            assert torch.ones(1).device.type == "cpu"
            torch.set_default_device(None)
            assert torch.ones(1).device.type == "cpu"
        """
    )
    result.assert_outcomes(passed=2)


def test_a_default_device_put_back_by_hand(run: Run) -> None:
    """In torch 2.8, ``get_default_device()`` raises from here on."""
    result = run(
        """
        import pytest, torch
        def test_puts_it_back():
            torch.set_default_device("meta")
            torch.set_default_device(None)
        @pytest.mark.params(devices=["cpu", "meta"])
        def test_next(param_device):
            assert torch.ones(1).device.type == param_device.type
        """
    )
    result.assert_outcomes(passed=3)


def test_a_default_device_that_is_not_there(run: Run) -> None:
    result = run(
        """
        import pytest, torch
        @pytest.mark.params(devices="meta")
        def test_leaves_it():
            torch.set_default_device("cuda")
        @pytest.fixture(scope="module")
        def absent():
            torch.set_default_device("cuda")
            yield
            torch.set_default_device(None)
        @pytest.mark.params(devices=["cpu", "meta"])
        def test_under_it(absent, param_device):
            assert torch.ones(1).device.type == param_device.type
        @pytest.mark.params
        def test_next():
            assert torch.ones(1).device.type == "cpu"
        """
    )
    result.assert_outcomes(passed=4)


def test_errors_leave_the_defaults_as_they_were(run: Run) -> None:
    result = run(
        """
        import pytest, torch
        @pytest.fixture
        def broken(): raise RuntimeError
        @pytest.fixture
        def broken_later():
            yield
            raise RuntimeError
        @pytest.mark.params
        def test_setup(broken): pass
        @pytest.mark.params
        def test_call(): raise RuntimeError
        @pytest.mark.params
        def test_teardown(broken_later): pass
        def test_after():
            assert torch.ones(1).device.type == "cpu"
            assert torch.ones(1).dtype is torch.float32
        """,
        "--param-device=meta",
        "--param-dtype=float64",
    )
    result.assert_outcomes(passed=2, failed=1, errors=2)


SETS = """
    import pytest, torch
    @pytest.fixture(autouse=True)
    def sets():
        dtype = torch.get_default_dtype()
        {line}
        yield
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)
    @pytest.mark.params(devices="{device}"{dtypes})
    def test_a(): pass
    def test_unmarked(): pass
"""


needs_nested_devices = pytest.mark.skipif(
    not hasattr(DeviceContext("cpu"), "prev_mode"),
    reason="this torch's set_default_device(None) raises inside `with device:` (pytorch#148874)",
)


@pytest.mark.parametrize(
    ("device", "dtypes", "line", "text"),
    [
        ("cpu", "", "torch.set_default_device('meta')", "default device meta"),
        pytest.param(
            *("meta", "", "torch.set_default_device('cpu')", "default device cpu"),
            marks=needs_nested_devices,
        ),
        (
            "cpu",
            ", dtypes='bfloat16'",
            "torch.set_default_dtype(torch.float64)",
            "default dtype float64",
        ),
        (
            "cpu",
            ", dtypes='bfloat16'",
            "torch.set_default_dtype(torch.float64); torch.set_default_device('meta')",
            "default device meta and default dtype float64",
        ),
        (
            "cpu",
            "",
            "torch.set_default_device('cuda')",
            "a default device that is not there",
        ),
        # What the id does not name may be set, and what it does may be said again.
        ("cpu", "", "torch.set_default_dtype(torch.float64)", ""),
        pytest.param(
            *("meta", "", "torch.set_default_device('meta')", ""), marks=needs_nested_devices
        ),
    ],
)
def test_a_fixture_that_sets_the_defaults_against_the_id(
    run: Run, device: str, dtypes: str, line: str, text: str
) -> None:
    source = SETS.format(device=device, dtypes=dtypes, line=line)
    result = run(source, "-W", "default::pytest_paramcheck.ParamCheckWarning")
    result.assert_outcomes(passed=2, warnings=1 if text else 0)
    said = [o.partition("Warning: ")[2] for o in result.outlines if "ParamCheckWarning: " in o]
    name = f"test_a[{device}{'-bfloat16' if dtypes else ''}]"
    whole = (
        f"{name} starts under {text}, which its id does not say: a fixture or hook has set that "
        f"since the marker did"
    )
    assert said == ([whole] if text else [])


# -- seeds -----------------------------------------------------------------------------------

DRAW = """
    import random, numpy, pytest, torch
    def draw():
        return torch.rand(1, device="cpu").item(), random.random(), float(numpy.random.rand())
"""


@pytest.mark.parametrize(
    ("args", "seed"),
    [
        ([], 0),
        (["--param-seed=7"], 7),
        (["-o", "param_seed=8"], 8),
        (["-o", "param_seed=8", "--param-seed=4294967303"], 4294967303),
    ],
)
def test_every_marked_test_starts_from_the_seed(run: Run, args: list[str], seed: int) -> None:
    result = run(
        DRAW
        + f"""
    @pytest.mark.params
    @pytest.mark.parametrize("n", [1, 2])
    def test_a(n):
        drawn = draw()
        torch.manual_seed({seed}), random.seed({seed}), numpy.random.seed({seed} % 2**32)
        assert drawn == draw()
    """,
        "--param-device=cpu,meta",
        *args,
    )
    result.assert_outcomes(passed=4)


def test_the_random_states_go_on_as_if_the_test_had_not_run(run: Run) -> None:
    result = run(
        DRAW
        + """
    expected = []
    def seed():
        torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
    def test_before():
        seed()
        expected.append(draw())
        expected.append(draw())
        seed()
        assert draw() == expected[0]
    @pytest.mark.params
    def test_marked():
        draw()
    def test_after():
        assert draw() == expected[1]
    """
    )
    result.assert_outcomes(passed=3)


def test_wider_fixtures_start_from_the_seed_and_move_no_stream(run: Run) -> None:
    result = run(
        DRAW
        + """
    drawn = []
    @pytest.fixture(scope="session")
    def wide(): return draw()
    @pytest.fixture
    def before(): return draw()
    @pytest.mark.params
    def test_alone(before):
        drawn.append((before, draw()))
    @pytest.mark.params
    def test_with(before, request):
        assert request.getfixturevalue("wide") == drawn[0][0]
        assert (before, draw()) == drawn[0]
    """
    )
    result.assert_outcomes(passed=2)


def test_another_attempt_starts_from_the_same_seed(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            for attempt in range(2):
                item._initrequest()
                for report in runtestprotocol(item, nextitem=nextitem, log=False):
                    item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    result = run(
        DRAW
        + """
    drawn = set()
    @pytest.mark.params
    def test_a():
        drawn.add(draw())
        assert len(drawn) == 1
    """
    )
    result.assert_outcomes(passed=2)


SEEDS = """
    import pytest, torch
    @pytest.mark.params(devices="cpu")
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_a(n):
        assert round(torch.rand(1).item(), 4) == 0.4963
"""


def test_seeds_are_the_same_in_every_process(run: Run, plugin_args: tuple[str, ...]) -> None:
    run(SEEDS, *plugin_args).assert_outcomes(passed=3)


# -- unittest and doctest --------------------------------------------------------------------

CASE = """
    import unittest, pytest, torch
    @pytest.mark.params{args}
    class TestIt(unittest.TestCase):
        @classmethod
        def setUpClass(cls): cls.wide = torch.ones(1).device.type
        def setUp(self): self.made = torch.ones(1)
        def test_a(self):
            self.assertEqual((self.wide, self.made.device.type), ("cpu", "meta"))
            self.assertEqual(torch.initial_seed(), 0)
"""


def test_a_test_case_runs_on_the_one_device(run: Run) -> None:
    run(CASE.format(args=""), "--param-device=meta").assert_outcomes(passed=1)
    run(CASE.format(args="(devices='meta')")).assert_outcomes(passed=1)


def test_a_test_case_runs_on_the_first_of_several_devices_and_warns(run: Run) -> None:
    result = run(
        CASE.format(args=""),
        "-o",
        "param_devices=meta cpu",
        "-W",
        "default::pytest_paramcheck.plugin.ParamCheckWarning",
    )
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        "*ParamCheckWarning: unittest.TestCase cannot be parametrized: test_a runs on meta only, "
        "not on each of meta, cpu"
    )


def test_a_test_case_with_a_wrong_marker_fails(run: Run) -> None:
    result = run(CASE.format(args="(device='meta')"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        "test_it.py::TestIt::test_a: @pytest.mark.params has no argument 'device'; "
        "did you mean 'devices'?"
    )


def test_doctests_are_left_alone(run: Run) -> None:
    source = '''
    import pytest, torch
    pytestmark = pytest.mark.params
    def documented():
        """
        >>> torch.ones(1).device
        device(type='cpu')
        """
    '''
    result = run(source, "--doctest-modules", "--param-device=meta", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("test_it.py::test_it.documented PASSED*")


def test_hypothesis_and_a_marked_test(run: Run) -> None:
    result = run(
        """
        import pytest, torch
        from hypothesis import given, settings, strategies as st
        @pytest.mark.params
        @settings(max_examples=5, database=None)
        @given(n=st.integers(1, 3))
        def test_a(n, assert_finite, param_device):
            assert_finite(torch.nn.Linear(n, n))
        """,
        "-o",
        "param_devices=cpu",
    )
    result.assert_outcomes(passed=1)
