"""Folders of torch.distributed.checkpoint, written by one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed.checkpoint as dcp

#: What torch says of a save without a process group, and torch 2.8 of its own use of storages;
#: ours are silent.
QUIET = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
]


def saved(state: object, folder: Path) -> Path:
    """Save to a folder, and return that."""
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder
