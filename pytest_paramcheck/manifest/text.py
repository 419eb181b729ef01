"""The manifest's text: records -> file -> records.

::

    # pytest-paramcheck manifest, format 1
    # Registration order: optimizer checkpoints map by position. Written by --param-update.
    emb.weight 11x6 float32 trainable
    blocks.0.mask 6x6 bool buffer not-persistent
    head.weight 11x6 float32 trainable tied-to emb.weight

One line per name, its fields separated by single spaces: a column that had to stay aligned
would change every line of the file with one long name. A name that holds a space or another
character that would be misread is written as a JSON string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..messages.errors import ParamCheckUsageError
from ..parameters.files.whole import write_whole
from ..parameters.subject.record import ROLES, Record

FORMAT = 1
_TITLE = "# pytest-paramcheck manifest, format "
HEADER = (
    f"{_TITLE}{FORMAT}",
    "# Registration order: optimizer checkpoints map by position. Written by --param-update.",
)
TIED = "tied-to"
_SHAPE = re.compile(r"scalar|uninitialized|\d+(x\d+)*")
_DTYPE = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")
_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")


def quoted(name: str) -> str:
    """Return a name as it stands in the file: as it is, or as a JSON string."""
    plain = name.isprintable() and " " not in name and name[:1] not in ("", "#", '"')
    return name if plain and not name.startswith(_CONFLICT) else json.dumps(name)


def line_text(record: Record) -> str:
    """Return the line of the file that says what is noted of one name."""
    tied = f" {TIED} {quoted(record.tied_to)}" if record.tied_to else ""
    return f"{quoted(record.name)} {record.shape} {record.dtype} {record.role}{tied}"


def manifest_text(records: Iterable[Record]) -> str:
    """Return the whole file."""
    return "\n".join([*HEADER, *map(line_text, records)]) + "\n"


def parse_manifest(data: bytes, shown: str) -> list[Record]:
    """Return the records of a manifest file, in order; ``shown`` names the file in errors.

    Raises :class:`ParamCheckUsageError` with the number and the text of the first line that is
    none. Line ends may be those of any system: git converts them.
    """
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(_rows(data, shown), start=1):
        row = raw.removesuffix("\r")
        if number == 1:
            _validate_title(row, shown)
        elif row and not row.startswith("#"):
            reason = ""
            try:
                record = _parse_line(row)
                if record.name in seen:
                    reason = f"{record.name!r} is already in line {seen[record.name]}"
                elif record.tied_to and record.tied_to not in seen:
                    reason = f"{record.tied_to!r} is in no line above it"
            except ValueError as error:
                reason = str(error)
            if reason:
                raise _damaged(shown, number, row, reason)
            seen[record.name] = number
            records.append(record)
    return records


def is_ours(data: bytes) -> bool:
    """Whether a file begins as a manifest does that this version reads: only such a file is
    rewritten."""
    first = data.split(b"\n", 1)[0].removeprefix(b"\xef\xbb\xbf").rstrip(b"\r")
    version = _format_of(first.decode(errors="replace"))
    return version is not None and version <= FORMAT


def write_manifest(path: Path, records: Iterable[Record]) -> None:
    """Write the file whole or not at all, its folders created; errors are the system's own."""
    write_whole(path, manifest_text(records).encode())


def _rows(data: bytes, shown: str) -> Sequence[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        row = data.split(b"\n")[number - 1].decode(errors="backslashreplace")
        raise _damaged(shown, number, row, "it is not UTF-8") from None
    return text.split("\n")  # not splitlines(): names may hold other line separators


def _format_of(row: str) -> int | None:
    """Return the format that a first line names, None where it is not a manifest's."""
    version = row.removeprefix(_TITLE)
    if version == row or not (version.isascii() and version.isdigit()):
        return None
    return int(version[:9])  # longer than any there will be: int() has a limit


def _validate_title(row: str, shown: str) -> None:
    """Raise for what is not a manifest, or one of a newer format.

    The lines of an older format are read as they are; an update writes the newest.
    """
    version = _format_of(row)
    if version is None:
        raise ParamCheckUsageError(
            f"{shown}, line 1: {_cut(row)}",
            f"this is not a manifest: its first line would be {HEADER[0]!r}. "
            f"Restore the file, or delete it and run with --param-update",
        )
    if version > FORMAT:
        raise ParamCheckUsageError(
            f"{shown}, line 1: {_cut(row)}",
            f"this version of pytest-paramcheck reads format {FORMAT}: upgrade it "
            f"(pip install -U pytest-paramcheck)",
        )


def _parse_line(row: str) -> Record:
    if row.startswith(_CONFLICT):
        raise ValueError("a merge conflict was left in")
    name, rest = _take_name(row)
    words = rest.split(" ") if rest else []
    if len(words) < 3:
        raise ValueError("a line is: name shape dtype role [tied-to name]")
    shape, dtype, *role = words
    if not _SHAPE.fullmatch(shape):
        raise ValueError(f"{shape!r} is not a shape: write 11x6, scalar or uninitialized")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"{dtype!r} is not a dtype: write float32")
    tied = ""
    if TIED in role:
        at = role.index(TIED)
        tied, left = _take_name(" ".join(role[at + 1 :]))
        if left or not tied:
            raise ValueError(f"{TIED} takes one name")
        role = role[:at]
    facts = ROLES.get(tuple(role))
    if facts is None:
        raise ValueError(
            f"{' '.join(role)!r} is not a role: write trainable, frozen, buffer "
            f"or buffer not-persistent"
        )
    return Record(name, shape, dtype, *facts, tied_to=tied)


def _take_name(text: str) -> tuple[str, str]:
    """Return the name a text begins with, and what follows the space behind it."""
    if not text.startswith('"'):
        name, _, rest = text.partition(" ")
        return name, rest
    try:
        name, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        raise ValueError("the quoted name is not a JSON string") from None
    if text[end : end + 1] not in ("", " "):
        raise ValueError("a space must follow the quoted name")
    return name, text[end + 1 :]


def _damaged(shown: str, number: int, row: str, reason: str) -> ParamCheckUsageError:
    return ParamCheckUsageError(
        f"{shown}, line {number}: {_cut(row)}",
        f"{reason}. Restore the line, or write the file anew with --param-update",
    )


def _cut(row: str) -> str:
    text = row if row.isprintable() else repr(row)
    return text if len(text) <= 100 else text[:97] + "..."
