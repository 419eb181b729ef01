"""How Sphinx builds the documentation: ``tox run -e docs``, without network."""

from __future__ import annotations

import os
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import pytest_paramcheck
from pytest_paramcheck import CHECKS

project = "pytest-paramcheck"
release = version = pytest_paramcheck.__version__
copyright = "the pytest-paramcheck contributors"  # noqa: A001 - Sphinx's name for it
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
html_theme = "furo"
html_title = f"pytest-paramcheck {release}"
html_static_path = ["_static"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # included parts of README.md begin below their title
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# What the docs say of torch and pytest links there, where the inventories may be fetched: a build
# without network has the same pages without those links.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "pytest": ("https://docs.pytest.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
    if os.environ.get("DOCS_INTERSPHINX")
    else {}
)


class WholeModelChecks(SphinxDirective):
    """Each registered whole-model check with the docstring of its function."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for name, check in CHECKS.items():
            said = (check.run.__doc__ or check.summary).strip().splitlines()
            lines += [f".. py:data:: pytest_paramcheck.CHECKS['{name}']", "   :no-index:", ""]
            lines += ["   " + line.strip() for line in said] + [""]
        return self.parse_text_to_nodes(StringList(lines, source="CHECKS"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("whole-model-checks", WholeModelChecks)
    return {"parallel_read_safe": True}
