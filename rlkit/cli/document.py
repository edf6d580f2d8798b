"""A page as blocks, written as HTML that fetches nothing, with figures as inline SVG, and as Markdown.

Every word is shown as it is: what looks like markup in a run's name or result stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from rlkit.errors import one_line

COLOURS = 8
WIDE, HIGH, LEFT, BOTTOM, TOP, RIGHT = 520, 320, 62, 46, 12, 14  # units of a figure
TICKS = 5
SHORT = 24  # letters of a cell that is not broken over lines
ROWS = 6  # of a figure's table in Markdown


@dataclass(frozen=True)
class Heading:
    """Of what follows."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """``colours``: of each row's method, as its lines have it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    colours: Sequence[int] = ()


@dataclass(frozen=True)
class Line:
    """A line of a figure: ``intervals`` a band around it, if any; dotted where ``whole`` is not."""

    label: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[tuple[float, float]] = ()
    whole: Sequence[bool] = field(default=())


@dataclass(frozen=True)
class Figure:
    """Lines over one axis; ``x`` and ``y`` say what is on them."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]


Block = Heading | Text | Table | Figure

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --faint: #667080; --rule: #d8dde3; --head: #f3f5f7;
  --c0: #0b62a4; --c1: #b6420e; --c2: #0b7a5b; --c3: #8a3c8f; --c4: #8a6d00; --c5: #3a4a8f;
  --c6: #b0254f; --c7: #4d5a63; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ed; --back: #14171b; --faint: #9aa4b0; --rule: #323942; --head: #1e2329;
    --c0: #5fb0f0; --c1: #f0915f; --c2: #4fcfa6; --c3: #d492d8; --c4: #dcbf4a; --c5: #93a6f5;
    --c6: #f07f9f; --c7: #a9b6c0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--back); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
p { max-width: 46rem; } .scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--rule);
  max-width: 30rem; }
th { font-weight: 600; color: var(--faint); white-space: nowrap; }
td { white-space: nowrap; } td.long { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
.figures { display: grid; gap: 1.2rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; max-width: 40rem; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--text); font-size: 15px; } .grid { stroke: var(--rule); stroke-width: 1; }
.legend { list-style: none; margin: 0.3rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; }
.swatch { display: inline-block; width: 1.5em; height: 0; margin-right: 0.5em; vertical-align: middle;
  border-top: 3px solid; }
"""


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One file; its policy forbids scripts and whatever would be fetched."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_html(title)}</h1>\n"
    )
    parts, figures = [head], False
    for block in blocks:
        if isinstance(block, Figure) != figures:
            figures = not figures
            parts.append('<div class="figures">\n' if figures else "</div>\n")
        parts.append(_block(block))
    return "".join([*parts, "</div>\n" if figures else "", "</body>\n</html>\n"])


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{_html(block.text)}</h2>\n"
    if isinstance(block, Text):
        return f"<p>{_html(block.text)}</p>\n"
    if isinstance(block, Figure):
        return _figure(block)
    head = "".join(f'<th scope="col">{_html(name)}</th>' for name in block.columns)
    rows = []
    for i, row in enumerate(block.rows):
        swatch = _swatch(block.colours[i]) if block.colours else ""
        cells = [f"<td{_kind(word)}>{swatch if not j else ''}{_html(word)}</td>" for j, word in enumerate(row)]
        rows.append(f"<tr>{''.join(cells)}</tr>\n")
    return f'<div class="scroll" tabindex="0"><table>\n<tr>{head}</tr>\n{"".join(rows)}</table></div>\n'


def _kind(word: str) -> str:
    return ' class="long"' if len(word) > SHORT else ""


def _swatch(colour: int) -> str:
    return f'<span class="swatch" style="border-color: var(--c{colour % COLOURS}); {_style(colour)}"></span>'


def _style(colour: int) -> str:
    return f"border-top-style: {('solid', 'dashed', 'double')[colour // COLOURS % 3]}"


