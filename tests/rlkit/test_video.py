"""``rlkit video``: pictures of a policy's episodes, and a sentence where there can be none."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import rlkit
from rlkit import registry
from rlkit.cli import main
from rlkit.cli.frames import choose_gl, drawing_env, filmed
from rlkit.data import write_d4rl
from rlkit.data.generate import behaviour_rollouts
from rlkit.errors import UserError
from rlkit.registry import EnvRecord, record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gl() -> dict[str, str]:
    """The environment of a process that draws bodies: one of its own, as a process has one way of drawing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MUJOCO_GL", raising=False)
        try:
            name = choose_gl()
        except UserError as error:
            pytest.skip(str(error))
    return {**{key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}, "MUJOCO_GL": name}


def ran(gl: dict[str, str], *words: str) -> str:
    found = subprocess.run([sys.executable, *words], env=gl, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def tours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.rlk"
    few = registry.configured(record("tsp"), {"num_nodes": 12})
    rlkit.make("bq", few, width=16, layers=1, heads=2).save(path)
    return path


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt nothing yet of hopping."""
    folder = tmp_path_factory.mktemp("hopper")
    write_d4rl(behaviour_rollouts(record("hopper-random"), size=300), folder / "rows.hdf5")
    line = f"train agent=bc env=hopper-medium env.path={folder}/rows.hdf5 out={folder}/run total_timesteps=4"
    small = "agent.hidden_sizes=[8] final_episodes=1 checkpoint_every=2 progress_bar=false tensorboard=false"
    assert main([*line.split(), *small.split()]) == 0
    return folder / "run"


class Still:
    """Does what it is told to, whatever it sees."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[Any, None]:
        return self.action, None


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        found = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            found.append(np.asarray(image.convert("RGB")).astype(int))
    return found


# ---- tours -----------------------------------------------------------------------------------------------------------


def test_tours_are_drawn_the_same_each_time_and_nothing_is_overwritten(
    tours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["video", str(tours), "--size", "64x48", "--fps", "8", "--out"]
    assert main([*line, str(tmp_path / "a.gif")]) == 0, capsys.readouterr().err
    assert main([*line, str(tmp_path / "b.gif")]) == 0
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (64, 48) and image.n_frames > 10 and image.info["loop"] == 0
        image.seek(image.n_frames - 1)
        assert image.info["duration"] >= 1000  # the tour is left to be looked at
    before = (tmp_path / "a.gif").read_bytes()
    assert main([*line, str(tmp_path / "a.gif"), "--seed", "1"]) == 2 and "exists already" in capsys.readouterr().err
    assert (tmp_path / "a.gif").read_bytes() == before
    assert main([*line, str(tmp_path / "a.gif"), "--seed", "1", "overwrite=true"]) == 0
    assert (tmp_path / "a.gif").read_bytes() != before


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_few_tours_are_one_picture(
    suffix: str, tours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert main(["video", str(tours), "--episodes", "3", "--out", str(tmp_path / f"{name}.{suffix}")]) == 0
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    objectives = capsys.readouterr().out.splitlines()[1].removeprefix("objective ").split(", ")
    assert len(set(objectives)) == 3
    if suffix == "svg":
        assert (tmp_path / "a.svg").read_text().count("<!-- tsp: ") == 3


def test_tours_are_what_a_run_shows_where_nothing_else_is_said(tours: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tours, tmp_path / "model.rlk"))
    assert main(["video", str(path)]) == 0
    with Image.open(tmp_path / "solutions.png") as image:
        assert image.size == (1200, 1200)  # four of them


def test_the_pages_own_block_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "share.md").read_text(), re.DOTALL)[0]
    scope: dict[str, Any] = {}
    exec(block, scope)  # of this repository
    assert scope["picture"].startswith(b"<?xml") and scope["picture"].count(b"<!-- tsp: ") == 2


# ---- bodies ----------------------------------------------------------------------------------------------------------


