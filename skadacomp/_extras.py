"""Packages that only some users need, and what to say where one is missing."""


def missing(package: str, what: str, extra: str) -> ImportError:
    """Make the error of a package that is not installed.

    Parameters
    ----------
    package : str
        Its name on PyPI.
    what : str
        What needs it.
    extra : str
        The extra that brings it.
    """
    return ImportError(
        f"{what} needs the package {package}, which is not installed: "
        f'pip install "skadacomp[{extra}]"'
    )
