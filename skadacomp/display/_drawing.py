"""What the displays share: new axes, a legend above them, and sizes in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skadacomp._extras import missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

FONT_SIZE = 9  # points


def new_axes(display: str) -> Axes:
    """Make a figure of 8 by 5 inches that leaves room for what is around its axes."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise missing("matplotlib", display, "plot") from error
    _, ax = pyplot.subplots(figsize=(8, 5), layout="constrained")
    return ax


def lay_out(ax: Axes) -> None:
    """Let the figure place its axes, so that sizes in pixels are known."""
    root = ax.figure.figure  # of a subfigure too
    root.draw_without_rendering()


def legend_above(ax: Axes, n_columns: int, handle_length: float = 1.0) -> Legend:
    """Put a legend above the axes, in as many columns as fit, `n_columns` at most.

    `handle_length`, in widths of the font, is that of the signs before the words.
    """
    lay_out(ax)
    for columns in range(n_columns, 0, -1):
        legend = ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=FONT_SIZE,
            borderaxespad=0.2,
            borderpad=0.2,
            handlelength=handle_length,
            handletextpad=0.4,
            columnspacing=1.0,
        )
        if legend.get_window_extent().width <= ax.get_window_extent().width:
            break
    return legend
