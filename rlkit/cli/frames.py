"""Episodes as pictures, one a step: the environment that draws, the episodes of a policy in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from rlkit.algorithms.evaluate import REWARDS
from rlkit.errors import UserError, one_line, refusing
from rlkit.system.python import child

SMOOTH = 25  # pictures a second where nobody says how many: all that a GIF's hundredths of a second show evenly
MOST = 1 << 30  # bytes of pictures that are held at once
PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"
LETTERS = 24  # height of a line of text in pixels
Size = tuple[int, int]  # width and height


@dataclass
class Film:
    """Pictures of Pillow, ``fps`` of which make a second, and of each episode its returns by name and how it ended.

    whole: False of an episode that was left while it was running.
    """

    fps: int
    pictures: list[Any] = field(default_factory=list)
    returns: list[dict[str, float]] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)


def episodes(
    agent: Any, env: Any, seeds: list[int], deterministic: bool, steps: int | None = None
) -> Iterator[tuple[dict[str, float], bool, bool]]:
    """Play one episode for each of ``seeds``, at most ``steps`` of it.

    After each reset and step the return so far, true and proxy where they are told apart; whether the episode is over;
    and whether it is left.
    """
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        names = [f"{name}_reward" for name in REWARDS if f"{name}_reward" in info]
        totals = dict.fromkeys([name.replace("_reward", " return") for name in names] or ["return"], 0.0)
        over, count = False, 0
        yield dict(totals), over, count == steps
        while not over and count != steps:
            action, _ = agent.predict(observation, deterministic=deterministic)
            observation, reward, ended, cut, info = env.step(action)
            over, count = bool(ended or cut), count + 1
            for told, value in zip(totals, [info[name] for name in names] or [reward], strict=True):
                totals[told] += float(value)
            yield dict(totals), over, count == steps


def filmed(
    agent: Any, env: Any, seeds: list[int], deterministic: bool, fps: int | None, seconds: int, size: Size | None
) -> Film:
    """Episodes one after the other, each for at most ``seconds``; where one is over, its end is held for a second.

    Of an environment that moves faster than ``fps`` pictures are left out, so that time runs as it does there.
    Raises :class:`UserError` where the pictures are more than :data:`MOST` bytes.
    """
    own = max(1, int(env.metadata.get("render_fps") or SMOOTH))
    every = max(1, round(own / fps) if fps else -(-own // SMOOTH))
    film = Film(fps or max(1, round(own / every)))
    step = 0
    for totals, over, left in episodes(agent, env, seeds, deterministic, seconds * film.fps * every):
        if over or left or step % every == 0:
            film.pictures.append(drawn(env, size))
        if over:
            film.pictures += film.pictures[-1:] * film.fps
        step += 1
        if over or left:
            film.returns.append(totals)
            film.whole.append(over)
            step = 0
        one = film.pictures[-1]
        if len(film.pictures) * one.width * one.height * 3 > MOST:
            raise UserError(
                f"more than {len(film.pictures) - 1} pictures of {one.width}x{one.height} are too many, expected at "
                f"most {MOST >> 20} MiB: fewer --episodes, --seconds, --fps or a smaller --size"
            )
    film.pictures = _alike(film.pictures)
    return film


def _alike(pictures: list[Any]) -> list[Any]:
    """``pictures`` of one size: texts have several, and the smaller ones get a margin."""
    from PIL import Image

    size = max(one.width for one in pictures), max(one.height for one in pictures)
    found = []
    for one in pictures:
        if one.size != size:
            whole = Image.new("RGB", size, "white")
            whole.paste(one)
            one = whole
        found.append(one)
    return found


def creator_of(env_id: str) -> Any:
    """The class, or the function, that makes the environment; of a wrapper, what it wraps.

    Raises :class:`UserError` where its module cannot be imported, as MuJoCo cannot with a wrong ``MUJOCO_GL``.
    """
    spec = gym.spec(env_id)
    if "base" in spec.kwargs:
        return creator_of(spec.kwargs["base"])
    if not isinstance(spec.entry_point, str):
        return spec.entry_point
    with refusing(f"environment '{env_id}'", "cannot be made", UserError):
        return load_env_creator(spec.entry_point)


def solved(agent: Any, record: Any, seeds: list[int], deterministic: bool) -> list[Any]:
    """What the policy makes of an instance for each of ``seeds``, in an environment that says what is solved."""
    env = gym.make(record.env_id, **record.env_kwargs, disable_env_checker=True)
    world: Any = env.unwrapped
    return [world.solved() for _, over, _ in episodes(agent, env, seeds, deterministic) if over]


def drawing_env(record: Any, size: Size | None) -> Any:
    """The environment of ``record``, which draws itself: as pictures or, where it knows none, as text.

    Raises :class:`UserError` for one that does neither, or cannot here.
    """
    with refusing(f"environment '{record.env_id}'", "cannot be drawn", UserError):
        creator = creator_of(record.env_id)
        homes = [creator.__module__, *(kind.__module__ for kind in getattr(creator, "__mro__", ()))]
        if any(word in home for home in homes for word in ("mujoco", "rlkit.envs.dmc", "dm_control", "robotics")):
            choose_gl()
        options: dict[str, Any] = {}
        if any(home.startswith("gymnasium.envs.mujoco") for home in homes):
            options = {"camera_name": "track"} | ({"width": size[0], "height": size[1]} if size else {})
        elif size and "rlkit.envs.dmc" in homes:
            options = {"size": min(size)}
        known = getattr(creator, "metadata", {}).get("render_modes", ("rgb_array",))
        modes = [mode for mode in ("rgb_array", "ansi") if mode in known]
        if not modes:
            raise UserError(f"environment '{record.env_id}' has no picture of itself, expected one that draws")
        made = {**record.env_kwargs, **options}
        try:
            return _tried(record.env_id, modes[0], made)
        except gym.error.DependencyNotInstalled:  # of what draws pictures; text needs nothing
            if len(modes) == 1:
                raise
            return _tried(record.env_id, modes[1], made)


def _tried(env_id: str, mode: str, made: dict[str, Any]) -> Any:
    """The environment, which has drawn once in ``mode``: what drawing lacks is not known before."""
    env: Any = gym.make(env_id, **made, render_mode=mode, disable_env_checker=True)
    try:
        env.reset(seed=0)
        env.render()
    except BaseException:
        env.close()
        raise
    return env


def choose_gl() -> str:
    """Set ``MUJOCO_GL``, where nobody did, to what draws without a screen here, EGL or OSMesa; returns its name.

    Each is tried in a process of its own, since MuJoCo looks once.  Raises :class:`UserError` where neither draws.
    """
    given = os.environ.get("MUJOCO_GL")
    usual = ("glfw",) if sys.platform == "darwin" else ("egl", "osmesa")
    for name in (given,) if given else usual:
        probe = child("-c", PROBE, MUJOCO_GL=name)
        if subprocess.run(**probe, capture_output=True, check=False).returncode == 0:
            os.environ["MUJOCO_GL"] = name
            return name
    tried = f"MUJOCO_GL={one_line(given, 60)} draws" if given else "neither EGL nor OSMesa draws"
    raise UserError(f"{tried} nothing here, expected one of their libraries: apt-get install libegl1, or libosmesa6")


def drawn(env: Any, size: Size | None) -> Any:
    """What ``env`` draws now, as a picture of Pillow in RGB; of another shape than ``size`` it has margins."""
    from PIL import Image, ImageOps

    found = env.render()
    image = _written(found) if isinstance(found, str) else Image.fromarray(np.asarray(found, np.uint8)).convert("RGB")
    return image if size is None or image.size == size else ImageOps.pad(image, size, color="white")


def _written(text: str) -> Any:
    """``text`` as a picture, without the codes that colour a terminal."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip("\n")
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSansMono.ttf")), LETTERS)
    _, _, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    image = Image.new("RGB", (int(right) + 2 * LETTERS, int(bottom) + 2 * LETTERS), "white")
    ImageDraw.Draw(image).multiline_text((LETTERS, LETTERS), text, fill="black", font=font)
    return image