def _figure(figure: Figure) -> str:
    xs = [x for line in figure.lines for x in line.x]
    ys = [y for line in figure.lines for y in (*line.y, *(end for pair in line.intervals for end in pair))]
    ys = [y for y in ys if math.isfinite(y)]
    (left, right), (low, high) = _range(xs), _range(ys)

    def px(x: float) -> str:
        return f"{LEFT + (x - left) / (right - left) * (WIDE - LEFT - RIGHT):.1f}"

    def py(y: float) -> str:
        return f"{TOP + (high - y) / (high - low) * (HIGH - TOP - BOTTOM):.1f}"

    parts = []
    for y in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{py(y)}" y2="{py(y)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{py(y)}" dy="5" text-anchor="end">{_tick(y)}</text>')
    for x in _ticks(left, right):
        parts.append(f'<text x="{px(x)}" y="{HIGH - BOTTOM + 20}" text-anchor="middle">{_tick(x)}</text>')
    middle = (WIDE + LEFT - RIGHT) // 2
    parts.append(f'<text x="{middle}" y="{HIGH - 4}" text-anchor="middle">{_html(figure.x)}</text>')
    for line in figure.lines:
        parts += _drawn(line, px, py)
    legend = "".join(f"<li>{_swatch(line.colour)}{_html(line.label)}</li>" for line in figure.lines)
    title = _html(f"{figure.title}, {figure.y}")
    return (
        f'<figure><figcaption>{title}</figcaption>\n<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{title}">\n'
        + "\n".join(parts)
        + f'\n</svg>\n<ul class="legend">{legend}</ul></figure>\n'
    )


def _drawn(line: Line, px: object, py: object) -> list[str]:
    assert callable(px) and callable(py)
    colour = f"var(--c{line.colour % COLOURS})"
    dash = ("", "9 5", "3 4")[line.colour // COLOURS % 3]
    parts = []
    ends = [(x, *pair) for x, pair in zip(line.x, line.intervals, strict=False) if not math.isnan(pair[0])]
    if ends:
        points = [(x, low) for x, low, _ in ends] + [(x, high) for x, _, high in reversed(ends)]
        path = " ".join(f"{px(x)},{py(y)}" for x, y in points)
        parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity="0.18"/>')
    whole = line.whole or [True] * len(line.x)
    runs: list[tuple[bool, list[int]]] = []  # stretches that are whole or not, each begun where the one before ends
    for i in range(len(line.x)):
        if not runs or runs[-1][0] != whole[i]:
            runs.append((whole[i], [i - 1] if i else []))
        runs[-1][1].append(i)
    for solid, stretch in runs:
        path = " ".join(f"{px(line.x[i])},{py(line.y[i])}" for i in stretch)
        style = f' stroke-dasharray="{dash if solid else "2 5"}"' if dash or not solid else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{style}/>')
    if len(line.x) == 1:
        parts.append(f'<circle cx="{px(line.x[0])}" cy="{py(line.y[0])}" r="4" fill="{colour}"/>')
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    room = 1e-9 * (high - low)
    return [float(t) for t in MaxNLocator(TICKS).tick_values(low, high) if low - room <= t <= high + room]


def _tick(found: float) -> str:
    size = abs(found)
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= 10 * least or (size >= least and letter != "k"):
            return f"{found / least:g}{letter}"
    return f"{found:.4g}"


def _html(text: str) -> str:
    return escape(one_line(text, 2000))


# ---- Markdown -----------------------------------------------------------------------------------------------------


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same in words; a figure is a table of some of its points."""
    parts = [f"# {_plain(title)}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {_plain(block.text)}")
        elif isinstance(block, Text):
            parts.append(_plain(block.text))
        elif isinstance(block, Table):
            parts.append(_rows(block))
        else:
            parts += [f"**{_plain(block.title)}**, {_plain(block.y)} by {_plain(block.x)}:", _rows(_points(block))]
    return "\n\n".join(parts) + "\n"


def _points(figure: Figure) -> Table:
    every = sorted({x for line in figure.lines for x in line.x})
    picked = [every[round(i * (len(every) - 1) / max(ROWS - 1, 1))] for i in range(ROWS)]
    rows = []
    for x in dict.fromkeys(picked):
        at = [dict(zip(line.x, line.y, strict=True)).get(x) for line in figure.lines]
        rows.append([_tick(x), *("-" if y is None else f"{y:.4g}" for y in at)])
    return Table([figure.x, *(line.label for line in figure.lines)], rows)


def _rows(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(word if word == '---' else _plain(word) for word in line)} |" for line in lines)


def _plain(text: str) -> str:
    """``text`` of one line, its marks escaped."""
    return re.sub(r"([\\`*<>|\[\]]|(?<!\w)_|_(?!\w)|^[#+-](?= ))", r"\\\1", one_line(text, 2000))
