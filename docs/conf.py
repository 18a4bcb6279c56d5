"""Sphinx configuration."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for news_classifier

os.environ["TQDM_DISABLE"] = "1"  # no progress bars in the gallery's output

project = "skadacomp"
author = "skadacomp developers"
copyright = "2026, skadacomp developers"
version = release = installed_version("skadacomp")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "myst_parser",  # for the tables that the benchmarks write
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "benchmarks",  # pages include what it holds
    "examples",  # the gallery writes auto_examples/ from it
]

# API pages: one for each public name, its own methods with it.
autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # numpydoc's sections give the types
numpydoc_show_class_members = False  # the class template lists them
numpydoc_validation_checks = {"GL08", "PR01", "PR02", "PR03", "PR04", "PR07"}

# Nothing is fetched at build time, so names of other packages stay plain text.
nitpick_ignore_regex = [
    (r"py:.*", rf"{package}(\..*)?")
    for package in ("gensim", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch")
]

# The code in the pages is tested with `-b doctest`, the examples in the docstrings by pytest.
doctest_test_doctest_blocks = ""

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "doc_module": ("skadacomp",),
    "backreferences_dir": "generated/backreferences",  # for the cards of examples in pages
    "download_all_examples": False,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skadacomp"
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": False,
}
html_static_path = ["_static", "../skadacomp/skadacomp.js"]
html_css_files = ["skadacomp.css"]
html_sidebars = {"*": []}  # beside pages of the first level there would be an empty one
html_show_sourcelink = False
smartquotes = False  # a default in quotes can be copied

# `-b linkcheck` needs the net, so it is an environment of tox of its own: `tox -e links`.
linkcheck_timeout = 20  # seconds
linkcheck_retries = 3
linkcheck_anchors_ignore_for_url = [r"https://github\.com/"]  # scripts put these anchors there


def make_news_classifier(app):
    """Make what the page "In the browser" runs, if it is not there from an earlier build."""
    static = Path(app.outdir, "_static")
    facts = static / "news.json"  # the last that is written
    if app.builder.format == "html" and not facts.exists():
        from news_classifier import write

        static.mkdir(parents=True, exist_ok=True)
        write(static / "news.safetensors", facts)


def setup(app):
    app.connect("builder-inited", make_news_classifier)
