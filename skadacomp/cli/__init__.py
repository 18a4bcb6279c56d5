"""The command line, ``skadacomp``: one module a command.

A command imports what it needs inside `run`, so that ``skadacomp info`` loads numpy alone and
``skadacomp --help`` nothing at all.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from skadacomp.cli import compare, compress, demo, info, predict, vectors
from skadacomp.cli._arguments import Parser

_EXAMPLES = """\
examples:
  skadacomp compress glove.6B.50d.txt --task train.tsv --max-bytes 100kB -o words.safetensors
  skadacomp info words.safetensors
  skadacomp compare words.safetensors glove.6B.50d.txt --task test.tsv --train train.tsv
  skadacomp vectors words.safetensors coffee tea

exit status: 0 done, 1 something is wrong with the input or the machine, 2 with the command line,
130 stopped by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        What follows the command's name; None takes it from the shell.

    Returns
    -------
    int
        Exit status: 0; 1 where the input, or something that the command needs, is wrong or
        missing, which stderr then says; 130 after Ctrl-C. A reader that closes the pipe early, as
        ``| head`` does, has had all that it wanted: 0.

    Raises
    ------
    SystemExit
        With status 2 where `arguments` are wrong, 0 after ``--help`` and ``--version``.
    """
    _speak_utf8()
    parsed = _parser().parse_args(arguments)
    try:
        with _warnings_in_brief():
            parsed.run(parsed)
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at the end; there it must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("skadacomp: stopped", file=sys.stderr)
        return 130
    except (ImportError, MemoryError, OSError, ValueError) as error:
        print(f"skadacomp: error: {_message(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from skadacomp import __version__

    parser = argparse.ArgumentParser(
        prog="skadacomp",
        description="Make word-embedding tables hundreds of times smaller for one task.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skadacomp {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    for command in (compress, info, vectors, predict, compare, demo):
        command.add_to(commands)
    return parser


def _speak_utf8() -> None:
    """Read and write UTF-8, whatever the locale is."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


@contextmanager
def _warnings_in_brief() -> Iterator[None]:
    """Show warnings as one line, without the source that raised them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"skadacomp: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _message(error: Exception) -> str:
    """Say what is wrong, and what its notes add."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return " ".join([text, *getattr(error, "__notes__", ())])
