"""Sphinx settings; `make docs` builds with warnings as errors."""

import deepspec

project = "deepspec"
author = "the deepspec authors"
copyright = "2026, the deepspec authors. GPL-3.0-or-later"
version = release = deepspec.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

# Shapes and units stand in the text of a parameter; the signature shows its kind.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "deepspec"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
