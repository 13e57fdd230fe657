"""Figures as inline SVG: sharp at any size, selectable text, and colours that follow the page into dark mode.

Matplotlib draws them on its Agg-family backends, without a display. Text, axes and grid carry the page's own
colours (`currentColor` and CSS variables); series have one palette that reads on white and on black and stays apart
for colour-blind eyes (after Okabe and Ito, lightness brought to the middle).
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NewType

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NewType("Image", str)
"""An `<svg>` element, ready to stand in a page."""

PALETTE = ("#3d85c6", "#d9771a", "#2e9b78", "#c9528b", "#8a70c9", "#a3901f", "#5f9fb8", "#b3604a")
_INK, _GRID = "#010203", "#040506"  # stand-ins, replaced by the page's colours in the finished SVG
_WIDTH, _HEIGHT = 7.6, 3.5  # inches
_NARROW = 6.2  # inches; such a figure shrinks to a phone's width, where wider ones are scrolled
_PIXELS_PER_INCH = 108  # fills the page's column with a figure of _WIDTH; narrower ones keep the size of their text

Points = Sequence[tuple[float, float]]


def _figure(width: float = _WIDTH, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.tick_params(colors=_INK, length=0, labelsize=9, pad=5)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _finish(figure: Figure, axes: Axes, xlabel: str, ylabel: str) -> Image:
    axes.set_xlabel(xlabel, color=_INK, fontsize=9.5, labelpad=6)
    axes.set_ylabel(ylabel, color=_INK, fontsize=9.5, labelpad=6)
    return _svg(figure)


def _svg(figure: Figure) -> Image:
    import matplotlib as mpl

    stream = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": ["sans-serif"]}
    with mpl.rc_context(settings):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[a-z]+(?:[._][a-zA-Z0-9]+)*_\d+">', "<g>", text)  # the ids would repeat within a page
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>f{mark}-", text)
    text = text.replace(_INK, "currentColor").replace(_GRID, "var(--grid, #8886)")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ?([^>]*?)width="[^"]*"', r"<svg \1\2", text, count=1)
    wide = round(figure.get_figwidth() * _PIXELS_PER_INCH)
    text = text.replace("<svg ", f'<svg style="max-width: {wide}px" ', 1)
    return Image(text.strip())


def _label_series(axes: Axes, count: int) -> None:
    if count > 1:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=min(count, 5),
            frameon=False,
            labelcolor=_INK,
            fontsize=9,
            borderaxespad=0.2,
            handlelength=1.4,
            columnspacing=1.4,
        )


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving mean with α = 2 / (span + 1), corrected for its start; span 1 changes nothing."""
    alpha = 2 / (span + 1)
    total = weight = 0.0
    result = []
    for value in values:
        total = (1 - alpha) * total + alpha * value
        weight = (1 - alpha) * weight + alpha
        result.append(total / weight)
    return result


