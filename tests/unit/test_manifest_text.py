"""The manifest's text: what is written is read back, and what is damaged is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_paramcheck.manifest.text import (
    HEADER,
    is_ours,
    manifest_text,
    parse_manifest,
    write_manifest,
)
from pytest_paramcheck.parameters.subject.record import ROLES, Record

from .messages import usage

LINES = [
    Record("emb.weight", "11x6", "float32"),
    Record("frozen", "scalar", "bfloat16", trainable=False),
    Record("mask", "6x6", "bool", parameter=False, trainable=False, persistent=False),
    Record("mean", "6", "float32/sparse_coo", parameter=False, trainable=False),
    Record("scale", "6", "float32", parameter=False),
    Record("cache", "6", "float32", parameter=False, persistent=False),
    Record("head.weight", "11x6", "float32", tied_to="emb.weight"),
]
TEXT = """\
# pytest-paramcheck manifest, format 1
# Registration order: optimizer checkpoints map by position. Written by --param-update.
emb.weight 11x6 float32 trainable
frozen scalar bfloat16 frozen
mask 6x6 bool buffer not-persistent
mean 6 float32/sparse_coo buffer
scale 6 float32 trainable buffer
cache 6 float32 trainable buffer not-persistent
head.weight 11x6 float32 trainable tied-to emb.weight
"""


def test_text() -> None:
    assert manifest_text(LINES) == TEXT


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.rstrip("\n").encode(),
        TEXT.replace("mask", "\n# a reviewer's remark\nmask").encode(),
    ],
    ids=["written", "windows line ends", "byte order mark", "no last line end", "comments"],
)
def test_reads_what_git_and_editors_make_of_it(data: bytes) -> None:
    assert parse_manifest(data, "m.txt") == LINES
    assert is_ours(data)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True),
    st.sampled_from(sorted(ROLES)),
)
def test_any_name_is_read_back(names: list[str], role: tuple[str, ...]) -> None:
    lines = [Record(name, "2x3", "float32", *ROLES[role]) for name in names]
    lines += [
        Record(name + ".twin", "2x3", "float32", tied_to=name)
        for name in names[:3]
        if name + ".twin" not in names
    ]
    assert parse_manifest(manifest_text(lines).encode(), "m.txt") == lines


def test_odd_names_are_quoted() -> None:
    odd = ["a b", "#x", '"q', "<<<<<<<", "new\nline", "sep\u2028x", "größe"]
    lines = [Record(name, "2", "float32") for name in odd]
    assert manifest_text(lines).split("\n")[2:-1] == [
        '"a b" 2 float32 trainable',
        '"#x" 2 float32 trainable',
        r'"\"q" 2 float32 trainable',
        '"<<<<<<<" 2 float32 trainable',
        r'"new\nline" 2 float32 trainable',
        r'"sep\u2028x" 2 float32 trainable',
        "größe 2 float32 trainable",
    ]


WAYS_OUT = ". Restore the line, or write the file anew with --param-update"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("<<<<<<< HEAD", "a merge conflict was left in"),
        ("=======", "a merge conflict was left in"),
        ("emb.weight", "a line is: name shape dtype role [tied-to name]"),
        ("w 11 6 float32 trainable", "'6' is not a dtype: write float32"),
        (
            "w (11,6) float32 trainable",
            "'(11,6)' is not a shape: write 11x6, scalar or uninitialized",
        ),
        (
            "w 3 float32 trainible",
            "'trainible' is not a role: write trainable, frozen, buffer or buffer not-persistent",
        ),
        (
            "w  3 float32 trainable",
            "'' is not a shape: write 11x6, scalar or uninitialized",
        ),
        ("w 3 float32 trainable tied-to", "tied-to takes one name"),
        ("w 3 float32 trainable tied-to emb.weight b", "tied-to takes one name"),
        ("w 3 float32 trainable tied-to nobody", "'nobody' is in no line above it"),
        ("emb.weight 3 float32 trainable", "'emb.weight' is already in line 3"),
        ('"w 3 float32 trainable', "the quoted name is not a JSON string"),
        ('"w"3 float32 trainable', "a space must follow the quoted name"),
    ],
)
def test_a_damaged_line_is_shown(row: str, reason: str) -> None:
    data = TEXT + row + "\n"
    assert (
        usage(parse_manifest, data.encode(), "tests/__params__/m.txt")
        == f"tests/__params__/m.txt, line 10: {row}\n{reason}{WAYS_OUT}"
    )


def test_a_newer_format() -> None:
    data = TEXT.replace("format 1", "format 2").encode()
    assert usage(parse_manifest, data, "m.txt") == (
        "m.txt, line 1: # pytest-paramcheck manifest, format 2\n"
        "this version of pytest-paramcheck reads format 1: upgrade it "
        "(pip install -U pytest-paramcheck)"
    )
    assert not is_ours(data)
    many = TEXT.replace("format 1", "format " + "9" * 5000).encode()  # int() has a limit
    assert usage(parse_manifest, many, "m.txt").endswith("(pip install -U pytest-paramcheck)")
    assert not is_ours(many)


def test_an_older_format_is_read() -> None:
    data = TEXT.replace("format 1", "format 0").encode()
    assert parse_manifest(data, "m.txt") == LINES
    assert is_ours(data)


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (HEADER[0][:-1].encode() + b"abc\n", HEADER[0][:-1] + "abc"),
        (HEADER[0][:-1].encode() + b"\xc2\xb2\n", HEADER[0][:-1] + "\u00b2"),
        (HEADER[0][:-1].encode() + b"\n", HEADER[0][:-1]),
        (b"", ""),
        (b"emb.weight 3 float32 trainable\n", "emb.weight 3 float32 trainable"),
        (b"\x00\x01\n", r"'\x00\x01'"),
        (b"x" * 200, "x" * 97 + "..."),
    ],
    ids=["word", "superscript", "no number", "empty", "no header", "binary", "long"],
)
def test_no_manifest(data: bytes, row: str) -> None:
    assert usage(parse_manifest, data, "m.txt") == (
        f"m.txt, line 1: {row}\n"
        f"this is not a manifest: its first line would be {HEADER[0]!r}. "
        f"Restore the file, or delete it and run with --param-update"
    )
    assert not is_ours(data)


def test_not_utf8() -> None:
    assert usage(parse_manifest, TEXT.encode() + b"gr\xf6sse 3 float32 trainable\n", "m.txt") == (
        f"m.txt, line 10: gr\\xf6sse 3 float32 trainable\nit is not UTF-8{WAYS_OUT}"
    )


def test_written_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "new" / "folder" / "m.txt"
    write_manifest(path, LINES)
    assert path.read_bytes() == TEXT.encode()

    def interrupted():
        yield LINES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, interrupted())
    assert path.read_bytes() == TEXT.encode()
    assert [file.name for file in path.parent.iterdir()] == ["m.txt"]


posix = pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_a_new_file(tmp_path, mask: int) -> None:
    path, old = tmp_path / "m.txt", tmp_path / "old.txt"
    old.touch(0o640)
    old.chmod(0o640)
    before = os.umask(mask)
    try:
        write_manifest(path, LINES)
        write_manifest(old, LINES)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert old.stat().st_mode & 0o777 == 0o640  # of a file that was there, its own mode


@posix
def test_a_symbolic_link_is_kept_and_its_target_written(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "m.txt"
    for number in range(2):  # dangling the first time
        link = tmp_path / f"link{number}.txt"
        link.symlink_to(Path("real", "m.txt"))
        write_manifest(link, LINES[: number + 1])
        assert link.is_symlink()
        assert real.read_text() == manifest_text(LINES[: number + 1])
        assert [file.name for file in real.parent.iterdir()] == ["m.txt"]
