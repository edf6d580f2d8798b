"""Pictures of a cart with its pole and of a pendulum, drawn with Pillow; what the context makes longer is longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FINE = 480, 240, 2  # pixels; lines are drawn finer and shrunk
CART, POLE, AXLE, RAIL = "#222222", "#ca6f3e", "#3f88c5", "#9a9a9a"


def cart(x: float, angle: float, half_length: float, farthest: float) -> NDArray[np.uint8]:
    """uint8 ``[240, 480, 3]``: a cart at ``x`` m between the ends at ±``farthest``, its pole ``angle`` rad off."""
    image, pen = _canvas(WIDTH, HEIGHT)
    metre = FINE * 0.45 * WIDTH / farthest
    middle, rail = FINE * WIDTH / 2 + metre * x, FINE * (HEIGHT - 50.0)
    pen.line((0, rail, FINE * WIDTH, rail), fill=RAIL, width=FINE * 2)
    for end in (-farthest, farthest):
        place = FINE * WIDTH / 2 + metre * end
        pen.line((place, rail - 8 * FINE, place, rail + 8 * FINE), fill=RAIL, width=FINE * 2)
    pen.rectangle((middle - 28 * FINE, rail - 12 * FINE, middle + 28 * FINE, rail + 12 * FINE), fill=CART)
    _rod(pen, (middle, rail - 8 * FINE), angle, 2 * half_length * metre)
    return _shrunk(image)


def pendulum(angle: float, length: float, longest: float) -> NDArray[np.uint8]:
    """uint8 ``[240, 240, 3]``: a pendulum ``angle`` rad from upright, of ``length`` m where ``longest`` just fits."""
    image, pen = _canvas(HEIGHT, HEIGHT)
    middle = FINE * HEIGHT / 2
    _rod(pen, (middle, middle), angle, 0.9 * middle * min(length / longest, 1.0))
    return _shrunk(image)


def _canvas(width: int, height: int) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (FINE * width, FINE * height), "white")
    return image, ImageDraw.Draw(image)


def _rod(pen: Any, axle: tuple[float, float], angle: float, length: float) -> None:
    x, y = axle
    end = x + length * math.sin(angle), y - length * math.cos(angle)
    pen.line((x, y, *end), fill=POLE, width=FINE * 9)
    for place, radius, colour in ((end, 4.5, POLE), (axle, 5.0, AXLE)):
        size = FINE * radius
        pen.ellipse((place[0] - size, place[1] - size, place[0] + size, place[1] + size), fill=colour)


def _shrunk(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image.reduce(FINE)).copy()
