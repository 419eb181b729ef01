"""Phrases that several messages share."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_paramcheck.messages.wording import (
    cut,
    did_you_mean,
    first_line,
    fold,
    fold_names,
    join_words,
    plural,
    printable,
    shorten,
)

NAMES = ["emb.weight", "blocks.0.weight", "blocks.1.weight", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("head.weigth", " did you mean 'head.weight', 'emb.weight' or 'head.bias'?"),
        ("head.bais", " did you mean 'head.bias' or 'head.weight'?"),
        ("bias", " did you mean 'head.bias'?"),
        ("decoder.final_projection.bias", " did you mean 'head.bias'?"),
        ("blocks.2.weight", " did you mean 'blocks.1.weight', 'blocks.0.weight' or 'emb.weight'?"),
        ("norm", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word: str, expected: str) -> None:
    assert did_you_mean(word, NAMES) == expected


def test_did_you_mean_takes_any_iterable_once_and_counts_no_choice_twice() -> None:
    assert did_you_mean("cuda0", iter(["cuda", "cuda", "cpu"])) == " did you mean 'cuda'?"


def test_did_you_mean_offers_as_many_as_it_was_told() -> None:
    choices = ["a.weight", "b.weight", "c.weight"]

    assert did_you_mean("weight", choices, at_most=1) in {
        f" did you mean {choice!r}?" for choice in choices
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")],
)
def test_join_words(words: list[str], expected: str) -> None:
    assert join_words(words, "or") == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (70_000, "70,000 entries")],
)
def test_plural_with_a_form_of_its_own(count: int, expected: str) -> None:
    assert plural(count, "entry", "entries") == expected


def test_plural_adds_an_s() -> None:
    assert (plural(1, "value"), plural(3, "value")) == ("1 value", "3 values")


def test_shorten_says_how_many_it_left_out() -> None:
    assert shorten(["a", "b", "c"], 3) == "a, b, c"
    assert shorten(["a", "b", "c", "d"], 3) == "a, b, c and 1 more"
    assert shorten([], 3) == ""


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
        # Not indices: a leading zero, a sign, another alphabet's digit, a name with digits in it.
        (["h.00.w", "h.01.w"], ["h.00.w", "h.01.w"]),
        (["h.-1.w", "h.-2.w"], ["h.-1.w", "h.-2.w"]),
        (["h.²", "h.³"], ["h.²", "h.³"]),
        (["fc1.w", "fc2.w"], ["fc1.w", "fc2.w"]),
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
    choices: list[list[str]] = []
    for part in name.replace("..", "~").split("."):
        if not part.startswith("{"):
            choices.append([part])
            continue
        numbers: list[str] = []
        for run in part[1:-1].split(","):
            first, _, last = run.partition("~")
            numbers += map(str, range(int(first), int(last or first) + 1))
        choices.append(numbers)
    return [".".join(parts) for parts in itertools.product(*choices)]


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(["0", "1", "2", "3", "10", "w", "h"]), min_size=1, max_size=4
            ).map(".".join),
            st.sampled_from("ab"),
        ),
        max_size=30,
        unique=True,
    )
)
def test_folding_loses_and_invents_nothing(rows: list[tuple[str, str]]) -> None:
    folded = fold(rows)

    unfolded = [(name, value) for text, value, _ in folded for name in _unfold(text)]
    assert sorted(unfolded) == sorted(rows)
    assert [count for _, _, count in folded] == [len(_unfold(text)) for text, _, _ in folded]


@pytest.mark.parametrize(
    ("said", "at_most", "expected"),
    [
        ("", None, ""),
        (" \n \n", 5, ""),
        (ValueError(), None, ""),
        (ValueError("wrong"), None, "wrong"),
        ("\n  the cause \n the advice", None, "the cause"),
        ("eight...", 8, "eight..."),
        ("the cause", 8, "the c..."),
    ],
)
def test_the_first_line_that_says_something(
    said: object, at_most: int | None, expected: str
) -> None:
    assert first_line(said, at_most) == expected


def test_what_is_cut_is_as_long_as_it_may_be() -> None:
    assert cut("x" * 40, 40) == "x" * 40
    assert cut("x" * 41, 40) == "x" * 37 + "..."


def test_what_can_be_printed_is_left_as_it_is() -> None:
    assert printable("größe.重み 'a\\b'") == "größe.重み 'a\\b'"


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_printable_text_holds_nothing_that_a_terminal_acts_on(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    printable(text).encode("utf-8")  # a lone surrogate would raise


def test_a_name_of_very_many_digits_is_a_name() -> None:
    """Python turns at most 4,300 digits into a number."""
    long = "9" * 4301
    assert fold_names([f"{long}.w", f"{long[1:]}8.w", "1.w", "2.w"]) == [
        f"{long}.w",
        f"{long[1:]}8.w",
        "{1,2}.w",
    ]
    assert fold_names(["00.w", "01.w", "0.w", "10.w"]) == ["00.w", "01.w", "{0,10}.w"]


def test_names_by_the_hundred_thousand_are_not_all_compared() -> None:
    names = [
        f"blocks.{i}.{part}.{j}.weight" for i in range(500) for part in "ab" for j in range(99)
    ]
    assert did_you_mean("blocks.77.a.3.weigth", names) == (
        " did you mean 'blocks.77.a.3.weight', 'blocks.77.b.3.weight' or 'blocks.0.a.3.weight'?"
    )
    assert did_you_mean("weight", names).startswith(" did you mean 'blocks.0.")
    assert did_you_mean("quite another", names) == ""
    odd = [hashlib.sha256(str(i).encode()).hexdigest().translate(NO_DIGITS) for i in range(20_000)]
    assert f"'{odd[7]}'" in did_you_mean(odd[7][:-1] + "_", odd)


NO_DIGITS = str.maketrans("0123456789", "ghijklmnop")
