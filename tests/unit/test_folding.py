"""Names that differ by numbers only, written as one."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_paramcheck.messages.folding import (
    LONG_NAME,
    LOOK,
    MANY_PLACES,
    Folds,
    fold,
    fold_names,
    fold_rows,
    fold_short,
    template_of,
    templates_of,
)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["h.0.w", "h.1.w", "h.2.w", "out.w"], ["h.{0..2}.w", "out.w"]),
        (["h.0.w", "h.1.w"], ["h.{0,1}.w"]),
        (["h.7.w"], ["h.7.w"]),
        (["h.0.w", "h.2.w", "h.3.w", "h.4.w", "h.9.w"], ["h.{0,2..4,9}.w"]),
        (["0", "1", "2"], ["{0..2}"]),
        (
            ["h.0.e.0.w", "h.0.e.1.w", "h.1.e.0.w", "h.1.e.1.w"],
            ["h.{0,1}.e.{0,1}.w"],
        ),
        # No product: the odd one out keeps its own row.
        (["h.0.e.0.w", "h.0.e.1.w", "h.1.e.0.w"], ["h.0.e.{0,1}.w", "h.1.e.0.w"]),
        # The order of a registration by hand does not matter.
        (["h.2.w", "h.0.w", "h.1.w"], ["h.{0..2}.w"]),
        # Numbers inside a component, and several in one.
        (["fc1.w", "fc2.w"], ["fc{1,2}.w"]),
        (["layer1.0.w", "layer1.1.w", "layer2.0.w", "layer2.1.w"], ["layer{1,2}.{0,1}.w"]),
        (["conv1x1.w", "conv3x3.w"], ["conv1x1.w", "conv3x3.w"]),
        (["layers[0].w", "layers[1].w"], ["layers[{0,1}].w"]),
        (["h.-1.w", "h.-2.w"], ["h.-{1,2}.w"]),
        # A rule other than one after the other.
        ([f"h.{i}" for i in range(3, 300, 3)], ["h.{3,6,..,297}"]),
        (["h.1", "h.3", "h.5"], ["h.{1,3,5}"]),
        # Padded with zeros: a series of its own.
        (["h.08", "h.09", "h.10", "h.11"], ["h.{08..11}"]),
        (["h.1", "h.01", "h.001", "h.10"], ["h.1", "h.{01,10}", "h.001"]),
        # Not numbers: another alphabet's digits, more digits than a counter has.
        (["h.²", "h.³"], ["h.²", "h.³"]),
        (["9" * 4301 + ".w", "1.w", "2.w"], ["9" * 4301 + ".w", "{1,2}.w"]),
        (["00.w", "01.w", "0.w", "10.w"], ["{00,01,10}.w", "0.w"]),
        (["h." + "1" * 5000, "h." + "2" * 5000], ["h." + "1" * 5000, "h." + "2" * 5000]),
        # A name with braces of its own would read as a folded one.
        (["h.{0,1}.0", "h.{0,1}.1"], ["h.{0,1}.0", "h.{0,1}.1"]),
        ([], []),
        ([""], [""]),
    ],
)
def test_fold_names(names: list[str], expected: list[str]) -> None:
    assert fold_names(names) == expected


def test_only_equal_values_fold() -> None:
    rows = [("h.0.w", "a"), ("h.1.w", "b"), ("h.2.w", "a")]

    assert fold(rows) == [("h.{0,2}.w", "a", 2), ("h.1.w", "b", 1)]


def _unfold(name: str) -> list[str]:
    """The names that a folded name stands for."""
    pieces = re.split(r"\{([^}]*)\}", name)
    choices = [[piece] if n % 2 == 0 else _numbers(piece) for n, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _numbers(text: str) -> list[str]:
    if found := re.fullmatch(r"(\d+),(\d+),\.\.,(\d+)", text):
        first, second, last = map(int, found.groups())
        return [str(n).zfill(len(found[1])) for n in range(first, last + 1, second - first)]
    numbers: list[str] = []
    for run in text.split(","):
        first_text, _, last_text = run.partition("..")
        span = range(int(first_text), int(last_text or first_text) + 1)
        numbers += [str(n).zfill(len(first_text)) for n in span]
    return numbers


NUMBERS = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from(["00", "01", "02", "010", "10", "100"]),
    st.integers(0, 40).map(lambda n: str(3 * n)),
)
PARTS = st.one_of(
    NUMBERS, st.sampled_from(["w", "h", ""]), st.builds("l{}x{}".format, NUMBERS, NUMBERS)
)


@given(
    st.lists(
        st.tuples(st.lists(PARTS, min_size=1, max_size=3).map(".".join), st.sampled_from("ab")),
        max_size=60,
        unique=True,
    )
)
def test_folding_loses_and_invents_nothing(rows: list[tuple[str, str]]) -> None:
    folded = fold(rows)

    unfolded = [(name, value) for text, value, _ in folded for name in _unfold(text)]
    assert sorted(unfolded) == sorted(rows)
    assert [count for _, _, count in folded] == [len(_unfold(text)) for text, _, _ in folded]
    assert fold(rows) == folded


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60, unique=True))
def test_a_short_fold_is_narrow_and_says_where_it_lost_something(numbers: list[int]) -> None:
    rows = fold_short((f"h.{n}.w", None) for n in numbers)

    assert sum(row.count for row in rows) == len(numbers)
    for row in rows:
        assert len(row.name) <= len("h.{}.w") + 24 + 8
        if not row.shortened:
            assert len(_unfold(row.name)) == row.count


def test_a_set_without_a_rule_is_shortened_only_where_that_is_asked() -> None:
    names = [f"h.{n * n}.w" for n in range(20)]

    assert [row.name for row in fold_short((name, None) for name in names)] == [
        "h.{0,1,4,..,361}.w"
    ]
    assert fold_names(names) == [
        "h.{0,1,4,9,16,25,36,49,64,81,100,121,144,169,196,225,256,289,324,361}.w"
    ]


def test_rows_fold_where_name_and_text_do() -> None:
    assert fold_rows([("h.0", "a"), ("h.1", "a"), ("h.2", "b")]) == (("h.{0,1}", "a"), ("h.2", "b"))


ODD = st.text(alphabet="0123a.{}#\n", max_size=12)


@given(st.lists(ODD, max_size=12))
@example(["#1.w", "#2.w", "a1", "a2"])
@example(["1234567890", "1234567891"])
@example(["{1}", "{2}"])
def test_the_templates_of_many_names_are_those_of_each(names: list[str]) -> None:
    assert templates_of(names) == [template_of(name) for name in names]


@given(st.lists(ODD, max_size=12), st.integers(0, 5))
def test_whether_names_fold_to_more_rows_than_that(names: list[str], at_most: int) -> None:
    assert Folds().more_than(at_most, names) == (len(fold_names(names)) > at_most)


def test_what_the_first_names_do_not_tell_the_others_do() -> None:
    names = [f"h.{i}.w" for i in range(200)]

    assert not Folds().more_than(1, names)
    assert Folds().more_than(1, [*names, "head.w"])
    assert Folds().more_than(1, [*names, "h.300.01.w", "h.300.1.w"])


@given(
    st.sampled_from(
        ["", "a.", "a.3.", "layer12.", "#4.", "12345678901234.", "x" * 40 + "7" * 20 + "."]
    ),
    st.sampled_from([".w", "." + "w" * 40, "." + "w" * 40 + "#1", ".09", ".1234567890abcdefgh"]),
    st.booleans(),
)
def test_many_names_fold_as_few_do(start: str, end: str, padded: bool) -> None:
    # What many names begin with, and long pieces of them, are looked at once.
    numbers = [f"{n:02}" if padded else str(n) for n in range(LOOK + 20)]
    names = [f"{start}{a}.mlp.{b}{end}" for a in numbers[:20] for b in numbers[:9]]

    folded = fold_names(names)

    assert sorted(name for text in folded for name in _unfold(text)) == sorted(names)
    assert len(folded) == 1
    assert len(names) > LOOK


def test_names_are_folded_once_and_as_far_as_asked() -> None:
    folds = Folds()
    names = ["a.1", "b.1", "a.2", "c"]

    assert [row.name for row in folds.first(1, names)] == ["a.{1,2}"]
    assert [row.name for row in folds.first(9, names)] == ["a.{1,2}", "b.1", "c"]
    assert [row.name for row in folds.first(2, names)] == ["a.{1,2}", "b.1"]


DEEP = ".".join(f"b{n}" for n in range(20))


def test_names_in_many_numbered_modules_fold() -> None:
    # Most of their numbers are the same in all of them; the first names do not tell which.
    names = [f"{DEEP}.{layer}.e{expert}.w" for layer in range(3) for expert in range(100)]
    other = DEEP.replace("b7.", "b77.") + ".1.e57.w"

    assert fold_names(names) == [DEEP + ".{0..2}.e{0..99}.w"]
    assert fold_names([*names[:157], other, *names[157:]]) == [
        DEEP + ".{0..2}.e{0..99}.w",
        other,
    ]


def test_names_that_differ_in_too_many_places_are_written_each() -> None:
    few, many = (
        [".".join([str(n)] * places) for n in range(LOOK + 20)]
        for places in (MANY_PLACES, MANY_PLACES + 1)
    )

    assert fold_names(few) == few  # no product of sets
    assert fold_names(many) == many
    few.append(f"1{few[0][1:]}")
    many.append(f"1{many[0][1:]}")
    assert fold_names(few)[0] == f"{{0,1}}{few[0][1:]}"
    assert sorted(fold_names(many)) == sorted(many)


def test_a_long_name_with_digits_that_are_no_number_stands_for_itself() -> None:
    short, long = ([f"{'x' * width}.1234567890.{n}" for n in range(3)] for width in (9, LONG_NAME))

    assert fold_names(short) == ["xxxxxxxxx.1234567890.{0..2}"]
    assert fold_names(long) == long
