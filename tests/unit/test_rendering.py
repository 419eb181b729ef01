"""Whole messages: the headline alone says what is wrong, the rest fits one screen."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_paramcheck.messages.findings import Finding, SubjectNames
from pytest_paramcheck.messages.rendering import align, render
from pytest_paramcheck.messages.rollup import _MENTION, _complete_modules, _seen_from

from .messages import whole


def test_one_finding_with_everything() -> None:
    finding = Finding(
        names=("head.weight",),
        problem="wrong dtype",
        expected="float32",
        found="float64",
        why="it was loaded so",
        hint="model.float() casts it",
    )

    assert render([finding], "LM") == whole("""
        wrong dtype: head.weight (LM)

          head.weight  expected float32, found float64: it was loaded so

          hint: model.float() casts it
        """)


@pytest.mark.parametrize(
    ("finding", "row"),
    [
        (Finding(("w",), "p"), "w"),
        (Finding(("w",), "p", expected="1"), "w  expected 1"),
        (Finding(("w",), "p", found="2"), "w  2"),
        (Finding(("w",), "p", why="because"), "w  because"),
        (Finding(("w",), "p", found="2", why="because"), "w  2: because"),
    ],
)
def test_a_row_shows_what_there_is_and_leaves_no_trailing_blanks(
    finding: Finding, row: str
) -> None:
    assert render([finding]) == f"p: w\n\n  {row}"


def test_texts_stand_in_one_column() -> None:
    findings = [
        Finding(("emb.weight",), "no gradient", found="never used"),
        Finding(("head.b",), "no gradient", found="frozen"),
    ]

    assert render(findings, "LM") == whole("""
        no gradient: emb.weight, head.b (LM)

          emb.weight  never used
          head.b      frozen
        """)


def test_a_very_long_name_does_not_push_the_others_to_the_right() -> None:
    long = "encoder." + "x" * 60

    assert align([("a", "1"), (long, "2"), ("bcd", "3")]) == ["a    1", f"{long}  2", "bcd  3"]
    assert align([]) == []


def test_repeated_layers_fold() -> None:
    findings = [
        Finding((f"blocks.{i}.mlp.weight",), "no gradient", found="never used") for i in range(32)
    ]
    findings.append(Finding(("head.weight",), "no gradient", found="frozen"))

    assert render(findings, "GPT") == whole("""
        no gradient: blocks.{0..31}.mlp.weight, head.weight (GPT)

          blocks.{0..31}.mlp.weight  never used
          head.weight                frozen
        """)


def _twelve() -> list[Finding]:
    return [Finding((f"layer{i:02}",), "not finite", found=f"{i} NaN") for i in range(12)]


def test_ten_rows_then_how_many_more() -> None:
    assert render(_twelve(), "Net") == whole("""
        not finite: layer{00..11} (Net)

          layer00  0 NaN
          layer01  1 NaN
          layer02  2 NaN
          layer03  3 NaN
          layer04  4 NaN
          layer05  5 NaN
          layer06  6 NaN
          layer07  7 NaN
          layer08  8 NaN
          layer09  9 NaN
          ... and 2 more (-vv shows all)
        """)


def test_without_a_limit_every_row_is_shown() -> None:
    lines = render(_twelve(), "Net", max_rows=None).splitlines()

    assert lines[2:] == [f"  layer{i:02}  {i} NaN" for i in range(12)]


def test_what_is_left_out_is_counted_in_parameters_and_not_in_rows() -> None:
    findings = [
        Finding((f"h.{i}.{part}",), "no gradient", found=part)
        for part in "abcdefghijkl"
        for i in range(100)
    ]

    message = render(findings, "GPT").splitlines()

    assert (
        message[0]
        == "no gradient: h.{0..99}.a, h.{0..99}.b, h.{0..99}.c, h.{0..99}.d and 800 more (GPT)"
    )
    assert message[2] == "  h.{0..99}.a  a"
    assert message[-1] == "  ... and 200 more (-vv shows all)"
    assert len(message) == 13


def test_several_problems_each_under_its_own_heading() -> None:
    findings = [
        Finding(("a",), "no gradient", found="frozen", hint="thaw it"),
        Finding(("b",), "zero gradient", found="dead", hint="revive it"),
        Finding(("c",), "no gradient", found="unused", hint="thaw it"),
    ]

    assert render(findings, "Net") == whole("""
        no gradient: a, c; zero gradient: b (Net)

          no gradient:
            a  frozen
            c  unused
          zero gradient:
            b  dead

          hint: thaw it
          hint: revive it
        """)


def test_each_problem_has_its_share_of_the_rows() -> None:
    names = "abcdefghi"
    findings = [Finding((name,), "missing") for name in names]
    findings += [Finding((name.upper(),), "unexpected") for name in names]
    findings += [Finding(("x",), "wrong dtype")]

    assert render(findings) == whole("""
        missing: a, b, c, d and 5 more; unexpected: A, B, C, D and 5 more; wrong dtype: x

          missing:
            a
            b
            c
            d
            e
          unexpected:
            A
            B
            C
            D
          wrong dtype:
            x
          ... and 9 more (-vv shows all)
        """)


def test_three_hints_are_enough_unless_all_is_asked_for() -> None:
    findings = [Finding((f"p{i}",), "x", hint=f"do {'abcde'[i]}") for i in range(5)]

    assert [line for line in render(findings).splitlines() if "hint" in line] == [
        "  hint: do a",
        "  hint: do b",
        "  hint: do c",
    ]
    assert render(findings, max_rows=None).count("hint:") == 5


def test_hints_that_differ_by_numbers_are_one() -> None:
    findings = [Finding((f"p{i}",), "x", hint=f"model.h[{i}].p = q") for i in range(5)]
    findings.append(Finding(("q",), "x", hint="keep q"))

    assert [line for line in render(findings).splitlines() if "hint" in line] == [
        "  hint: model.h[0].p = q (and 4 more like it)",
        "  hint: keep q",
    ]
    assert render(findings, max_rows=None).count("hint:") == 6


def test_rows_that_differ_in_what_was_measured_are_one() -> None:
    findings = [
        Finding((f"h.{i}.w",), "wrong", found=f"std 0.07{i}, {3.5 + i / 10:.2g} times as wide")
        for i in range(6)
    ]

    assert render(findings) == whole("""
        wrong: h.{0..5}.w

          h.{0..5}.w  std 0.070 to 0.075, 3.5 to 4 times as wide
        """)
    assert render(findings[:4]).count("times as wide") == 4  # a few are shown as they are
    assert render(findings, max_rows=None).count("times as wide") == 6


@pytest.mark.parametrize(
    "found",
    [
        "{i} of 16 values",  # a count
        "0.5 at [{i}, 1]",  # a place
        "is h.{i}.v, 0.5",  # a name
    ],
)
def test_whole_numbers_keep_rows_apart(found: str) -> None:
    findings = [Finding((f"h.{i}.w",), "wrong", found=found.format(i=i)) for i in range(6)]

    assert " to " not in render(findings)


def test_layers_of_other_names_are_not_one() -> None:
    findings = [Finding((name,), "wrong", found=f"std 0.{n}") for n, name in enumerate("abcdef")]

    assert " to " not in render(findings)


def test_long_hints_leave_room_for_the_rows() -> None:
    findings = [
        Finding((f"p{i}",), "x", hint=f"do {'abc'[i % 3]} {'and ' * 200}") for i in range(9)
    ]

    text = render(findings)

    assert len(text.splitlines()) <= 30
    assert text.count("hint:") == 1
    assert text.count("  p") == 1
    assert render(findings, max_rows=None).count("hint:") == 3


MODULES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from(["a", "b", "a.b"])),
    min_size=5,
    max_size=12,
    unique=True,
)


@given(MODULES, st.sets(st.integers(0, 11)))
def test_a_module_is_a_row_where_all_below_it_share_the_reason(
    parts: list[tuple[str, ...]], left_out: set[int]
) -> None:
    names = list(dict.fromkeys(".".join(part) for part in parts))
    given = {name for n, name in enumerate(names) if n not in left_out}

    found = _complete_modules(given, set(names) - given)

    def below(module: str, among: Iterable[str]) -> int:
        return sum(name.startswith(f"{module}.") for name in among)

    for name in given:
        above = list(itertools.accumulate(name.split(".")[:-1], "{}.{}".format))
        complete = [m for m in above if below(m, given) == below(m, names) > 1]
        wanted = (complete[0], below(complete[0], given)) if complete else None
        assert found.get(name.rpartition(".")[0]) == wanted


def test_details_stand_below_each_other_and_the_reason_below_them() -> None:
    finding = Finding(
        ("emb.weight", "head.weight"),
        "not tied",
        why="EQUAL: the first optimizer step will part them",
        hint="tie by assignment",
        rows=(("emb.weight", "Parameter 11x6"), ("head.weight", "Parameter 11x6")),
    )

    assert render([finding], "LM") == whole("""
        not tied: emb.weight, head.weight (LM)

          emb.weight   Parameter 11x6
          head.weight  Parameter 11x6
          EQUAL: the first optimizer step will part them

          hint: tie by assignment
        """)


def test_blocks_are_set_apart_and_come_after_the_rows() -> None:
    findings = [
        Finding(("a",), "not tied", rows=(("a", "1"), ("longer", "2"))),
        Finding(("b",), "not tied", found="gone"),
        Finding(("c",), "not tied", rows=(("c", "3"),)),
    ]

    assert render(findings) == whole("""
        not tied: a, b, c

          b  gone

          a       1
          longer  2

          c  3
        """)


def test_the_details_of_one_finding_are_limited() -> None:
    details = tuple((f"name{i:02}", str(i)) for i in range(13))

    assert render([Finding(("group",), "not tied", rows=details)]).splitlines()[2:] == [
        *(f"  name{i:02}  {i}" for i in range(10)),
        "  ... and 3 more (-vv shows all)",
    ]


def test_many_blocks_fit_one_screen_with_a_few_details_each() -> None:
    details = tuple((f"name{i:02}", str(i)) for i in range(13))
    findings = [Finding((f"group{i:02}",), "not tied", rows=details) for i in range(11)]

    lines = render(findings).splitlines()

    assert lines[2:8] == [
        "  name00  0",
        "  name01  1",
        "  name02  2",
        "  ... and 10 more (-vv shows all)",
        "",
        "  name00  0",
    ]
    assert sum(line == "  name00  0" for line in lines) == 5
    assert lines[-1] == "  ... and 6 more (-vv shows all)"


def test_one_detail_more_is_shown_rather_than_counted() -> None:
    details = tuple((name, "x") for name in "abcd")
    findings = [Finding((f"group{i}",), "not tied", rows=details) for i in range(5)]

    assert render(findings).splitlines()[2:7] == ["  a  x", "  b  x", "  c  x", "  d  x", ""]


def test_nothing_is_hidden_in_blocks_without_a_limit() -> None:
    details = tuple((f"name{i:02}", str(i)) for i in range(13))
    findings = [Finding((f"group{i:02}",), "not tied", rows=details) for i in range(11)]

    message = render(findings, max_rows=None)

    assert message.count("name12  12") == 11
    assert "more" not in message.partition("\n")[2]


def test_a_finding_about_no_parameter_in_particular() -> None:
    finding = Finding((), "the loss has no graph", hint="do not detach it")

    assert render([finding], "Net") == whole("""
        the loss has no graph (Net)

          hint: do not detach it
        """)


def test_a_finding_without_names_can_say_what_was_found() -> None:
    finding = Finding((), "the parameter count differs", expected="total 12", found="total 10")

    assert render([finding], "Net") == whole("""
        the parameter count differs (Net)

          expected total 12, found total 10
        """)


def test_seven_thousand_findings_fit_one_screen() -> None:
    findings = [
        Finding((f"stage{i:04}.weight",), "wrong dtype", "float32", f"float{i}", hint=f"cast {i}")
        for i in range(7000)
    ]

    lines = render(findings, "Huge").splitlines()

    assert lines[0] == ("wrong dtype: stage{0000..6999}.weight (Huge)")
    assert len(lines) <= 24
    assert max(map(len, lines)) < 120
    assert "  ... and 6990 more (-vv shows all)" in lines


def test_a_parameter_with_thousands_of_names_fits_one_row() -> None:
    names = tuple(f"cell{i}.weight" for i in range(4470))

    assert render([Finding(names, "no gradient", found="never used")], "RNN") == whole("""
        no gradient: cell{0..4469}.weight (RNN)

          cell{0..4469}.weight  never used
        """)


def test_with_vv_all_its_names_are_shown() -> None:
    names = tuple(f"cell{i}.weight" for i in range(6))

    assert render([Finding(names, "no gradient", found="x")], max_rows=None).splitlines()[-1] == (
        "  cell0.weight, cell1.weight, cell2.weight, cell3.weight, cell4.weight, cell5.weight  x"
    )


#: Clears the screen, sets the title, turns the text around, is no text at all, starts a line.
CONTROLS = "\x1b[2J\x1b]0;t\x07\u202e\ud800\n\x85\u2028w"
ESCAPED = r"\x1b[2J\x1b]0;t\x07\u202e\ud800\n\x85\u2028w"


def test_what_a_terminal_would_act_on_is_escaped_wherever_it_stands() -> None:
    findings = [
        Finding((CONTROLS,), CONTROLS, CONTROLS, CONTROLS, CONTROLS, CONTROLS),
        Finding(("ü.重み",), "p", rows=((CONTROLS, CONTROLS),)),
    ]
    e = ESCAPED

    assert render(findings, CONTROLS, width=None) == whole(rf"""
        {e}: {e}; and 1 more ({e})

          {e}:
            {e}  expected {e}, found {e}: {e}
          p:
            {e}  {e}

          hint: {e}
        """)


LAYER = [f"attn.{part}.weight" for part in "qkvo"] + ["mlp.up.weight", "mlp.down.weight"]
VISION = [f"model.vision.layers.{i}.{name}" for i in range(12) for name in LAYER]
TEXT = [f"model.text.layers.{i}.{name}" for i in range(12) for name in LAYER]
NAMES = SubjectNames((*VISION, *TEXT, "head.weight"), ("model.text.mask",))


def _unused(names: list[str], why: str = "never used") -> list[Finding]:
    return [Finding((name,), "no gradient", why=why) for name in names]


def test_a_module_is_the_row_where_all_its_parameters_share_the_reason() -> None:
    assert render(_unused([*VISION, "head.weight"]), "VLM", names=NAMES) == whole("""
        no gradient: 73 of 145 parameters below model, head (VLM)

          model.vision (all 72)  never used
          head.weight            never used
        """)


def test_modules_fold_as_names_do() -> None:
    names = [name for name in VISION if name.split(".")[3] in ("1", "2", "7")]

    assert render(_unused(names), "VLM", names=NAMES) == whole("""
        no gradient: 18 of 145 parameters below model.vision.layers (VLM)

          model.vision.layers.{1,2,7} (all 6 each)  never used
        """)


def test_the_whole_subject_is_the_pattern_that_selects_it() -> None:
    assert render(_unused([*VISION, *TEXT, "head.weight"]), "VLM", names=NAMES) == whole("""
        no gradient: all 145 parameters below model, head (VLM)

          * (all 145)  never used
        """)


def test_a_module_with_one_parameter_of_another_reason_is_none() -> None:
    findings = [*_unused(VISION[1:]), *_unused(VISION[:1], "frozen")]

    assert render(findings, "VLM", names=NAMES) == whole("""
        no gradient: 72 of 145 parameters below model.vision.layers (VLM)

          model.vision.layers.0.attn.k.weight       never used
          model.vision.layers.0.attn.v.weight       never used
          model.vision.layers.0.attn.o.weight       never used
          model.vision.layers.0.mlp (all 2)         never used
          model.vision.layers.{1..11} (all 6 each)  never used
          model.vision.layers.0.attn.q.weight       frozen
        """)


def test_a_buffer_is_one_of_all_only_where_buffers_are_looked_at() -> None:
    findings = [Finding((name,), "wrong dtype") for name in [*TEXT, "model.text.mask"]]
    names = SubjectNames((*TEXT, "head.weight"), ("model.text.mask",))

    assert render(findings, names=names) == whole("""
        wrong dtype: 73 of 74 parameters and buffers below model.text

          model (all 73)
        """)
    assert "mask" not in render(findings[:-1], names=names)
    assert "model (all 72)" in render(findings[:-1], names=names)


def test_few_rows_of_one_reason_are_shown_by_name() -> None:
    names = SubjectNames(("a.weight", "a.bias", "b.weight", "b.bias"))

    assert render(_unused(["a.weight", "a.bias"]), names=names) == whole("""
        no gradient: a.weight, a.bias

          a.weight  never used
          a.bias    never used
        """)


def test_nothing_is_rolled_up_where_all_is_asked_for() -> None:
    lines = render(_unused(VISION), "VLM", None, NAMES).splitlines()

    assert lines[2:] == [
        f"  model.vision.layers.{{0..11}}.{name:<15}  never used" for name in LAYER
    ]


def test_a_name_that_is_not_the_subjects_keeps_all_by_name() -> None:
    findings = [*_unused(VISION), *_unused(["<graph leaf 0>"])]

    assert "all" not in render(findings, "VLM", names=NAMES)


def test_a_parameter_with_a_name_elsewhere_keeps_its_row() -> None:
    names = SubjectNames((*TEXT, "lm_head.weight", "lm_head.bias"))
    findings = [*_unused(TEXT[:-1]), Finding((TEXT[-1], "lm_head.weight"), "no gradient", why="u")]

    text = render(findings, names=names)

    assert f"{TEXT[-1]}, lm_head.weight" in text
    assert "model.text (all" not in text


def test_names_in_a_reason_are_those_of_the_row_so_that_rows_fold() -> None:
    findings = [
        Finding((f"blocks.{i}.a.weight",), "zero gradient", why=f"times blocks.{i}.b.weight (zero)")
        for i in range(8)
    ]

    assert render(findings, "Net") == whole("""
        zero gradient: blocks.{0..7}.a.weight (Net)

          blocks.{0..7}.a.weight  times its b.weight (zero)
        """)
    assert render(findings[:1], "Net") == whole("""
        zero gradient: blocks.0.a.weight (Net)

          blocks.0.a.weight  times blocks.0.b.weight (zero)
        """)


@pytest.mark.parametrize(
    ("mention", "shown"),
    [
        ("blocks.{}.attn", "its attn"),
        ("blocks.{}", "its blocks.N"),
        ("blocks.{}.mlp.up.weight", "its mlp.up.weight"),
        ("emb.weight", "emb.weight"),
        ("3.5e-8", "3.5e-8"),
    ],
)
def test_what_a_reason_mentions_is_seen_from_the_row(mention: str, shown: str) -> None:
    findings = [
        Finding((f"blocks.{i}.attn.q",), "p", why=f"stops in {mention.format(i)}") for i in range(3)
    ]

    assert render(findings).splitlines()[2] == f"  blocks.{{0..2}}.attn.q  stops in {shown}"


def _from(name: str, found: re.Match[str]) -> str:
    """Do it for one name, with nothing remembered."""
    mention = found[0]
    mine, other = name.split("."), mention.split(".")
    shared = 0
    while shared < min(len(mine), len(other)) and mine[shared] == other[shared]:
        shared += 1
    numbered = [n for n in range(shared) if any(map(str.isdigit, mine[n]))]
    if mention == name or not numbered:
        return mention
    if shared < len(other):
        return f"its {'.'.join(other[shared:])}"
    rest = other[numbered[-1] + 1 :] or [*other[: numbered[-1]], "N"]
    return f"its {'.'.join(rest)}"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.1.w", "a.2.w", "a.12.w", "b1.w", "1.w", "a.1.x.3.w", "w", "a.1"]),
            st.sampled_from(
                ["a.1.v", "a.2", "a.12.v", "b1.v", "1.v", "a.1.x.3.v", "0.1", "v", "a.1.w"]
            ),
        ),
        max_size=8,
    )
)
def test_reasons_relative_to_a_layer_are_those_written_one_by_one(
    pairs: list[tuple[str, str]],
) -> None:
    texts = [((name,), f"stops at {mention}, as {mention} is zero") for name, mention in pairs]

    alone = [_MENTION.sub(partial(_from, names[0]), text) for names, text in texts]
    known: dict[tuple[str, str], str] = {}
    assert [_seen_from(names[0], text, known) for names, text in texts] == alone


def test_a_set_of_layers_without_a_rule_is_shortened_and_counted() -> None:
    layers = [i for i in range(300) if i % 3 == 0 or i % 7 == 0]
    findings = _unused([f"blocks.{i}.w" for i in layers])
    names = SubjectNames(tuple(f"blocks.{i}.w" for i in range(300)))

    assert render(findings, "Net", names=names) == whole(f"""
        no gradient: blocks.{{0,3,6,..,297}}.w (Net)

          blocks.{{0,3,6,..,297}}.w ({len(layers)} of 300)  never used
        """)
    assert render(findings).splitlines()[2] == (
        f"  blocks.{{0,3,6,..,297}}.w ({len(layers)})  never used"
    )
    assert f",{layers[-2]},{layers[-1]}}}.w  never" in render(findings, max_rows=None, width=None)


WIDE = ["encoder.transformer.layers.attention.projection." + part for part in ("q", "k", "v", "o")]


@pytest.mark.parametrize(
    ("findings", "line"),
    [
        (
            _unused(WIDE),
            f"no gradient: {WIDE[0]} and 3 more (Net)",
        ),
        (
            [Finding((WIDE[0],), "missing"), Finding((WIDE[1],), "unexpected")],
            f"missing: {WIDE[0]}; unexpected (Net)",
        ),
        (
            [Finding((name,), f"problem {name}") for name in "abcdefgh"],
            "problem a: a; problem b: b; problem c; problem d; problem e; problem f; problem g; "
            "problem h (Net)",
        ),
        (
            [Finding((name,), f"one more of the problems {name}") for name in "abcdefgh"],
            "one more of the problems a: a; one more of the problems b; "
            "one more of the problems c; and 5 more (Net)",
        ),
        ([Finding(("w" * 150,), "missing")], f"missing: {'w' * 150} (Net)"),
    ],
)
def test_the_first_line_is_about_a_hundred_columns(findings: list[Finding], line: str) -> None:
    assert render(findings, "Net").splitlines()[0] == line


def test_long_texts_are_broken_and_names_are_not() -> None:
    long = "layer." + "x" * 130
    findings = [
        Finding(("a",), "p", why="word " * 40, hint="do " * 60),
        Finding((long,), "p", why="it is long"),
    ]

    lines = render(findings, "Net").splitlines()

    assert lines == [
        "p: a and 1 more (Net)",
        "",
        "  a  " + ("word " * 23).rstrip(),
        "     " + ("word " * 17).rstrip(),
        f"  {long}",
        "     it is long",
        "",
        "  hint: " + ("do " * 37).rstrip(),
        "        " + ("do " * 23).rstrip(),
    ]


@pytest.mark.parametrize("several", [1, 3, 12])
@pytest.mark.parametrize("details", [0, 2, 40])
def test_a_thousand_findings_fit_one_screen(several: int, details: int) -> None:
    findings = [
        Finding(
            (f"stage{i % 7}.block{i}.{'abcdef'[i % 6]}.weight",),
            f"problem {i % several}",
            why=f"because {'of this and that ' * 8}{chr(97 + i % 25)}",
            hint=f"do {chr(97 + i % 25)} {'and that ' * 20}",
            rows=tuple((f"row{n}", "text " * 10) for n in range(details)),
        )
        for i in range(1000)
    ]
    names = SubjectNames(tuple(finding.names[0] for finding in findings))

    lines = render(findings, "Huge", names=names).splitlines()

    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