VIEW = """
import numpy as np
from rlkit.cli.frames import drawing_env
from rlkit.registry import record
env = drawing_env(record("hopper-medium"), (80, 80))
for along in (0.0, 60.0):
    env.reset(seed=0)
    env.unwrapped.set_state(env.unwrapped.init_qpos + along * np.eye(6)[0], env.unwrapped.init_qvel)
    picture = np.asarray(env.render()).astype(int)
    print((picture[..., 0] > picture[..., 2] + 25).mean())  # it alone is brown
env.close()
"""


def test_a_hopper_stays_in_view(gl: dict[str, str]) -> None:
    """The camera goes with it: 60 m on it fills as much of the picture as at first."""
    near, far = map(float, ran(gl, "-c", VIEW).split())
    assert near > 0.01 and far > 0.5 * near, (near, far)


def test_an_episode_is_filmed_as_it_is_played(gl: dict[str, str], hopper: Path, tmp_path: Path) -> None:
    told = ran(gl, "-m", "rlkit", "video", str(hopper), "--size", "96x64")
    found = frames(hopper / "video.gif")
    assert found[0].shape == (64, 96, 3) and (found[0] != found[-1]).any() and found[0].std() > 10
    (value,) = rlkit.evaluate(hopper, episodes=1).returns
    assert f"bc on Hopper-v5, greedy, seed 0\nreturn {value:.5g}\n" in told and "25 a second" in told
    part = tmp_path / "part"
    shutil.copytree(hopper, part)
    for name in ("model.rlk", "result.json", "video.gif"):
        (part / name).unlink()
    told = ran(gl, "-m", "rlkit", "video", str(part), "--size", "32x32", "--seconds", "1")
    assert "not finished: 4 of 4 updates" in told and (part / "video.gif").exists()


def test_mp4_or_the_line_that_installs_it(
    tours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["video", str(tours), "--size", "63x49", "--fps", "25", "--out"]
    if importlib.util.find_spec("imageio_ffmpeg"):
        for name in ("a", "b"):
            assert main([*line, str(tmp_path / f"{name}.mp4")]) == 0
        data = (tmp_path / "a.mp4").read_bytes()
        assert data == (tmp_path / "b.mp4").read_bytes() and data[4:8] == b"ftyp"
        import imageio_ffmpeg

        count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
        assert count > 30 and seconds == pytest.approx(count / 25, abs=0.05)
    capsys.readouterr()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "imageio_ffmpeg" else find(name, *more)
    )
    assert main([*line, str(tmp_path / "c.mp4")]) == 2
    err = capsys.readouterr().err
    assert "pip install 'rlkit-papers[video]'" in err and err.count("\n") == 1 and not (tmp_path / "c.mp4").exists()


def test_no_gl_is_said(monkeypatch: pytest.MonkeyPatch, hopper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("rlkit.cli.frames.PROBE", "raise SystemExit(1)")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(UserError, match=r"neither EGL nor OSMesa.*libegl1"):
        choose_gl()
    capsys.readouterr()
    assert main(["video", str(hopper), "--out", str(hopper.parent / "none.gif")]) == 2
    err = capsys.readouterr().err
    assert "libegl1" in err and err.count("\n") == 1 and not list(hopper.parent.glob("*none*"))
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UserError, match="MUJOCO_GL=nonsense draws nothing here"):
        choose_gl()


