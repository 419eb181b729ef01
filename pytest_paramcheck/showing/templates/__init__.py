"""The templates of pages and notebook tables, and how they are filled: names always escaped.

``table.html`` is a table in a notebook. ``page.html`` is a page: ``page.css`` its looks, and the
scripts, in this order: ``model.js`` (the data, and what follows from it), ``draw.js`` (pictures),
``tree.js`` (the tree of modules), ``detail.js`` (one row in full), ``page.js`` (the sections).
``index.html`` lists several pages; ``base.html`` is what it and a page have in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

_SCRIPTS = ("model.js", "draw.js", "tree.js", "detail.js", "page.js")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """Return a template filled with these values."""
    return _environment().get_template(template).render(**values)


@cache
def _source(name: str) -> Markup:
    """A style or script of ours, as it stands."""
    return Markup((files(__name__) / name).read_text(encoding="utf-8"))


def page_html(data: Mapping[str, Any]) -> str:
    """Return the whole page of this data."""
    return render(
        "page.html",
        title=data["title"],
        model=data["model"],
        style=_source("page.css"),
        scripts=[_source(name) for name in _SCRIPTS],
        data=Markup(as_json(data)),
    )


def index_html(**values: Any) -> str:
    """Return the page that lists pages."""
    return render("index.html", title="Models", style=_source("page.css"), **values)


def frame_html(html: str) -> str:
    """Return a frame with a whole page in it, for a notebook."""
    return render("frame.html", page=html)


def as_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON that ends no script element, whatever names say."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
