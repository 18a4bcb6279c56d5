"""``skadacomp demo``: GloVe compressed for BBC News."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from skadacomp.cli._arguments import Between, Commands, byte_count


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "demo",
        help="compress GloVe for BBC News and compare",
        description="Compress GloVe 6B 50d (400,000 words, 80 MB) for classifying BBC News from "
        "a few labelled documents; print accuracies and bytes beside a bag of words and the "
        "full-precision table; save the artifact and a picture.",
    )
    parser.add_argument(
        "--labels",
        type=Between(25, 2000),
        default=100,
        metavar="N",
        help="labelled documents to learn from, 25 to 2000 (default 100); all others test",
    )
    parser.add_argument(
        "--seeds",
        type=Between(1, 100),
        default=1,
        metavar="N",
        help="draws of the labelled documents (default 1); the table shows their mean",
    )
    parser.add_argument(
        "--max-bytes",
        type=byte_count,
        metavar="SIZE",
        help="budget of the compressed table, vocabulary included, such as 190kB; by default 500kB "
        "below 400 labels, for then many words that count were never seen, and else 190kB",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("skadacomp-demo"),
        metavar="FOLDER",
        help="where the artifact and the picture go (default skadacomp-demo)",
    )
    parser.set_defaults(run=run)


def run(parsed: Namespace) -> None:
    """Run the command."""
    from skadacomp._demo import default_budget
    from skadacomp._demo import run as run_demo

    run_demo(
        n_labels=parsed.labels,
        n_seeds=parsed.seeds,
        max_bytes=parsed.max_bytes or default_budget(parsed.labels),
        folder=parsed.output,
    )
