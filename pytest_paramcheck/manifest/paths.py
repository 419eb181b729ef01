"""Where manifests lie, and which of them are stale.

The callspec id in a path is the item's **without the device**: a manifest holds no device, and
the same file serves ``--param-device=cuda``. A dtype stays in it: under another default dtype
the model is another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..messages.errors import ParamCheckUsageError
from . import FOLDER

SUFFIX = ".txt"
_SAFE = re.compile(r"[A-Za-z0-9_.\-]+")
_NAME = re.compile(r"[A-Za-z0-9_\-]+")
#: Names that Windows keeps for devices, whatever follows their first dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|-|$)", re.IGNORECASE)
#: Four parts of this length, their separators and the suffix stay below 255 bytes.
_LONGEST = 56


@dataclass(frozen=True, slots=True)
class ManifestRequest:
    """Where the manifests of one test lie: ``directory/stem[.name].txt``; whether to write them.

    ``remedy`` is what a reader of a failure has to run in order to write them.
    """

    directory: Path
    stem: str
    update: bool = False
    remedy: str = "pytest --param-update"

    def path(self, name: str | None = None) -> Path:
        """Return the file of one call; ``name`` tells the calls of one test apart.

        >>> ManifestRequest(Path("__params__", "test_lm"), "test_tied").path("small").as_posix()
        '__params__/test_lm/test_tied.small.txt'
        """
        return self.directory / (self.stem + name_suffix(name) + SUFFIX)


def manifest_request(
    test_file: Path,
    class_name: str | None,
    function: str,
    callspec_id: str | None = None,
    *,
    update: bool = False,
) -> ManifestRequest:
    """Return where the manifests of one test lie: beside its file, below ``__params__``.

    Parts that some file system cannot hold, or that are too long, are replaced and told apart
    by eight characters of their digest.

    >>> manifest_request(Path("tests/test_lm.py"), "TestLM", "test_tied", "big").stem
    'TestLM.test_tied-big'
    """
    stem = ".".join(_safe(part) for part in (class_name, function) if part)
    if callspec_id:
        stem += "-" + _safe(callspec_id)
    if _RESERVED.match(stem):
        stem = f"{_digest(stem)}.{stem}"
    return ManifestRequest(_folder(test_file), stem, update)


def name_suffix(name: str | None) -> str:
    """Return ``.name`` for a manifest's name, or raise where it cannot be part of a file's."""
    if name is None:
        return ""
    if not _NAME.fullmatch(str(name)) or len(str(name)) > _LONGEST:
        raise ParamCheckUsageError(
            f"a manifest's name becomes part of a file name: {name!r} must be at most {_LONGEST} "
            f"letters, digits, '_' and '-'"
        )
    return f".{name}"


def named_path(path: object, name: str | None) -> Path:
    """Return ``folder/file[.name].txt`` for a path that was given.

    Raises :class:`ParamCheckUsageError` for one that is no path.

    >>> named_path(Path("lm.txt"), "small").as_posix()
    'lm.small.txt'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ParamCheckUsageError(f"path={path!r} is not a path: pass the manifest's file name")
    path = Path(path)
    return path.with_name(path.stem + name_suffix(name) + path.suffix) if name else path


def stale_files(test_files: Iterable[Path], visited: Iterable[str | Path]) -> list[Path]:
    """Return the manifests that no test of a full run asked for, in order.

    ``test_files`` are the files whose tests all ran to their end. Theirs that were not visited
    are stale, and so are those of a test file that is not there any more. Manifests of a test
    file that exists and was not collected are left alone, and so is whatever we did not write.
    """
    asked = {Path(path).absolute() for path in visited}
    ran = {Path(path).absolute() for path in test_files}
    stale: set[Path] = set()
    for root in {path.parent / FOLDER for path in ran}:
        try:
            folders = [folder for folder in root.iterdir() if folder.is_dir()]
        except OSError:  # none, or nobody may look into it
            continue
        present = {_folder(path) for path in root.parent.glob("*.py")}
        finished = {_folder(path) for path in ran if path.parent == root.parent}
        for folder in folders:
            if folder in finished or folder not in present:
                stale.update(f for f in folder.glob("*" + SUFFIX) if f not in asked and _ours(f))
    return sorted(stale)


def _ours(path: Path) -> bool:
    # Every full run looks for stale files at its end, and few find a file to look into.
    from .text import is_ours

    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_ours(file.readline(200))
    except OSError:  # whatever it is: nobody can say that it is stale
        return False


def _folder(test_file: Path) -> Path:
    folder = _safe(test_file.stem)
    if _RESERVED.match(folder):
        folder = f"{_digest(folder)}.{folder}"
    return test_file.parent / FOLDER / folder


def _safe(part: str) -> str:
    """Return a part of a file name that every file system takes, distinct for distinct parts."""
    if _SAFE.fullmatch(part) and len(part) <= _LONGEST and part[:1] != "." and part[-1:] != ".":
        return part
    kept = re.sub(r"[^A-Za-z0-9_\-]+", "_", part)[: _LONGEST - 9].strip("_")
    return f"{kept}-{_digest(part)}" if kept else _digest(part)


def _digest(text: str) -> str:
    import hashlib  # it loads OpenSSL, and most names need no digest

    raw = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=4).hexdigest()
