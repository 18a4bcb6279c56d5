"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write, which takes its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        A former file of that name is replaced; where something fails, it stays as it was.

    Notes
    -----
    A process that is killed outright leaves its unfinished file, ``.<name>.<8 digits>.tmp``, beside
    the former one. It may be removed.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        # A full disk names no file, and a folder that refuses one names the temporary one.
        unnamed = error.filename in (None, temporary, str(temporary))
        if unnamed and error.filename2 is None and error.errno is not None:
            error.filename = str(target)
        raise
    finally:
        with suppress(OSError):  # it is not there, or there is worse to tell
            temporary.unlink()