def line_chart(
    series: Mapping[str, Points],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    *,
    smooth: int | None = None,
    lines: Mapping[str, float] | None = None,
) -> Image:
    """Curves over a common axis.

    Args:
        series: name → (x, y) points in order of x; points that are not finite (or not positive, if `log`) are
            left out.
        xlabel, ylabel: what the axes show, with the unit.
        log: logarithmic y axis.
        smooth: span of the moving mean, in points, drawn over the pale raw curve; None takes a fortieth of a
            series that has more than 60 points and leaves shorter ones alone, 1 never smooths.
        lines: name → y of a horizontal reference, e.g. a threshold.

    Raises:
        TrainerError: no series has a point to show.
    """
    shown = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]
        for name, points in series.items()
    }
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        raise TrainerError(f"nothing to plot: no finite point for {ylabel!r}")
    figure, axes = _figure()
    for number, (name, points) in enumerate(shown.items()):
        colour = PALETTE[number % len(PALETTE)]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        span = smooth if smooth is not None else (max(len(points) // 40, 3) if len(points) > 60 else 1)
        if span > 1:
            axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.3)
        dots = "o" if len(points) <= 12 else ""
        axes.plot(xs, smoothed(ys, span), color=colour, linewidth=1.9, label=name, marker=dots, markersize=4)
    for name, y in (lines or {}).items():
        _reference(axes, name, y)
    if log:
        axes.set_yscale("log")
        from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, StrMethodFormatter

        lowest = min(y for points in shown.values() for _, y in points)
        wide = max(y for points in shown.values() for _, y in points) / lowest > 1e5
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(LogFormatterSciNotation() if wide else StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
    axes.margins(x=0.015)
    _label_series(axes, len(shown))
    return _finish(figure, axes, xlabel, ylabel)


def _reference(axes: Axes, name: str, y: float) -> None:
    axes.axhline(y, color=_INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.75, zorder=1.5)
    axes.annotate(
        name,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=_INK,
    )


def bar_chart(
    groups: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    errors: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
    *,
    ylabel: str = "",
    limits: tuple[float, float] | None = None,
    lines: Mapping[str, float] | None = None,
) -> Image:
    """Groups of bars, one bar per series, with intervals.

    Args:
        groups: names along the x axis.
        values: series → one value per group; None where it does not apply (drawn as "n/a").
        errors: series → (low, high) bounds per group, in the units of the values, not as distances.
        ylabel: what the bars measure, with the unit.
        limits: range of the y axis, e.g. (-1, 1); None fits the data.
        lines: name → y of a horizontal reference, e.g. a threshold.

    Raises:
        TrainerError: there is no group or no series, or a series does not have one value per group.
    """
    if not groups or not values or any(len(row) != len(groups) for row in values.values()):
        lengths = ", ".join(f"{name}: {len(row)}" for name, row in values.items()) or "no series"
        raise TrainerError(f"nothing to plot: {len(groups)} groups, but values for {lengths}")
    figure, axes = _figure()
    width = 0.78 / len(values)
    for number, (name, row) in enumerate(values.items()):
        colour = PALETTE[number % len(PALETTE)]
        places = [index + (number - (len(values) - 1) / 2) * width for index in range(len(groups))]
        axes.bar(places, [value or 0 for value in row], width * 0.92, color=colour, label=name)
        bounds = (errors or {}).get(name) or [None] * len(groups)
        for place, value, bound in zip(places, row, bounds, strict=True):
            low, high = bound or (value or 0, value or 0)
            if value is not None and bound is not None:
                axes.plot([place, place], [low, high], color=_INK, linewidth=1.3, solid_capstyle="butt", alpha=0.9)
            up = value is None or value >= 0
            axes.annotate(
                _figures(value),
                (place, high if up else low),
                xytext=(0, 3 if up else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
                fontsize=8 if len(values) * len(groups) <= 12 else 7.2,
                color=_INK,
            )
    for name, y in (lines or {}).items():
        _reference(axes, name, y)
    axes.axhline(0, color=_INK, linewidth=0.8, alpha=0.6)
    axes.set_xticks(range(len(groups)), groups)
    if limits:
        axes.set_ylim(*limits)
    else:
        axes.margins(y=0.14)
    _label_series(axes, len(values))
    return _finish(figure, axes, "", ylabel)


def interval_chart(
    rows: Mapping[str, tuple[float, float, float]],
    xlabel: str = "",
    *,
    marks: Mapping[str, Mapping[str, float]] | None = None,
    wanted: Mapping[str, float] | None = None,
    line: tuple[str, float] | None = None,
) -> Image:
    """One row per figure: a dot at the mean on a bar from the lower to the upper bound.

    Args:
        rows: name → (mean, low, high), first on top.
        xlabel: what the axis shows, with the unit.
        marks: name of a mark → row → x, e.g. the floor of each figure; rows without one are left out.
        wanted: row → x of its threshold, a vertical stroke.
        line: name and x of a vertical reference through all rows.

    Raises:
        TrainerError: there is no row.
    """
    if not rows:
        raise TrainerError(f"nothing to plot: no interval for {xlabel!r}")
    figure, axes = _figure(_NARROW, 1.25 + 0.42 * len(rows))
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    places = {name: len(rows) - 1 - number for number, name in enumerate(rows)}
    for name, (mean, low, high) in rows.items():
        y = places[name]
        axes.plot([low, high], [y, y], color=PALETTE[0], linewidth=5, alpha=0.45, solid_capstyle="butt")
        axes.plot(
            [mean], [y], "o", color=PALETTE[0], markersize=7, label="measured, with its interval" if not y else ""
        )
        axes.annotate(
            _figures(mean), (mean, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8.5, color=_INK
        )
    for number, (mark, values) in enumerate((marks or {}).items()):
        known = [(x, places[name]) for name, x in values.items()]
        xs, ys = [x for x, _ in known], [y for _, y in known]
        axes.plot(xs, ys, "vD^s"[number % 4], color=PALETTE[1 + number], markersize=6, linestyle="none", label=mark)
    for number, (name, x) in enumerate((wanted or {}).items()):
        y = places[name]
        label = "wanted" if not number else ""
        axes.plot([x, x], [y - 0.32, y + 0.32], color=_INK, linewidth=2, label=label)
    if line is not None:
        name, x = line
        axes.axvline(x, color=_INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.75, zorder=1.5, label=name)
    axes.set_yticks(list(places.values()), list(places))
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.margins(x=0.04)
    _label_series(axes, 4)
    return Image(_finish(figure, axes, xlabel, "").replace('style="', 'style="min-width: 0; ', 1))


def _figures(value: float | None) -> str:
    """A bar's value as it stands beside it, with a real minus sign like the axis."""
    if value is None:
        return "n/a"
    return (f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}").replace("-", "−")


def heat_map(
    matrix: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    shares: bool = False,
) -> Image:
    """A table of numbers as colours, each number written in its cell.

    Args:
        matrix: rows × columns, not negative, e.g. counts of (teacher's tool, student's tool).
        rows, columns: their names.
        xlabel, ylabel: what columns and rows are.
        shares: colour each cell by its share of its row (a confusion matrix with unequal rows), not of the maximum.

    Raises:
        TrainerError: the matrix is empty or does not have one name per row and column.
    """
    if not rows or not columns or len(matrix) != len(rows) or any(len(row) != len(columns) for row in matrix):
        raise TrainerError(f"nothing to plot: a matrix of {len(matrix)} rows for {len(rows)} × {len(columns)} names")
    from matplotlib.patches import Rectangle

    height = min(max(1.1 + 0.36 * len(rows), 2.2), 9.0)
    figure, axes = _figure(min(max(2.4 + 0.72 * len(columns), 4.2), 9.0), height)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    top = max(max(row) for row in matrix) or 1
    for y, row in enumerate(matrix):
        full = (sum(row) if shares else top) or 1
        for x, value in enumerate(row):
            strength = value / full
            cell: dict[str, Any] = {"facecolor": PALETTE[0], "alpha": 0.06 + 0.9 * strength, "edgecolor": "none"}
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **cell))
            if value:
                label = f"{value:g}" if value >= 10 or value == int(value) else f"{value:.2f}"
                colour = "#ffffff" if strength > 0.55 else _INK
                axes.text(x, y, label, ha="center", va="center", fontsize=8.5, color=colour)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    long_names = max(len(name) for name in columns) > 9
    axes.set_xticks(
        range(len(columns)), columns, rotation=35 if long_names else 0, ha="right" if long_names else "center"
    )
    axes.set_yticks(range(len(rows)), rows)
    return _finish(figure, axes, xlabel, ylabel)
