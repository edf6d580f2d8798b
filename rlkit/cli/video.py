"""``rlkit video RUN|ARTEFACT [--out FILE.gif|FILE.mp4]``: episodes of a policy, as its environment draws them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlkit.cli.parser import Parser, told
from rlkit.errors import UserError, install_extra, one_line, refusing

SUFFIXES = (".gif", ".mp4")
RANGES = {"episodes": (1, 100), "seed": (0, 2**32 - 1), "fps": (1, 100)}  # whole numbers
SMOOTH = 25  # frames a second where --fps says nothing: all that a GIF's hundredths of a second show evenly
MOST = 1 << 30  # bytes of pictures that are held at once
COLOURS, SAMPLED = 128, 16  # of a GIF's one palette; pictures that it is made from
PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"


def parser() -> Parser:
    found = Parser(prog="rlkit video", description="Draw episodes of a policy as a GIF or an MP4.")
    found.usage = "rlkit video RUN|ARTEFACT [--out FILE.gif|FILE.mp4] [--episodes 1] [--seed 0] [--fps N] [--size WxH]"
    found.add_argument("source", metavar="RUN|ARTEFACT", help="a run's folder, or a .rlk file")
    found.add_argument("--out", metavar="FILE", help=".gif or .mp4; by default video.gif beside the artefact")
    found.add_argument("--episodes", default="1", metavar="N", help="how many, one after the other (1)")
    found.add_argument("--seed", default="0", metavar="N", help="of the first episode; the next have the next (0)")
    found.add_argument("--fps", metavar="N", help=f"pictures a second; by default the environment's, at most {SMOOTH}")
    found.add_argument("--size", metavar="WxH", help="pixels, such as 320x240; by default as the environment draws")
    found.add_argument("settings", nargs="*", metavar="overwrite=true", help="replace FILE")
    return found


def main(argv: list[str]) -> int:
    """Play and draw; returns 0.  Raises :class:`UserError` for bad input, and where nothing can be drawn."""
    args = parser().read(argv)
    keys = ("out", "overwrite", "size", *RANGES)
    names, settings = told([args.source, *args.settings], keys)
    settings = {**{key: getattr(args, key) for key in keys if getattr(args, key, None) is not None}, **settings}
    if len(names) != 1 or settings.get("overwrite", "true") not in ("true", "false"):
        parser().error("expected one run or artefact, and nothing but options and overwrite=true beside it")
    numbers = {key: _whole(key, settings[key]) for key in RANGES if key in settings}
    size = _size(settings["size"]) if "size" in settings else None

    from rlkit import registry
    from rlkit.algorithms.checkpoint import read_artefact
    from rlkit.api import artefact_of, measured
    from rlkit.data.files import atomic_path

    path = artefact_of(names[0])
    out = Path(settings.get("out") or path.with_name("video.gif"))
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out} is of no kind that is written, expected {' or '.join(SUFFIXES)}")
    if out.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(f"writing MP4 needs imageio-ffmpeg, expected it installed: {install_extra('video')}")
    record = registry.environment(read_artefact(path)[0].get("env"), str(path))
    if record is None:
        raise UserError(f"{path} names no environment, expected a policy of one that can be played; it has a log alone")
    with atomic_path(out, settings.get("overwrite") == "true") as temporary:
        agent, evaluator = measured(path, record, numbers["episodes"], numbers["seed"], None)
        with evaluator.samples(agent, 0):
            frames, fps, returns = played(
                agent, record, numbers["seed"], numbers["episodes"], evaluator.judged, numbers.get("fps"), size
            )
        evaluator.close()
        (_gif if out.suffix == ".gif" else _mp4)(temporary, frames, fps)
    shown = ", ".join(f"{value:.5g}" for value in returns)
    print(f"{out}: {agent.name} on {record.name}, {evaluator.judged}, seed {numbers['seed']}, return {shown}")
    print(f"{len(frames)} pictures of {frames[0].width}x{frames[0].height}, {fps} a second")
    return 0


def played(
    agent: Any, record: Any, seed: int, episodes: int, judged: str, fps: int | None, size: tuple[int, int] | None
) -> tuple[list[Any], int, list[float]]:
    """Pictures of Pillow of ``episodes`` played one after the other, how many make a second, and the returns.

    Of an environment that draws more often than ``fps`` pictures are left out, so that time runs as it does there.
    Raises :class:`UserError` where the environment cannot be drawn, or the pictures are more than :data:`MOST` bytes.
    """
    env = _drawable(record, size)
    try:
        own = int(env.metadata.get("render_fps") or SMOOTH)
        fps = fps or min(own, SMOOTH)
        every = max(1, round(own / fps))
        frames: list[Any] = []
        returns = []
        for episode in range(episodes):
            observation, _ = env.reset(seed=(seed + episode) % 2**32)
            frames.append(_picture(env, size))
            total, steps, over = 0.0, 0, False
            while not over:
                action, _ = agent.predict(observation, deterministic=judged != "sampled")
                observation, reward, ended, cut, _ = env.step(action)
                over, steps, total = bool(ended or cut), steps + 1, total + float(reward)
                if over or steps % every == 0:
                    frames.append(_picture(env, size))
                    if len(frames) * frames[0].width * frames[0].height * 3 > MOST:
                        raise UserError(
                            f"more than {len(frames) - 1} pictures of {frames[0].width}x{frames[0].height} are too "
                            f"many, expected at most {MOST >> 20} MiB: fewer --episodes, --fps or a smaller --size"
                        )
            returns.append(total)
        return frames, fps, returns
    finally:
        env.close()


def _drawable(record: Any, size: tuple[int, int] | None) -> Any:
    """The environment of ``record``, made to be drawn."""
    import gymnasium as gym
    from gymnasium.envs.registration import load_env_creator

    spec = gym.spec(record.env_id)
    entry = str(spec.entry_point)
    physics = record.family in ("mujoco", "dmc", "robotics") or "mujoco" in entry or "dm_control" in entry
    if physics:
        choose_gl()
    with refusing(f"environment '{record.env_id}'", "cannot be drawn", UserError):
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        modes = getattr(creator, "metadata", {}).get("render_modes", ())
        mode = next((mode for mode in ("rgb_array", "ansi") if mode in modes), None)
        if mode is None:
            raise UserError(f"environment '{record.env_id}' has no picture of itself, expected one that draws")
        sized = {"width": size[0], "height": size[1]} if size and "gymnasium.envs.mujoco" in entry else {}
        return gym.make(record.env_id, **{**record.env_kwargs, **sized, "render_mode": mode})


def choose_gl() -> str:
    """Set ``MUJOCO_GL``, where nobody did, to what draws without a screen here, EGL or OSMesa; returns its name.

    Each is tried in a process of its own, since MuJoCo looks once.  Raises :class:`UserError` where neither draws.
    """
    given = os.environ.get("MUJOCO_GL")
    for name in (given,) if given else ("egl", "osmesa"):
        env = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
        if subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, check=False).returncode == 0:
            os.environ["MUJOCO_GL"] = name
            return name
    tried = f"MUJOCO_GL={one_line(given, 60)} draws" if given else "neither EGL nor OSMesa draws"
    raise UserError(f"{tried} nothing here, expected one of their libraries: apt-get install libegl1, or libosmesa6")


def _picture(env: Any, size: tuple[int, int] | None) -> Any:
    """What ``env`` draws now, as a picture of Pillow in RGB."""
    from PIL import Image, ImageDraw

    found = env.render()
    if isinstance(found, str):
        text = re.sub(r"\x1b\[[0-9;]*m", "", found)
        left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text)
        image = Image.new("RGB", (int(right - left) + 20, int(bottom - top) + 20), "white")
        ImageDraw.Draw(image).multiline_text((10 - left, 10 - top), text, fill="black")
        image = image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)
    else:
        image = Image.fromarray(found).convert("RGB")
    return image if size is None or image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _gif(path: Path, frames: Sequence[Any], fps: int) -> None:
    """One palette for all pictures: what stays as it was takes no room."""
    from PIL import Image

    chosen = frames[:: -(-len(frames) // SAMPLED)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, frame in enumerate(chosen):
        sheet.paste(frame.resize((width, height)), (0, i * height))
    palette = sheet.quantize(COLOURS)
    first, *rest = [frame.resize((width, height)).quantize(palette=palette, dither=0) for frame in frames]
    duration = max(20, round(1000 / fps))  # milliseconds; browsers slow down what is shorter
    first.save(path, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, disposal=1)


def _mp4(path: Path, frames: Sequence[Any], fps: int) -> None:
    import imageio_ffmpeg

    width, height = (edge + edge % 2 for edge in frames[0].size)  # H.264 takes even edges
    more = ["-f", "mp4", "-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    with refusing(path, "cannot be written as MP4", UserError):
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=fps, macro_block_size=2, output_params=more, ffmpeg_log_level="error"
        )
        writer.send(None)
        for frame in _resized(frames, (width, height)):
            writer.send(frame.tobytes())
        writer.close()


def _resized(frames: Sequence[Any], size: tuple[int, int]) -> Iterator[Any]:
    return (frame if frame.size == size else frame.resize(size) for frame in frames)


def _whole(key: str, text: str) -> int:
    least, most = RANGES[key]
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise UserError(f"{key}={one_line(text, 60)} is out of range, expected a whole number from {least} to {most}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch("([0-9]{2,4})[xX]([0-9]{2,4})", text)
    edges = [int(edge) for edge in found.groups()] if found else []
    if not edges or not all(16 <= edge <= 2048 for edge in edges):
        raise UserError(f"size={one_line(text, 60)} is none, expected WxH of 16 to 2048 pixels, such as 320x240")
    return edges[0], edges[1]
