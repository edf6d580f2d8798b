"""``rlkit video RUN|ARTEFACT [--out FILE]``: episodes of a policy as its environment draws them, or solved instances.

A GIF or an MP4 shows episodes step by step; of tours, packings and the like a picture shows a few that are solved.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlkit.cli.parser import Parser, told
from rlkit.errors import UserError, install_extra, one_line, refusing

FILMS = (".gif", ".mp4")
RANGES = {"episodes": (1, 100), "seed": (0, 2**32 - 1), "seconds": (1, 3600), "fps": (1, 100)}  # whole numbers
FEW = 4  # instances of a picture
MOST_FPS = 50  # of a GIF: browsers slow down what is faster
COLOURS, SAMPLED = 64, 16  # of a GIF's one palette; pictures that it is made from


def parser() -> Parser:
    found = Parser(prog="rlkit video", description="Draw episodes of a policy, or instances that it solved.")
    found.usage = (
        "rlkit video RUN|ARTEFACT [--out FILE.gif|.mp4|.png|.svg|.pdf] [--episodes N] [--seed 0] [--seconds 30] "
        "[--fps N] [--size WxH] [overwrite=true]"
    )
    found.add_argument("source", metavar="RUN|ARTEFACT", help="a run's folder, or a .rlk file")
    told = ".gif or .mp4, or of tours and packings .png, .svg or .pdf; video.gif or solutions.png beside the artefact"
    found.add_argument("--out", metavar="FILE", help=told)
    found.add_argument("--episodes", metavar="N", help=f"how many (1), or instances in a picture ({FEW})")
    found.add_argument("--seed", default="0", metavar="N", help="decides them, as it does for rlkit eval (0)")
    found.add_argument("--seconds", default="30", metavar="N", help="of each episode at most (30)")
    found.add_argument("--fps", metavar="N", help="pictures a second; by default the environment's, at most 25")
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

    import numpy as np

    from rlkit import registry
    from rlkit.algorithms.checkpoint import read_artefact
    from rlkit.api import artefact_of, measured
    from rlkit.cli.frames import creator_of, drawing_env, filmed, solved
    from rlkit.data.files import atomic_path
    from rlkit.run.reading import newest_artefact, under_way

    path = newest_artefact(Path(names[0]))
    record = registry.environment(read_artefact(path)[0].get("env"), str(path))
    if record is None:
        raise UserError(f"{path} names no environment, expected a policy of one that can be played; it has a log alone")
    if not registry.is_known(record):
        raise UserError(f"{path} was made in '{record.env_id}', which is not registered here, expected one that is")
    creator = creator_of(record.env_id)
    stills = getattr(creator, "PICTURES", ())
    beside = artefact_of(names[0]).with_name("solutions.png" if stills else "video.gif")
    out, kinds = Path(settings.get("out") or beside), (*FILMS, *stills)
    if out.suffix not in kinds:
        raise UserError(f"{out} is of no kind that is written of {record.env_id}, expected {' or '.join(kinds)}")
    if out.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(f"writing MP4 needs imageio-ffmpeg, expected it installed: {install_extra('video')}")
    if out.suffix == ".gif" and numbers.get("fps", 1) > MOST_FPS:
        raise UserError(f"fps={numbers['fps']} is more than a GIF shows, expected at most {MOST_FPS}, or an .mp4")
    still = out.suffix in stills
    count, seed = numbers.get("episodes", FEW if still else 1), numbers["seed"]
    seeds = np.random.SeedSequence([seed, 0]).generate_state(count).tolist()  # as an evaluation's
    with atomic_path(out, settings.get("overwrite") == "true") as temporary:
        agent, evaluator = measured(path, record, count, seed, None)
        greedy = evaluator.judged != "sampled"
        with evaluator.samples(agent, 0):
            if still:
                found = solved(agent, record, seeds, greedy)
                temporary.write_bytes(creator.pictures(found, out.suffix))
                lines = [f"objective {', '.join(f'{one[2]:.5g}' for one in found)}"]
            else:
                env = drawing_env(record, size)
                try:
                    film = filmed(agent, env, seeds, greedy, numbers.get("fps"), numbers["seconds"], size)
                finally:
                    env.close()
                (_gif if out.suffix == ".gif" else _mp4)(temporary, film.pictures, film.fps)
                part = f" in the first {numbers['seconds']} s"
                lines = [
                    ", ".join(f"{name} {value:.5g}" for name, value in returns.items()) + ("" if whole else part)
                    for returns, whole in zip(film.returns, film.whole, strict=True)
                ]
                first = film.pictures[0]
                lines.append(f"{len(film.pictures)} pictures of {first.width}x{first.height}, {film.fps} a second")
        evaluator.close()
    progress = under_way(Path(names[0]), agent)
    print(f"{out}: {agent.name} on {record.env_id}, {evaluator.judged}, seed {seed}")
    print("\n".join([*lines, *([progress] if progress else [])]))
    return 0


def _gif(path: Path, pictures: Sequence[Any], fps: int) -> None:
    """One palette for all pictures: what stays as it was takes no room."""
    from PIL import Image

    chosen = pictures[:: -(-len(pictures) // SAMPLED)]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, picture in enumerate(chosen):
        sheet.paste(picture, (0, i * height))
    palette = sheet.quantize(COLOURS, kmeans=2)  # else a small body takes the colours of the ground
    first, *others = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    ticks = [round(100 * i / fps) for i in range(len(pictures) + 1)]  # hundredths of a second are all that a GIF has
    spans = [10 * (after - before) for before, after in pairwise(ticks)]
    first.save(path, "GIF", save_all=True, append_images=others, duration=spans, loop=0, disposal=1)


def _mp4(path: Path, pictures: Sequence[Any], fps: int) -> None:
    import imageio_ffmpeg

    width, height = (edge + edge % 2 for edge in pictures[0].size)  # H.264 takes even edges
    more = ["-f", "mp4", "-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    with refusing(path, "cannot be written as MP4", UserError):
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=fps, macro_block_size=2, output_params=more, ffmpeg_log_level="error"
        )
        writer.send(None)
        for picture in pictures:
            writer.send(picture.resize((width, height)).tobytes())
        writer.close()


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
