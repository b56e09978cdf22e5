"""Settings of the documentation build: ``make docs``."""

import regproxy

project = "regproxy"
author = "The regproxy authors"
project_copyright = "2026, The regproxy authors"
version = release = regproxy.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "**/_*.md"]  # files that begin with "_" are included by others
nitpicky = True

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# A typographer's quotes would end up in commands that people copy.
smartquotes = False

html_theme = "furo"
html_title = f"regproxy {release}"
html_copy_source = False
