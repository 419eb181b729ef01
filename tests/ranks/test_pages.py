"""Pages of models on ranks: one file, of the whole tensors, whatever each rank holds of them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SUITE = """
    import json
    import re
    from pathlib import Path

    import pytest
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )
    from torch.nn.parallel import DistributedDataParallel

    from pytest_paramcheck import ParamCheckUsageError, param_page

    HERE = Path(__file__).parent

    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        with torch.no_grad():
            model[3].bias[2] = float("nan")
        return model

    def wrapped(kind):
        model = build()
        if kind == "fsdp":
            return fully_shard(model)
        if kind == "tp":
            mesh = init_device_mesh("cpu", (2,))
            plan = {"1": ColwiseParallel(), "3": RowwiseParallel()}
            return parallelize_module(model, mesh, plan)
        return DistributedDataParallel(model) if kind == "ddp" else model

    def data(html):
        return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])

    def shown(page):
        data_ = data(page.html)
        # Names, elements, bytes, the state of the gradient, statistics of both; updates.
        return [[r[0], *r[7:12]] for r in data_["parameters"]], data_["differences"], data_["notes"]

    #: Only rows 0 and 1 of the embedding get a gradient: nothing of the second rank's shard does.
    RUN = {"inputs": torch.tensor([0, 1]), "loss": lambda out: out[:, :2].square().mean()}

    @pytest.mark.params(ranks=2)
    @pytest.mark.parametrize("kind", ["fsdp", "tp", "ddp"])
    def test_a_page_is_of_the_whole(kind):
        path = HERE / "pages" / f"{kind}.html"
        model = wrapped(kind)
        page = param_page(model, path, **RUN)

        assert shown(page) == shown(param_page(build(), **RUN))
        assert data(path.read_text(encoding="utf-8")) == data(page.html)
        assert sorted(HERE.glob(f"pages/*{kind}*")) == [path]  # nothing is left beside it

    @pytest.mark.params(ranks=2)
    def test_a_step(tmp_path):
        sgd = {"optimizer": torch.optim.SGD, **RUN}
        rows, _, notes = shown(param_page(wrapped("fsdp"), **sgd))
        assert rows == shown(param_page(build(), **sgd))[0]
        assert notes == [
            "no step was taken: AssertionError: FSDP does not support deepcopy. Please use state "
            "dict for serialization."
        ]
        updates = [r[12] for r in data(param_page(wrapped("ddp"), **sgd).html)["parameters"][:4]]
        assert updates == [
            r[12] for r in data(param_page(build(), **sgd).html)["parameters"][:4]
        ]

    @pytest.mark.params(ranks=2)
    @pytest.mark.parametrize("kind", ["fsdp", "tp", "ddp"])
    def test_the_same_values_are_no_difference(kind):
        page = data(param_page(wrapped(kind), before=build().state_dict()).html)
        assert page["differences"] == []
        assert [row[3] & 4 for row in page["parameters"]] == [0] * 5

        other = build()
        with torch.no_grad():
            other[1].weight[-1, -1] += 1  # in the second rank's shard
        page = data(param_page(wrapped(kind), before=other.state_dict()).html)
        assert [row[3] & 4 for row in page["parameters"]] == [0, 4, 0, 0, 0]
        want = data(param_page(build(), before=other.state_dict()).html)
        assert page["parameters"][1][13] == want["parameters"][1][13] > 0

    @pytest.mark.params(ranks=2)
    def test_nothing_can_be_written():
        (HERE / "file").write_text("")
        with pytest.raises(ParamCheckUsageError, match="cannot be written"):
            param_page(wrapped("fsdp"), HERE / "file" / "page.html")

    @pytest.mark.params(ranks=2)
    def test_plain_models_need_no_other_rank():
        if dist.get_rank() == 1:
            param_page(build(), HERE / "alone.html", **RUN)
            param_page(wrapped("plain"), before=build())

    @pytest.mark.params(ranks=2)
    def test_on_meta():
        with torch.device("meta"):
            model = nn.Linear(4, 4)
        page = data(param_page(fully_shard(model)).html)
        assert page["notes"] == ["on meta, where tensors have no values: structure only"]
        assert [row[7] for row in page["parameters"]] == [16, 4]

    @pytest.mark.params(ranks=2)
    def test_on_one_rank_only():
        model = wrapped("fsdp")
        if dist.get_rank() == 0:
            param_page(model)
"""


def test_pages_of_two_ranks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--param-rank-timeout=15")

    result.stdout.fnmatch_lines(
        [
            "rank 0 did not finish in 15 s, at test_it.py:* in test_on_one_rank_only, in "
            "param_page, which talks to the other ranks: call it on every rank",
            "rank 1 passed",
        ]
    )
    result.assert_outcomes(passed=10, failed=1)
