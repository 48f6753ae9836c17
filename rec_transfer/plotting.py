"""Draw arrays on matplotlib axes, in one style that colour-blind readers can use. No model is known here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike

# Okabe and Ito (2008): eight colours that stay apart under the common colour-vision deficiencies.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.figsize": (6.4, 3.6),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def use_style() -> None:
    """Set the series' style for every figure made afterwards."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)})


def save(figure: "Figure", name: str) -> Path:
    """Write a figure as PNG and return its path, in the folder ``$REC_TRANSFER_FIGURES`` or else ``build/figures``."""
    folder = Path(os.environ.get("REC_TRANSFER_FIGURES", "../build/figures"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, metadata={"Software": None})  # same figure, same bytes on every version
    return path


def intervals(
    axes: "Axes",
    names: Sequence[str],
    means: "ArrayLike",
    lows: "ArrayLike",
    highs: "ArrayLike",
    *,
    colours: Mapping[str, str] | None = None,
) -> "Axes":
    """Draw one dot with its interval per name, the first at the top; return the axes."""
    heights = np.arange(len(names))[::-1]
    for height, name, mean, low, high in zip(heights, names, *map(np.asarray, (means, lows, highs)), strict=True):
        colour = (colours or {}).get(name, COLOURS[0])
        axes.plot([low, high], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(mean, height, "o", color=colour)
    axes.set_yticks(heights, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    return axes


def groups(
    axes: "Axes", labels: Sequence[str], series: Mapping[str, tuple], *, colours: Mapping[str, str] | None = None
) -> "Axes":
    """Draw means with intervals per group, one line per name, slightly shifted; return the axes.

    Args:
        axes: to draw on.
        labels: names of the groups.
        series: ``name -> (means, lows, highs)``.
        colours: of the names.
    """
    positions = np.arange(len(labels))
    for number, (name, (means, lows, highs)) in enumerate(series.items()):
        shift = 0.08 * (number - (len(series) - 1) / 2)
        errors = np.abs(np.array([np.subtract(means, lows), np.subtract(highs, means)]))
        colour = (colours or {}).get(name, COLOURS[number])
        axes.errorbar(positions + shift, means, errors, fmt="o-", capsize=3, color=colour, label=name)
    axes.set_xticks(positions, labels)
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    return axes


def scatter(
    axes: "Axes", points: np.ndarray, *, colour_by: np.ndarray | None = None, label: str | None = None
) -> "PathCollection":
    """Draw points [n, 2], coloured by a number per point if given, with equal units on both axes; return the artist."""
    colours: dict[str, Any] = {} if colour_by is None else {"c": colour_by, "cmap": "cividis"}
    artist = axes.scatter(points[:, 0], points[:, 1], s=10, alpha=0.8, label=label, **colours)
    axes.set_aspect("equal", "datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    return artist


def curves(
    axes: "Axes",
    series: Mapping[str, np.ndarray],
    *,
    x: "ArrayLike | None" = None,
    xlabel: str = "epoch",
    ylabel: str = "nats per user",
) -> "Axes":
    """Draw one line per name over epochs (or over ``x``); return the axes."""
    for name, values in series.items():
        axes.plot(np.arange(1, len(values) + 1) if x is None else x, values, label=name)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend()
    return axes


def matrix(axes: "Axes", values: np.ndarray, *, rows: str, columns: str, symmetric: bool = True) -> "AxesImage":
    """Draw a matrix as an image, white at zero if ``symmetric``; return the image."""
    limit = np.nanmax(np.abs(values))
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if symmetric else {"cmap": "cividis"}
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **colours)
    axes.set_ylabel(rows)
    axes.set_xlabel(columns)
    return image
