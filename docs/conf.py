"""The site of these pages: `make docs` builds it into `out/docs`. Nothing is fetched, and a warning is an error."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from api_reference import markup, signature, write_pages  # noqa: E402

project = "optctl"
author = "The optctl authors"
release = metadata.version("optctl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # the default role: any name, term or expression in backquotes
    ("py:class", r".*"),  # annotations: other libraries' types, and such that are on no page
]
default_role = "py:obj"

autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 4
smartquotes = False  # a quote after a matrix is its transpose
suppress_warnings = ["myst.header"]  # results.md is made of parts that begin at the third level

html_theme = "furo"
html_title = "optctl"
html_static_path = ["style"]
html_css_files = ["wide.css"]
html_extra_path = ["llms.txt"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Any) -> None:
    write_pages(HERE / "api")
    app.connect("autodoc-process-docstring", markup)
    app.connect("autodoc-process-signature", signature)
