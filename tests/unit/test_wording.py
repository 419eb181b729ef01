"""Phrases that several messages share."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_paramcheck.messages.wording import (
    a_or_an,
    cut,
    did_you_mean,
    first_line,
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


def test_what_cannot_be_printed_is_shown_as_python_writes_it() -> None:
    assert printable("\x1b]w\n\u202e\ud800") == r"\x1b]w\n\u202e\ud800"


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_printable_text_holds_nothing_that_a_terminal_acts_on(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    printable(text).encode("utf-8")  # a lone surrogate would raise


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


@pytest.mark.parametrize(
    "said",
    [
        "an mkldnn tensor",
        "an MLP",
        "an LM",
        "an SGD",
        "an NAdam",
        "an ndarray",
        "an fp16 copy",
        "an int64 tensor",
        "an UninitializedParameter",
        "an OrderedDict",
        "an 8-bit copy",
        "a uint8 tensor",
        "a Unit",
        "a UNet",
        "a user's class",
        "a one-hot tensor",
        "a float8 tensor",
        "a GRU",
        "a LayerNorm",
        "a Model",
        "a sparse_coo tensor",
        "a Euler",
    ],
)
def test_an_article_goes_by_the_sound(said: str) -> None:
    assert a_or_an(said.partition(" ")[2]) == said
