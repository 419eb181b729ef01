"""One rank: runs functions that it is told by name, each in a process group of its own.

``python -m tests.ranks.rank RANK WORLD`` reads a line of JSON per function and answers with one:
``{"what": "tests.ranks.cells:NAME", "store": path}`` -> ``{"outcome": ..., "text": ...}``.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import sys
import tempfile
import traceback
import warnings
from typing import Any

import torch
import torch.distributed as dist

import pytest_paramcheck
from pytest_paramcheck import ParamCheckError, ParamCheckUsageError


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    for line in sys.stdin:
        told = json.loads(line)
        answers.write(json.dumps(run(told["what"], told["store"], rank, world)) + "\n")
        answers.flush()


def run(what: str, store: str, rank: int, world: int) -> dict[str, Any]:
    module, _, name = what.partition(":")
    timeout = datetime.timedelta(seconds=20)
    if name.startswith("fake."):
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    else:
        dist.init_process_group(
            "gloo",
            rank=rank,
            world_size=world,
            store=dist.FileStore(store, world),
            timeout=timeout,
        )
    dist.barrier()  # one that is through at once would close what the other still connects
    torch.manual_seed(0)
    try:
        function = importlib.import_module(module).RUN[name]
        with tempfile.TemporaryDirectory() as own, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.chdir(own)
            function()
    except ParamCheckError as error:
        return {"outcome": "finding", "text": str(error)}
    except ParamCheckUsageError as error:
        return {"outcome": "usage", "text": str(error)}
    except BaseException as error:
        return {"outcome": type(error).__name__, "text": "".join(traceback.format_exception(error))}
    else:
        return {"outcome": "pass", "text": ""}
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    assert pytest_paramcheck.__version__
    main()
