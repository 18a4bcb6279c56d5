"""``skadacomp predict``: classify texts with a frozen classifier. numpy alone."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from skadacomp.cli._arguments import Commands, add_json
from skadacomp.cli._files import open_shipped


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "predict",
        help="classify texts",
        description="Print the class of each text, a line each.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="what `skadacomp compress --classifier` or freeze wrote"
    )
    parser.add_argument(
        "texts", metavar="TEXT", nargs="*", help="default: the lines of stdin, one text each"
    )
    add_json(parser, "a list of the classes")
    parser.set_defaults(run=run)


def run(parsed: Namespace) -> None:
    """Run the command."""
    _, classifier = open_shipped(parsed.file)
    if classifier is None:
        raise ValueError(
            f"{parsed.file} holds words alone; `skadacomp compress --classifier` puts a classifier "
            "into the same file."
        )
    texts = parsed.texts or [line.rstrip("\r\n") for line in sys.stdin]
    classes = classifier.predict(texts).tolist() if texts else []
    if parsed.json:
        print(json.dumps(classes, ensure_ascii=False))
    else:
        print(*classes, sep="\n", end="\n" if classes else "")
