"""The assertion about a model's committed manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..checks.manifest import record_differences
from ..manifest.paths import named_path
from ..manifest.text import is_ours, manifest_text, parse_manifest, write_manifest
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..parameters.files.paths import is_there, reason_of
from ..parameters.subject.inventory import Subject
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.record import Record
from ..parameters.subject.records import records
from ..parameters.tensors.call import writes_here
from .verdict import one_verdict


def assert_manifest(
    model: Subject,
    name: str | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    update: bool = False,
) -> None:
    """Assert that a model's parameters are those of the committed manifest.

    The manifest is a text file with one line per parameter and buffer in registration order: name,
    shape, dtype, trainable, persistent, tied to. Not device, not values: it needs no memory for a
    model on meta. The fixture finds the file beside the test, below ``__params__/``, and writes it
    under ``--param-update``.

    Passes where the model has exactly the lines of the file, and with ``update=True``.

    * ``name=``: tells several manifests of one test apart and becomes part of the file's name.
    * ``path=``: the file (of the function alone: the fixture finds it).
    * ``update=True``: writes the file where it is missing or differs (of the function alone).

    Fails where the file is missing, saying how to create it, and for every difference: what
    was added, removed, probably renamed, reshaped, retied, moved, or has another dtype or role.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a file that cannot be
    read (a damaged line is shown) or written, that is not a regular one, or that a newer version
    wrote, for a name that cannot be part of a file's, and without ``path``.

    >>> import tempfile
    >>> from torch import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     assert_manifest(nn.Linear(3, 2), path=folder + "/linear.txt", update=True)
    ...     assert_manifest(nn.Linear(3, 2), path=folder + "/linear.txt")

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     assert_manifest(nn.Linear(3, 2), path=folder + "/linear.txt", update=True)
    ...     assert_manifest(nn.Linear(3, 4), path=folder + "/linear.txt")
    Traceback (most recent call last):
        ...
    ParamCheckError: reshaped: weight, bias (Linear)
    <BLANKLINE>
      weight  expected 2x3, found 4x3: checkpoints saved before this change will not load
      bias    expected 2, found 4: checkpoints saved before this change will not load
    <BLANKLINE>
      hint: if intended: assert_manifest(..., update=True) rewrites ...linear.txt; commit it
    """
    __tracebackhide__ = True
    if path is None:
        raise ParamCheckUsageError(
            "assert_manifest needs path= here; in a test, request the fixture assert_manifest: "
            "it finds the file beside the test"
        )
    target = named_path(path, name)
    manifest_at(target, model, update=update, remedy="assert_manifest(..., update=True)")


@one_verdict(called="assert_manifest", values=False)
def manifest_at(target: Path, model: Subject, *, update: bool, remedy: str) -> bool:
    """Compare a model with a manifest file, or with ``update`` write it; whether it was written.

    Of a model that is spread over ranks the first one writes.
    ``remedy`` is what the reader of a failure has to run in order to write it. A file that is
    no manifest of this format is never written over; one that matches is not touched.
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, values=False)
    current = records(inventory)
    shown = as_typed(target)
    data = _read(target, shown)
    # One text for one list of records: where the file is that text there is nothing to parse.
    same = data is not None and data.replace(b"\r\n", b"\n") == manifest_text(current).encode()
    if update:
        if data is not None and not is_ours(data):
            parse_manifest(data, shown)  # raises: a newer format, or no manifest at all
        if same:
            return False
        if not writes_here():
            return False
        _write(target, current, shown)
        return True
    if data is None:
        raise_if(
            [
                Finding(
                    (shown,),
                    "no manifest",
                    found="the file does not exist yet",
                    hint=f"create it: {remedy}, then review and commit it",
                )
            ],
            inventory.title,
        )
        return False
    if same:
        return False
    committed = parse_manifest(data, shown)
    findings = record_differences(committed, current)
    if findings:
        meant = f"if intended: {remedy} rewrites {shown}; commit it"
        findings[0] = replace(findings[0], hint=meant)
    raise_if(findings, inventory)
    return False


def _read(target: Path, shown: str) -> bytes | None:
    __tracebackhide__ = True
    if not is_there(target, shown):
        return None
    try:
        return target.read_bytes()
    except OSError as error:
        raise ParamCheckUsageError(f"{shown} cannot be read: {reason_of(error)}") from None


def _write(target: Path, records: list[Record], shown: str) -> None:
    __tracebackhide__ = True
    try:
        write_manifest(target, records)
    except OSError as error:
        raise ParamCheckUsageError(f"{shown} cannot be written: {reason_of(error)}") from None


def as_typed(path: Path) -> str:
    """Return a path as a reader would type it: below the working directory, or absolute."""
    absolute = path.absolute()
    try:
        return absolute.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return absolute.as_posix()