def test_a_wrong_way_of_drawing_is_a_sentence_in_a_process_of_its_own(hopper: Path) -> None:
    """MuJoCo looks at it where it is imported."""
    line = ["-m", "rlkit", "video", str(hopper), "--out", str(hopper.parent / "wrong.gif")]
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    found = subprocess.run([sys.executable, *line], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and not (hopper.parent / "wrong.gif").exists()
    assert found.stderr.startswith("rlkit: environment 'Hopper-v5': cannot be made") and found.stderr.count("\n") == 1


# ---- other environments ----------------------------------------------------------------------------------------------


class Letters(gym.Env[Any, Any]):
    """Writes its steps; ends after six.  Pictures need what is not installed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 60}
    observation_space = gym.spaces.Discrete(7)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.count = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.count, 1.0, self.count == 6, False, {}

    def render(self) -> Any:
        if self.render_mode == "rgb_array":
            raise gym.error.DependencyNotInstalled("pygame is not installed")
        return "|\x1b[41m" + "#" * self.count + "\x1b[0m|"


class Silent(Letters):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}


class Unpainted(Letters):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}


@pytest.fixture(scope="module")
def described() -> Callable[[str], EnvRecord]:
    for kind in (Letters, Silent, Unpainted):
        gym.register(f"rlkit-tests/{kind.__name__}-v0", entry_point=kind)
    return lambda name: EnvRecord(name, name, f"rlkit-tests/{name}-v0", "", "")


def test_text_is_drawn_in_letters_of_one_width(described: Callable[[str], EnvRecord]) -> None:
    env = drawing_env(described("Letters"), None)
    film = filmed(Still(0), env, [0, 1], True, None, 30, None)
    assert film.returns == 2 * [{"return": 6.0}] and film.whole == [True, True]
    assert film.fps == 20 and len(film.pictures) == 2 * (3 + 20)  # steps 0, 3, 6, and the end for a second
    assert len({picture.size for picture in film.pictures}) == 1  # of the longest text, whatever each one says
    ends = [int((np.asarray(picture) < 128).any(axis=(0, 2)).nonzero()[0].max()) for picture in film.pictures[:3]]
    assert ends[1] - ends[0] == pytest.approx(ends[2] - ends[1], abs=2) and ends[1] - ends[0] > 10


def test_an_episode_is_left_after_its_seconds(described: Callable[[str], EnvRecord]) -> None:
    env = drawing_env(described("Letters"), (40, 40))
    film = filmed(Still(0), env, [0], True, 4, 1, (40, 40))
    assert film.returns == [{"return": 6.0}] and film.whole == [True]  # 4 pictures of 15 steps each would be more
    env = drawing_env(record("glucose"), None)
    film = filmed(Still(np.zeros(1, np.float32)), env, [0], True, None, 2, None)
    assert film.whole == [False] and len(film.pictures) == 2 * film.fps + 1
    (told,) = film.returns  # never one of the two under the name of the other
    assert set(told) == {"true return", "proxy return"} and told["true return"] != told["proxy return"]


@pytest.mark.parametrize(
    ("name", "said"), [("Silent", "has no picture of itself"), ("Unpainted", "pygame is not installed")]
)
def test_what_draws_nothing_is_said(name: str, said: str, described: Callable[[str], EnvRecord]) -> None:
    with pytest.raises(UserError, match=f"^environment 'rlkit-tests/{name}-v0'.*{said}"):
        drawing_env(described(name), None)


def test_a_policy_of_a_log_alone_cannot_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).round(4)
    text = "observation_0,action_0,reward\n" + "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "log.csv").write_text(text)
    agent: Any = rlkit.make("bc", tmp_path / "log.csv", hidden_sizes=(8,))
    agent.save(tmp_path / "a.rlk")
    assert main(["video", str(tmp_path / "a.rlk")]) == 2
    err = capsys.readouterr().err
    assert "names no environment" in err and err.count("\n") == 1 and not (tmp_path / "video.gif").exists()


@pytest.mark.parametrize(
    "words",
    ["--size 9x9", "--fps 0", "--episodes x", "--seconds 0", "--out a.txt", "--out a.gif --fps 60", "--out no/a.gif"],
)
def test_bad_input_is_one_sentence(words: str, tours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video", str(tours), *words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_many_pictures_are_refused_and_leave_nothing(
    tours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlkit.cli.frames.MOST", 100_000)
    assert main(["video", str(tours), "--size", "64x64", "--out", str(tmp_path / "a.gif")]) == 2
    assert "fewer --episodes, --seconds, --fps" in capsys.readouterr().err and not list(tmp_path.iterdir())
