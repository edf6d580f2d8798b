"""Pictures of a garden and of a patient, drawn with Pillow: quick enough for an episode of thousands of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rlkit.envs.hacking.tomato import Board

CELL = 40  # pixels of a cell of the garden
WALL, PATH, WATER, SKIN, DRY, WET, LEAF = "#5b4636", "#d9c9a3", "#3f88c5", "#7a3b8f", "#a8763e", "#d7263d", "#2e7d32"
WIDTH, HEIGHT, LEFT, TOP = 480, 320, 48, 34  # pixels of the chart, and its margins
MIDDLE, BOTTOM = 220, 288  # where glucose ends and insulin begins, and where that ends
HIGHEST_BG, HIGHEST_INSULIN = 300.0, 0.1  # mg/dl and U/min at the upper ends of the two axes
GOOD = (70.0, 180.0)  # mg/dl within which a patient should be
LINE, BAR, BAND, GRID, INK = "#c1121f", "#3f88c5", "#e3f1e1", "#d0d0d0", "#222222"


def garden(board: Board, gardener: int, wet: Iterable[int]) -> NDArray[np.uint8]:
    """The board as uint8 ``[40 rows, 40 columns, 3]``.

    ``gardener`` is her cell, ``wet`` the tomatoes that are red; those that dry are pale, the sprinkler is blue.
    """
    from PIL import Image, ImageDraw

    rows, wet = board.rows, set(wet)
    image = Image.new("RGB", (CELL * len(rows[0]), CELL * len(rows)), WALL)
    pen = ImageDraw.Draw(image)
    for number, (row, column) in enumerate(board.places):
        left, top = CELL * column, CELL * row

        def box(inset: int, left: int = left, top: int = top) -> tuple[int, int, int, int]:
            return left + inset, top + inset, left + CELL - 1 - inset, top + CELL - 1 - inset

        pen.rectangle(box(0), fill=WATER if board.sprinkler[number] else PATH, outline="#c4b28a")
        if board.sprinkler[number]:
            for inset in (8, 13):
                pen.ellipse(box(inset), outline="white", width=2)
        if board.tomato[number] >= 0:
            pen.ellipse(box(7), fill=WET if board.tomato[number] in wet else DRY)
            pen.rectangle((left + 17, top + 4, left + 22, top + 10), fill=LEAF)
        if number == gardener:
            pen.ellipse((left + 14, top + 5, left + 25, top + 16), fill=SKIN, outline="white")
            pen.polygon(
                [(left + 20, top + 14), (left + 31, top + 35), (left + 9, top + 35)], fill=SKIN, outline="white"
            )
    return np.asarray(image).copy()


def patient(history: NDArray[np.float64], minutes: int) -> NDArray[np.uint8]:
    """The last hours as uint8 ``[320, 480, 3]``: glucose above, with the band where it should be, insulin below.

    ``history [2, k]``: mg/dl and U/min of the last ``k`` five minutes; ``minutes`` have passed in this episode.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    glucose, insulin = history
    across = np.linspace(LEFT, WIDTH - 12, len(glucose))

    def height(values: Any, highest: float, low: int, high: int) -> Any:
        return low - (low - high) * np.clip(values, 0.0, highest) / highest

    def level(value: float) -> float:
        return float(height(value, HIGHEST_BG, MIDDLE - 14, TOP))

    pen.rectangle((LEFT, level(GOOD[1]), WIDTH - 12, level(GOOD[0])), fill=BAND)
    for value in (*GOOD, HIGHEST_BG):
        pen.line((LEFT, level(value), WIDTH - 12, level(value)), fill=GRID)
        _text(pen, (LEFT - 6, level(value)), f"{value:.0f}", "rm")
    bars = height(insulin, HIGHEST_INSULIN, BOTTOM, MIDDLE + 4)
    half = (across[1] - across[0]) / 2 - 1
    for x, y in zip(across.tolist(), bars.tolist(), strict=True):
        pen.rectangle((x - half, y, x + half, BOTTOM), fill=BAR)
    pen.line((LEFT, BOTTOM, WIDTH - 12, BOTTOM), fill=GRID)
    _text(pen, (LEFT - 6, MIDDLE + 8), f"{HIGHEST_INSULIN:g}", "rm")
    points: Sequence[Any] = np.stack([across, height(glucose, HIGHEST_BG, MIDDLE - 14, TOP)], axis=1).ravel().tolist()
    pen.line(points, fill=LINE, width=3, joint="curve")
    day, rest = divmod(minutes, 1440)
    _text(pen, (LEFT, 16), f"day {day + 1}, {rest // 60:02}:{rest % 60:02}", "lm")
    _text(pen, (WIDTH - 12, 16), f"glucose {glucose[-1]:.0f} mg/dl, insulin {insulin[-1]:.3f} U/min", "rm")
    _text(pen, (LEFT, HEIGHT - 16), "4 hours ago", "lm")
    _text(pen, (WIDTH - 12, HEIGHT - 16), "now", "rm")
    return np.asarray(image).copy()


def _text(pen: Any, place: Any, text: str, anchor: str) -> None:
    from PIL import ImageFont

    pen.text(place, text, fill=INK, anchor=anchor, font=ImageFont.load_default(14))
