"""A page in a browser: search, sort, fold, keyboard, screen readers, printing, and its size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import param_page

from .browser import Browser
from .models import Deep, Transformer

ROWS = "#grid .space .row"
LABELS = f"{ROWS} .label"
SIZES = {"light": (1400, "light"), "dark": (1400, "dark"), "phone": (390, "light")}


def search(page: Browser, text: str) -> None:
    [field] = page.all("#search")
    field.clear()
    field.send_keys(text)


def click(page: Browser, selector: str, text: str = "") -> None:
    [element] = [e for e in page.all(selector) if text in e.text]
    page.run("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)


@pytest.mark.parametrize("looks", SIZES)
@pytest.mark.parametrize("model", ["mlp", "transformer", "resnet"])
def test_each_page_is_drawn(
    request: pytest.FixtureRequest, page: Browser, pictures: Path, model: str, looks: str
) -> None:
    width, theme = SIZES[looks]
    page.looks(width, theme=theme)
    page.open(request.getfixturevalue(f"{model}_page"))

    assert page.run("return document.documentElement.scrollWidth") == width  # nothing hangs out
    assert page.run("return document.documentElement.dataset.drawn") == ""
    dark = page.run("return getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(20, 23, 27)") is (theme == "dark")
    page.picture(pictures / f"{model}-{looks}.png")


def test_what_is_said_at_a_glance(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)

    assert page.texts("h1") == ["Transformer, 12 layers"]
    assert page.texts("#headline") == [
        "Transformer · 636,032 elements in 148 parameters · all trainable · 1 buffer · 2.56 MB · "
        "float32 on cpu"
    ]
    assert page.texts(".card") == [
        "12 parameters without a gradient",
        "1 tied parameter",
        "1 buffer",
    ]
    assert page.texts("#losses td") == ["all 1"] * 4 + ["132 of 144"] * 2 + ["all 2"] * 2
    assert page.texts("#groups tbody th") == [
        "0: AdamW lr 0.0003, weight_decay 0.1",
        "1: AdamW lr 0.0003, weight_decay 0",
    ]
    assert page.texts("#ties li") == ["wte.weight = lm_head.weight"]
    assert len(page.all("#order .arc")) == 2  # one in the picture, one in the legend


def test_a_card_shows_what_it_counts(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)

    click(page, "button.card", "without a gradient")

    assert page.texts("#count") == ["12 of 149 parameters and buffers"]
    labels = page.texts(LABELS)
    assert labels[:4] == ["Transformer", "h", "7", "ln_1"]
    assert len(labels) == 2 + 1 + 12 + 7  # the way to the block, its parameters and modules
    assert page.texts(f"{ROWS}.parameter .badge.dead") == ["no gradient"] * 12


def test_search_finds_names_classes_and_second_names(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)

    search(page, "h.3 weight")
    assert page.texts("#count") == ["6 of 149 parameters and buffers"]
    search(page, "layernorm 7.")
    assert page.texts("#count") == ["4 of 149 parameters and buffers"]
    search(page, "lm_head")
    assert page.texts(LABELS) == ["Transformer", "wte", "weight"]
    search(page, "no such name")
    assert page.texts("#count") == ["0 of 149 parameters and buffers"]
    assert page.texts("#grid .empty") == ["Nothing matches."]
    page.press("\ue00c")  # Escape
    assert page.texts("#count") == ["149 parameters and buffers"]


def test_sorting_as_a_list(page: Browser, mlp_page: Path) -> None:
    page.open(mlp_page)
    click(page, "#view")

    def column(name: str) -> list[str]:
        return page.texts(f"{ROWS} .cell.{name}")

    assert page.texts(LABELS) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    click(page, ".head .elements button")
    assert column("elements") == ["32", "8", "8", "1"]
    assert page.run("return document.querySelector('.head .elements').ariaSort") == "descending"
    click(page, ".head .elements button")
    assert column("elements") == ["1", "8", "8", "32"]
    click(page, ".head .elements button")
    assert page.texts(LABELS) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    click(page, ".head .name button")
    assert page.texts(LABELS) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    click(page, ".head .grad button")
    norms = [float(text) for text in column("grad")]
    assert norms == sorted(norms, reverse=True)


def test_folding(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)
    assert page.texts(LABELS)[:6] == ["Transformer", "mask", "wte", "weight", "wpe", "weight"]

    click(page, "#collapse")
    assert page.texts(LABELS) == ["Transformer", "mask", "wte", "wpe", "h", "ln_f"]
    click(page, f"{ROWS}:nth-child(3) .fold")
    assert page.texts(LABELS) == ["Transformer", "mask", "wte", "weight", "wpe", "h", "ln_f"]
    click(page, f"{ROWS}:nth-child(3) .fold")
    assert page.texts(LABELS) == ["Transformer", "mask", "wte", "wpe", "h", "ln_f"]
    click(page, "#expand")
    assert page.run("return document.getElementById('grid').ariaRowCount") == str(149 + 101 + 1)


def test_the_keyboard_is_enough(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)
    click(page, "#collapse")
    down, up, right, left, end, enter = "\ue015", "\ue013", "\ue014", "\ue012", "\ue010", "\ue007"

    def active() -> tuple[str, Any]:
        return tuple(
            page.run(
                "const row = document.getElementById("
                "  document.getElementById('grid').getAttribute('aria-activedescendant'));"
                "return [row.querySelector('.label').textContent, row.ariaExpanded]"
            )
        )

    page.press("/", "ln_f", enter)
    assert page.run("return document.activeElement.id") == "grid"
    assert active() == ("weight", None)
    assert page.texts("#detail h3") == ["ln_f.weight"]
    page.press(left)
    assert active() == ("ln_f", "true")
    page.press("\ue00c", "\ue011")  # Escape, Home
    assert active() == ("Transformer", "true")
    page.press(end, up)
    assert active() == ("h", "false")
    page.press(right)
    assert active() == ("h", "true")
    page.press(right, right, down)
    assert active() == ("ln_1", "false")
    page.press(right, right)
    assert active() == ("weight", None)
    assert page.texts("#detail h3") == ["h.0.ln_1.weight"]
    page.press(left, left, left)
    assert active() == ("0", "true")
    page.press(enter)
    assert active() == ("0", "false")


def test_the_charts_by_keyboard(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)
    right, home, enter = "\ue014", "\ue011", "\ue007"

    page.run("document.querySelector('#depth svg').focus()")
    page.press(home, right, right)
    assert page.texts("#depth .said")[0].startswith("h.0.ln_1.weight: ")
    page.press(enter)
    assert page.texts("#detail h3") == ["h.0.ln_1.weight"]
    assert page.texts(f"{ROWS}.active .label") == ["weight"]
    labels = page.run(
        "return [...document.querySelectorAll('#depth svg')].map((svg) => svg.ariaLabel)"
    )
    assert labels == [
        "Gradient norm: 136 parameters, 12 without. Arrow keys go through them, Enter shows one.",
        "Update ratio: 91 parameters. Arrow keys go through them, Enter shows one.",
    ]


def test_one_row_in_full(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)

    click(page, "#ties .link")

    said = page.texts("#detail")[0]
    assert said.startswith("wte.weight shape 500x64 float32 on cpu elements 32,000, 128 kB")
    assert "by loss next token: nonzero z-loss: nonzero" in said
    assert "one parameter with lm_head.weight" in said
    assert "0: AdamW lr 0.0003, weight_decay 0.1" in said
    assert len(page.all("#detail .histogram")) == 2


def test_what_is_wrong_with_a_resnet(page: Browser, resnet_page: Path) -> None:
    page.open(resnet_page)

    assert page.texts(".card") == [
        "1 parameter with NaN or infinity",
        "9 in no optimizer group",
        "278 differ from the given tensors",
        "35 frozen",
        "159 buffers",
    ]
    assert page.texts("#groups .note li") == [
        f"layer4.2.{name}"
        for n in (1, 2, 3)
        for name in (f"conv{n}.weight", f"bn{n}.weight", f"bn{n}.bias")
    ]
    assert page.texts("#compared p")[0].startswith("The values of 278 of 320 tensors differ.")
    click(page, "button.card", "NaN")
    assert page.texts(f"{ROWS}.parameter .badge") == ["1 not finite", "frozen", "values"][:2]


def test_what_differs_from_another_model(page: Browser, tmp_path: Path) -> None:
    before, after = Transformer(layers=2), Transformer(layers=3)
    after.load_state_dict(before.state_dict(), strict=False)
    after.lm_head.weight = nn.Parameter(after.wte.weight.detach().clone())
    after.wpe = nn.Embedding(128, 64)
    after.ln_f.requires_grad_(False)
    with torch.no_grad():
        after.h[0].ln_1.weight *= 1.5
    path = tmp_path / "compared.html"
    param_page(after, path, before=before)

    page.open(path)

    assert page.texts("#compared h2") == ["Compared with another Transformer"]
    assert page.texts("#compared p")[0].startswith("The values of 1 of 42 tensors differ.")
    assert page.texts("#compared summary") == [
        "1 shape changed",
        "12 added",
        "2 requires_grad changed",
        "1 tie changed",
    ]
    assert page.texts("#compared li")[:2] == ["h.0.ln_1.weight 0.5", "wpe.weight 64x64 -> 128x64"]
    click(page, "#compared .link", "wpe")
    assert page.texts("#detail h3") == ["wpe.weight"]
    assert page.texts("#detail .note") == ["shape: 64x64 -> 128x64"]
    assert page.texts(f"{ROWS}.active .badge") == ["shape changed"]
    click(page, "button.card", "differ")
    assert page.texts("#count") == ["17 of 42 parameters and buffers"]


def test_a_model_that_is_not_run(page: Browser, tmp_path: Path) -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    path = tmp_path / "still.html"
    param_page(nn.ModuleDict({"first": block, "second": block, "last": nn.Linear(2, 2)}), path)

    page.open(path)

    assert page.texts("#glance .hint") == [
        "Nothing was run, so no gradients are shown: inputs= and loss= ask for them."
    ]
    assert page.all("#depth") == page.all("#losses") == page.all("#groups") == []
    assert page.texts("#ties li") == ["first = second (4 parameters)"]
    assert page.texts(".head .cell") == ["name", "shape", "elements", "size", "state", "values"]


FOCUSED = """
    const e = document.activeElement, look = getComputedStyle(e), box = e.getBoundingClientRect();
    if (e === document.body) return ["", true];
    const within = box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.left >= 0;
    return [(e.closest("[id]") || {id: e.className}).id,
            within && look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2];
    """


def test_every_stop_of_the_tab_key_is_seen(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)
    stops = []
    for _ in range(100):
        page.press("\ue004")
        where, seen = page.run(FOCUSED)
        if not where:
            break
        assert seen, where
        stops.append(where)

    assert stops == [
        *("skip", "glance", "glance", "glance", "depth", "depth"),
        *("search", "view", "expand", "collapse", *["filters"] * 5),
        *["grid"] * 10,  # the rows are one stop, each column can be sorted
        *["losses"] * 4,
        "ties",
    ]


def test_sorting_and_filtering_by_keyboard_keep_the_focus(
    page: Browser, transformer_page: Path
) -> None:
    page.open(transformer_page)
    enter, space = "\ue007", " "

    page.run("document.querySelector('.head .elements button').focus()")
    page.press(enter)
    assert page.run("return document.activeElement.textContent") == "elements ↓"
    page.press(enter)
    assert page.run("return document.activeElement.textContent") == "elements ↑"
    page.run("document.querySelector('#filters button').focus()")
    page.press(space)
    assert page.run("return document.activeElement.ariaPressed") == "true"
    assert page.texts("#count") == ["12 of 149 parameters and buffers"]
    page.press(space)
    assert page.run("return document.activeElement.ariaPressed") == "false"
    assert page.texts("#count") == ["149 parameters and buffers"]


def test_nothing_moves_by_itself(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)

    assert page.run("return document.getAnimations().length") == 0
    assert (
        page.run(
            "return [...document.querySelectorAll('*')].filter((e) => {"
            "  const look = getComputedStyle(e);"
            "  return parseFloat(look.transitionDuration) || look.animationName !== 'none'"
            "    || look.scrollBehavior !== 'auto';"
            "}).length"
        )
        == 0
    )


NAMES = (
    "</script><img src=x onerror='alert(1)'><b>",
    "\"quotes\" & 'more' &amp; <!--",
    "\u0645\u0631\u062d\u0628\u0627 \u0628",
    "\U0001f916 robot",
    " ".join(["a name with spaces"] * 9),
)


@pytest.mark.parametrize("evil", NAMES)
def test_names_are_texts(page: Browser, tmp_path: Path, evil: str) -> None:
    model = nn.Module()
    model.add_module(evil, nn.Linear(1, 1))
    path = tmp_path / "evil.html"
    param_page(model, path, title=evil)

    page.open(path)

    assert page.texts("h1") == [evil]
    assert page.texts(LABELS) == ["Module", evil, "weight", "bias"]
    click(page, f"{ROWS}.parameter .label", "weight")
    assert page.texts("#detail h3") == [f"{evil}.weight"]
    assert page.driver.title == f"{evil}: parameters"
    assert page.all("img") == page.all("b") == []


def test_everything_that_is_used_has_a_name_and_a_role(page: Browser, resnet_page: Path) -> None:
    page.open(resnet_page)

    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    nameless = {
        node["role"]["value"]
        for node in tree
        if not node.get("ignored") and not node.get("name", {}).get("value")
    }
    used = {"button", "searchbox", "image", "treegrid", "region", "columnheader", "heading"}
    assert nameless & used == set()
    roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
    assert {"treegrid", "searchbox", "status", "banner", "main", "contentinfo"} <= {*roles}
    assert page.run("return document.documentElement.lang") == "en"


def contrast(page: Browser, selector: str) -> float:
    """The least contrast of a text of this kind to what is behind it (WCAG 2)."""
    return float(
        page.run(
            """
            const light = (color) => {
              const [r, g, b] = color.match(/[0-9.]+/g).map((v) => v / 255)
                .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
              return .2126 * r + .7152 * g + .0722 * b;
            };
            const behind = (e) => {
              const color = getComputedStyle(e).backgroundColor;
              return color.endsWith(", 0)") ? behind(e.parentElement) : color;
            };
            return Math.min(...[...document.querySelectorAll(arguments[0])].map((e) => {
              const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            }));
            """,
            selector,
        )
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "selector", [".badge", ".hint", ".note", ".card span", ".label", ".head button", "dt", ".link"]
)
def test_texts_can_be_read(page: Browser, resnet_page: Path, theme: str, selector: str) -> None:
    page.looks(theme=theme)
    page.open(resnet_page)

    assert contrast(page, selector) >= 4.5


def test_what_is_printed(page: Browser, transformer_page: Path) -> None:
    page.open(transformer_page)
    click(page, "#expand")

    page.looks(800)
    page.media("print")
    page.run("dispatchEvent(new Event('beforeprint'))")

    assert len(page.all(ROWS)) == 149 + 101
    assert page.all("#tools") == page.all("#detail") == []
    for side in ("Height", "Width"):  # nothing is cut
        assert page.run(f"return document.getElementById('grid').scroll{side}") == page.run(
            f"return document.getElementById('grid').client{side}"
        )
    page.media("screen")
    page.run("dispatchEvent(new Event('afterprint'))")
    assert len(page.all(ROWS)) < 60


def test_on_a_phone_a_row_opens_from_below(page: Browser, transformer_page: Path) -> None:
    page.looks(390, 844)
    page.open(transformer_page)
    assert page.all("#detail") == []

    click(page, f"{ROWS}:nth-child(4) .label")

    assert page.texts("#detail h3") == ["wte.weight"]
    click(page, "#detail .close")
    assert page.all("#detail") == []
    assert page.texts(".head .cell") == ["name", "elements", "state"]


def test_twenty_thousand_parameters(page: Browser, tmp_path: Path) -> None:
    model = Deep()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    path = tmp_path / "deep.html"
    param_page(model, path)
    assert path.stat().st_size < 5_000_000

    page.open(path)

    click(page, "#expand")
    assert page.run("return document.querySelectorAll('.row').length") < 80
    search(page, "stages.39 gate")
    assert page.texts("#count") == ["100 of 20,000 parameters"]
    click(page, "#view")
    page.run("document.getElementById('grid').scrollTop = 1e9")
    deadline = time.monotonic() + 10
    while "stages.39.49.gate.bias" not in page.texts(LABELS) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert page.texts(LABELS)[-1] == "stages.39.49.gate.bias"
