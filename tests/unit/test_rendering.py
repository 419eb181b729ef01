"""Whole messages: the headline alone says what is wrong, the rest fits one screen."""

from __future__ import annotations

import pytest

from pytest_paramcheck.messages.findings import Finding
from pytest_paramcheck.messages.rendering import align, render

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
        not finite: layer00, layer01, layer02, layer03 and 8 more (Net)

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
        == "no gradient: h.{0..99}.a, h.{0..99}.b, h.{0..99}.c, h.{0..99}.d and 8 more (GPT)"
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


def test_the_rows_of_all_problems_share_one_limit() -> None:
    findings = [Finding((f"a{i:02}",), "missing") for i in range(9)]
    findings += [Finding((f"b{i:02}",), "unexpected") for i in range(9)]
    findings += [Finding(("c",), "wrong dtype")]

    assert render(findings) == whole("""
        missing: a00, a01, a02, a03 and 5 more; unexpected: b00, b01, b02, b03 and 5 more; wrong dtype: c

          missing:
            a00
            a01
            a02
            a03
            a04
            a05
            a06
            a07
            a08
          unexpected:
            b00
          ... and 9 more (-vv shows all)
        """)  # noqa: E501


def test_three_hints_are_enough_unless_all_is_asked_for() -> None:
    findings = [Finding((f"p{i}",), "x", hint=f"do {i}") for i in range(5)]

    assert [line for line in render(findings).splitlines() if "hint" in line] == [
        "  hint: do 0",
        "  hint: do 1",
        "  hint: do 2",
    ]
    assert render(findings, max_rows=None).count("hint:") == 5


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


def test_blocks_count_as_one_row_each_and_their_details_are_limited_too() -> None:
    details = tuple((f"name{i:02}", str(i)) for i in range(13))
    findings = [Finding((f"group{i:02}",), "not tied", rows=details) for i in range(11)]

    lines = render(findings).splitlines()

    assert lines[2:13] == [
        *(f"  name{i:02}  {i}" for i in range(10)),
        "  ... and 3 more (-vv shows all)",
    ]
    assert sum(line == "  name00  0" for line in lines) == 10
    assert lines[-1] == "  ... and 1 more (-vv shows all)"


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

    assert lines[0] == (
        "wrong dtype: stage0000.weight, stage0001.weight, stage0002.weight, stage0003.weight "
        "and 6996 more (Huge)"
    )
    assert len(lines) <= 24
    assert max(map(len, lines)) < 120
    assert "  ... and 6990 more (-vv shows all)" in lines


def test_a_parameter_with_thousands_of_names_fits_one_row() -> None:
    names = tuple(f"cell{i}.weight" for i in range(4470))

    assert render([Finding(names, "no gradient", found="never used")], "RNN") == whole("""
        no gradient: cell0.weight, cell1.weight, cell2.weight, cell3.weight and 4466 more (RNN)

          cell0.weight, cell1.weight, cell2.weight, cell3.weight and 4466 more  never used
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

    assert render(findings, CONTROLS) == whole(rf"""
        {e}: {e}; p: ü.重み ({e})

          {e}:
            {e}  expected {e}, found {e}: {e}
          p:
            {e}  {e}

          hint: {e}
        """)
