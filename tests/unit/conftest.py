"""What unit tests share: unbroken lines in messages, two ranks in one process, a wrapper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed

from pytest_paramcheck import ParamCheckError


@pytest.fixture(autouse=True)
def unbroken_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected messages are written as rows; where they are broken is test_rendering's matter."""
    monkeypatch.setattr(ParamCheckError, "width", None)


@pytest.fixture
def two_ranks() -> Iterator[torch.distributed.device_mesh.DeviceMesh]:
    """A cpu mesh of two ranks on torch's fake backend: structure is real, values are not."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        torch.distributed.destroy_process_group()
