"""Sphinx configuration of the documentation; `make docs` builds it without network, and every warning is an error.

The pages of `configuration/` come from the configuration's dataclasses (`tltrain.entry.reference`) and are written
anew by each build. Formulas become MathML, which browsers show without a script.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from tltrain.entry import reference

HERE = Path(__file__).parent
CONFIGURATION = HERE / "configuration"

project = "tltrain"
author = "tltrain contributors"
copyright = author
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = ["myst_parser"]
exclude_patterns = ["_static", "images"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"tltrain {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False


def write_configuration_pages(app: Sphinx, config: Any) -> None:
    """Write the pages of `configuration/`; only those that have changed, so that builds stay short."""
    pages = reference.markdown()
    CONFIGURATION.mkdir(exist_ok=True)
    for file in CONFIGURATION.glob("*.md"):
        if file.name not in pages:
            file.unlink()
    for name, text in pages.items():
        file = CONFIGURATION / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def outside_pages_as_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links to Markdown files of the repository that are no pages here to a copy of the file."""
    folder = (HERE / page).parent

    def link(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        return found[0] if target.is_relative_to(HERE) or not target.is_file() else f"](path:{found[1]})"

    source[0] = re.sub(r"\]\(([^():#]+\.md)(?:#[^()]*)?\)", link, source[0])


def inline_formula(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.connect("config-inited", write_configuration_pages)
    app.connect("source-read", outside_pages_as_files)
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
