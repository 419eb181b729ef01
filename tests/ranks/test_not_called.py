"""An assertion that talks to other ranks and is called on one of them: it ends, and says so."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SUITE = """
    import pytest
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    @pytest.fixture
    def weights():
        return {"w": distribute_tensor(torch.ones(4), init_device_mesh("cpu", (2,)), [Shard(0)])}

    @pytest.mark.params(ranks=2)
    def test_an_assertion(assert_finite, weights):
        if dist.get_rank() == 0:
            assert_finite(weights)

    @pytest.mark.params(ranks=2)
    def test_a_block(assert_unchanged, weights):
        if dist.get_rank() == 0:
            with assert_unchanged(weights):
                pass

    @pytest.mark.params(ranks=2)
    def test_raises_before(assert_finite, weights):
        if dist.get_rank() == 1:
            raise KeyError("of rank 1")
        assert_finite(weights)
"""


def test_it_is_named_with_what_it_waits_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--param-rank-timeout=25")

    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "rank 0 did not finish in 25 s, at test_it.py:14 in test_an_assertion, in "
            "assert_finite, which talks to the other ranks: call it on every rank",
            "rank 1 passed",
            "rank 0 did not finish in 25 s, at test_it.py:19 in test_a_block, in "
            "assert_unchanged, which talks to the other ranks: call it on every rank",
            "rank 1 passed",
            # Nothing is wrong with that call.
            "was stopped 2 s after another rank failed, at test_it.py:26 in test_raises_before, in "
            "assert_finite, which talks to the other ranks",
        ]
    )
