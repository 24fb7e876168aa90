"""Names beside points and line ends, moved up and down until none is over another or a point.

A thin line leads from a name that was moved to its place. Knows no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SIZE = 7.5  # of a label, in points
LINE = 9.0  # what a label takes, in points
POINT = 3.0  # half of what a point takes
GAP = 2.0  # between a point and its name
_LEADER = {"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}


def spread_labels(
    axes: Any, places: Mapping[str, tuple[float, float, str]], bold: str = "", *, ends: bool = False
) -> None:
    """Write each name right of its place.

    Args:
        places: name -> x, y (data), colour.
        bold: a name that stands out.
        ends: whether the places are ends of lines: then all names share one column.
    """
    axes.figure.draw_without_rendering()  # settles the limits that places are measured in
    scale = 72 / axes.figure.dpi
    found = {
        name: tuple(scale * part for part in axes.transData.transform((x, y)))
        for name, (x, y, _) in places.items()
    }
    width = 0.62 * SIZE
    # What a name would hide, or be hidden by: left, right, height
    taken = [] if ends else [(x - POINT, x + POINT, y) for x, y in found.values()]
    for name in sorted(found, key=lambda name: -found[name][1]):
        x, y = found[name]
        left = (max(place[0] for place in found.values()) if ends else x) + POINT
        right = left + GAP + width * len(name)
        height = _free(y, [at for begin, end, at in taken if begin < right and left < end])
        taken.append((left, right, height))
        moved = abs(height - y) > LINE / 2
        axes.annotate(
            name,
            places[name][:2],
            xytext=(left - x + GAP, height - y),
            textcoords="offset points",
            va="center",
            fontsize=SIZE,
            color=places[name][2],
            fontweight="bold" if name == bold else "normal",
            annotation_clip=False,
            arrowprops=_LEADER if moved else None,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )


def _free(height: float, taken: Sequence[float]) -> float:
    """The place nearest to `height` that keeps a line's distance to all that is taken."""
    free = [height, *(at + side * LINE for at in taken for side in (1, -1))]
    fitting = [at for at in free if all(abs(at - other) > LINE - 1e-6 for other in taken)]
    return min(fitting, key=lambda at: abs(at - height))
