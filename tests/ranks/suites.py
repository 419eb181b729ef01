"""The sources that several tests run: what must pass on ranks, and every kind of failure."""

from __future__ import annotations

HEAD = """
import os, time, pytest, torch, torch.distributed as dist
pytestmark = pytest.mark.params(ranks=2)
R = int(os.environ.get("RANK", -1))
PROCESSES = []
"""

PASSING = """
import os, pytest, torch, torch.distributed as dist
from torch.utils.data import DataLoader

COUNT = {"session": 0, "module": 0}
two = pytest.mark.params(ranks=2)

@pytest.fixture(scope="session")
def big():
    COUNT["session"] += 1
    return COUNT["session"]

@pytest.fixture(scope="module")
def mod():
    COUNT["module"] += 1
    return COUNT["module"]

@pytest.fixture
def rank():
    return dist.get_rank()  # the group is there before the first fixture

@two
def test_first(big, mod, rank):
    assert (big, mod) == (1, 1) and dist.get_world_size() == 2
    assert os.environ["RANK"] == os.environ["LOCAL_RANK"] == str(rank)
    assert os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"] == "2"
    assert os.environ["MASTER_ADDR"] == "127.0.0.1" and os.environ["MASTER_PORT"].isdigit()
    assert not [name for name in os.environ if name.startswith(("PYTEST_XDIST", "TORCHELASTIC"))]

@two
@pytest.mark.parametrize("x", range(4))
def test_many(x, big, mod, tmp_path):
    assert (big, mod) == (1, 1)
    (tmp_path / "file").write_text(str(dist.get_rank()))
    dist.barrier()
    assert (tmp_path / "file").read_text() == str(dist.get_rank())
    t = torch.ones(3) * (dist.get_rank() + 1)
    dist.all_reduce(t)
    assert t[0] == 3

def test_plain():
    assert not dist.is_initialized() and "RANK" not in os.environ

@two
@pytest.mark.parametrize("f", [lambda: 1, "odd/id [x]"], ids=["lambda", "odd/id [x]"])
def test_local(f):
    pass

@pytest.mark.params(ranks=[3, 1])
def test_three():
    dist.barrier()
    assert dist.get_world_size() == int(os.environ["WORLD_SIZE"])

@two
class TestC:
    @pytest.fixture(autouse=True)
    def auto(self):
        self.v = dist.get_rank()

    def setup_method(self):
        self.w = 1

    def test_m(self):
        assert self.v == dist.get_rank() and self.w == 1

@two
def test_seed_and_device(assert_tied, param_device):
    linear = torch.nn.Linear(2, 2)
    assert_tied(linear.weight, linear.weight)
    drawn = torch.randn(2, device=param_device)
    first = drawn.clone()
    dist.broadcast(first, 0)
    assert torch.equal(drawn, first)

@two
def test_workers_of_a_loader():
    loader = DataLoader(torch.arange(4.0), batch_size=2, num_workers=1)
    assert [batch.tolist() for batch in loader] == [[0.0, 1.0], [2.0, 3.0]]

def test_plain_after():
    assert not dist.is_initialized() and "RANK" not in os.environ

@two
def test_a_left_over_collective():
    if dist.get_rank() == 0:
        dist.all_reduce(torch.ones(1), async_op=True)

@two
def test_meets_none_of_it():
    t = torch.ones(1) * (dist.get_rank() + 1)
    dist.all_reduce(t)
    assert t.item() == 3
"""
PASSING_COUNT = 16

FAILING = (
    HEAD
    + """
def test_before():
    dist.barrier()

def test_one_raises_other_waits():
    print("hello from", R)
    assert R != 1, "only rank 1 is wrong"
    dist.barrier()

def test_after():
    dist.barrier()

def test_every_rank(tmp_path):
    assert dist.get_world_size() == 3

def test_killed():
    if R == 1:
        os.kill(os.getpid(), 9)
    dist.barrier()

def test_exits():
    os.system("echo last words >&2")
    if R == 1:
        os._exit(3)

def test_hangs():
    if R == 1:
        time.sleep(1000)
    dist.barrier()

def test_after_the_hang():
    dist.barrier()

def test_skips():
    pytest.skip("not here")

def test_skips_on_one():
    if R:
        pytest.skip("rank 1 only")

@pytest.mark.skipif(True, reason="decided here")
def test_skipif():
    pass

@pytest.fixture
def broken():
    PROCESSES.append(os.getpid())
    if R == 1:
        raise RuntimeError("setup of rank 1")

def test_setup(broken):
    dist.barrier()

@pytest.fixture
def skipping():
    if R == 1:
        pytest.skip("rank 1 only")

def test_skips_in_setup_on_one(skipping):
    dist.barrier()

def test_ranks_stay_after_that():
    assert PROCESSES == [os.getpid()]

@pytest.fixture
def late():
    yield
    if R == 0:
        raise RuntimeError("teardown of rank 0")

def test_teardown(late):
    pass

@pytest.mark.xfail(reason="known")
def test_xfail():
    assert R == 0

@pytest.mark.xfail(reason="known")
def test_xfail_while_other_waits():
    assert R == 0
    dist.barrier()

@pytest.mark.xfail(reason="known", strict=True)
def test_xpass():
    pass

@pytest.mark.xfail(reason="known")
def test_xfail_killed():
    if R == 1:
        os.kill(os.getpid(), 9)

@pytest.mark.xfail(reason="known", raises=ValueError)
def test_xfail_other_error():
    if R == 1:
        raise ValueError("as known")
    raise KeyError("not this one")

def test_destroys():
    dist.destroy_process_group()

def test_after_that():
    dist.barrier()

def test_breakpoint():
    breakpoint()

def test_leaves_the_session():
    if R == 1:
        pytest.exit("enough")

def test_two_errors():
    if R == 1:
        raise ValueError("of rank 1")
    time.sleep(0.3)
    raise KeyError("of rank 0")

@pytest.mark.parametrize("x", range(R + 2 if R >= 0 else 3))
def test_depends_on_the_rank(x):
    pass

def test_last():
    dist.barrier()
"""
)
FAILING_COUNTS = {"passed": 8, "failed": 15, "error": 3, "skipped": 2, "xfailed": 2}
