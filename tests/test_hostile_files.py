"""Files that hide, link, swell or lie: refused in one line, before memory is taken and before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import toy

from rlkit.agents import BC
from rlkit.cli import main
from rlkit.data import from_minari, load_dataset, read_d4rl, to_minari, write_d4rl
from rlkit.data.minari_store import store_root
from rlkit.errors import ArtefactError, DataError, UserError, refusing, shown
from rlkit.spaces import read_space
from rlkit.system.files import require_whole

SMALL = {"hidden_sizes": (8,), "batch_size": 8, "device": "cpu", "seed": 0}
TINY = ["agent=bc", "env=point-noisy", "agent.hidden_sizes=[8]", "agent.batch_size=8", "total_timesteps=4"]
QUIET = ["log_every=1", "checkpoint_every=2", "eval_every=2", "final_episodes=2", "progress_bar=false"]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "a.rlk"
    BC("MlpPolicy", toy.generate(size=60), **SMALL).save(path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "run"
    assert main(["train", *TINY, *QUIET, "tensorboard=false", f"out={out}"]) == 0
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run that lacks its result."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


def sentence(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.startswith("rlkit: ") and text[:-1].isprintable()
    return text


def rewritten(source: Path, target: Path, model: bytes | None = None, **changes: Any) -> Path:
    """``source`` with other tensors and another manifest, its hash right."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    model = members["model.safetensors"] if model is None else model
    digest = {"model.safetensors": hashlib.sha256(model).hexdigest()}
    manifest = json.loads(members["manifest.json"]) | {"sha256": digest} | changes
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("model.safetensors", model)
    return target


# ---- artefacts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["GymV21Environment-v0", "phys2d/CartPole-v1", "Hopper-v5", "Blackjack-v1"])
def test_an_environment_that_cannot_be_made_or_does_not_fit(
    env_id: str, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"id": env_id, "kwargs": {}, "reference": None}
    text = sentence(capsys, "eval", rewritten(artefact, tmp_path / "b.rlk", env=entry), "episodes=1")
    assert "cannot be made" in text or "has the observation space" in text


def test_an_artefact_in_another_environment(artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Box(-inf, inf, (3,), float32), Hopper-v5 has" in sentence(capsys, "eval", artefact, "env=hopper")
    assert "rlkit/TSP-v0 has Dict" in sentence(capsys, "eval", artefact, "env=tsp")


def test_a_header_of_many_tensors_is_not_parsed(artefact: Path, tmp_path: Path) -> None:
    entries = ",".join(f'"a{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(100_000))
    text = f"{{{entries}}}".encode()
    bad = rewritten(artefact, tmp_path / "b.rlk", struct.pack("<Q", len(text)) + text)
    with pytest.raises(ArtefactError, match="a header of more than"):
        BC.load(bad)


def test_a_directory_of_many_members_is_not_parsed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.rlk", "w") as archive:
        for number in range(4000):
            archive.writestr(zipfile.ZipInfo(f"m{number}"), b"")
    with pytest.raises(ArtefactError, match="its directory has"):
        BC.load(tmp_path / "b.rlk")


def test_a_comment_as_long_as_a_zip_may_have_is_no_fault(artefact: Path, tmp_path: Path) -> None:
    shutil.copyfile(artefact, tmp_path / "b.rlk")
    with zipfile.ZipFile(tmp_path / "b.rlk", "a") as archive:
        archive.comment = b"x" * 65535
    assert BC.load(tmp_path / "b.rlk", device="cpu").num_timesteps == 0


def test_files_that_are_holes(tmp_path: Path, artefact: Path) -> None:
    path = shutil.copyfile(artefact, tmp_path / "b.rlk")
    os.truncate(path, 3 << 30)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this disk has no sparse files")
    with pytest.raises(DataError, match="expected a file without holes"):
        require_whole(path, DataError)
    with pytest.raises(ArtefactError, match="without holes"):
        BC.load(path)
    os.truncate(path, 1 << 20)
    require_whole(path, DataError)  # small ones do no harm


def test_many_spaces_within_a_space() -> None:
    box = {"type": "Box", "dtype": "float64", "shape": [1_000_000], "low": 0, "high": 1}
    for kind, parts in (
        ("Dict", {str(i): box for i in range(9)}),
        ("Tuple", [box] * 9),
        ("Tuple", [{"type": "Discrete", "n": 2}] * 9000),
    ):
        text = json.dumps({"type": kind, "subspaces": parts})
        with pytest.raises(UserError, match="expected"):
            read_space(text, "its space")


# ---- sentences -------------------------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_shown() -> None:
    assert shown(1 << 40_000) == "a very long int"
    with pytest.raises(DataError, match=r"^here a b$"), refusing("here", "is bad", DataError):
        raise DataError("here a\n\x1bb")


@pytest.mark.parametrize("word", ["episodes=²", "episodes=" + "9" * 5000, "episodes=" + "9" * 20, "seed=4294967296"])
def test_counts_of_an_evaluation(word: str, artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a whole number from" in sentence(capsys, "eval", artefact, word)


@pytest.mark.parametrize("text", ["2001-99-99", "0x" + "f" * 6000, "[" * 3000])
def test_arguments_of_an_environment(text: str, artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "num_nodes" in sentence(capsys, "eval", artefact, "env=tsp", f"num_nodes={text}")


def test_names_of_files_are_printed_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such artefact" in sentence(capsys, "eval", "a\nb\x1b[2J")


# ---- datasets --------------------------------------------------------------------------------------------------------


def test_hdf5_that_swells(tmp_path: Path) -> None:
    path = write_d4rl(toy.generate(size=60), tmp_path / "a.hdf5")
    rows, block = 100_000_000, zlib.compress(bytes(4 << 20), 9)
    for what, expected in (("many", "declares"), ("part", "kept in parts of"), ("text", "'metadata/rlkit'")):
        shutil.copyfile(path, tmp_path / "b.hdf5")
        with h5py.File(tmp_path / "b.hdf5", "r+") as file:
            if what == "text":
                del file["metadata/rlkit"]
                kind = h5py.h5t.C_S1.copy()
                kind.set_size(2_000_000_000)
                h5py.h5d.create(file["metadata"].id, b"rlkit", kind, h5py.h5s.create(h5py.h5s.SCALAR))
            else:
                del file["rewards"]
                shape, chunk = ((rows,), 1 << 20) if what == "many" else ((60,), 50_000_000)
                made = file.create_dataset(
                    "rewards", shape, "f4", chunks=(chunk,), maxshape=(None,), compression="gzip"
                )
                for start in range(0, shape[0], chunk):
                    made.id.write_direct_chunk((start,), block)
        with pytest.raises(DataError, match=expected):
            read_d4rl(tmp_path / "b.hdf5")


def test_names_and_details_of_hdf5_move_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_d4rl(toy.generate(size=60), tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        meta = json.loads(file["metadata/rlkit"][()])
        meta["origin"]["details"] = {"a\x1b[2J": "b\n\x1b]0;title\x07", "policies": [1]}
        del file["metadata/rlkit"]
        file["metadata/rlkit"] = json.dumps(meta)
    assert main(["data", "info", str(path)]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file["a\nb\x1b[2J"] = 1
    assert "has no 'rewards'" in sentence(capsys, "data", "info", path)


def test_an_id_is_checked_before_data_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no Minari id" in sentence(capsys, "data", "import", "hopper-medium", "--id", "x")


def test_episodes_that_are_one_episode(tmp_path: Path) -> None:
    to_minari(toy.generate(size=60), "toy/linked-v0", overwrite=True)
    data = store_root() / "toy" / "linked-v0" / "data"
    meta = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps(meta | {"total_episodes": 20}))
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        for name in list(file):
            del file[name]
        first = file.create_group("episode_0")
        shapes = {"observations": (20_001, 3), "actions": (20_000, 2), "rewards": 20_000}
        for name, shape in shapes.items():
            first[name] = np.zeros(shape, np.float32)
        for name in ("terminations", "truncations"):
            first[name] = np.zeros(20_000, bool)
        for index in range(1, 20):
            file[f"episode_{index}"] = first
    with pytest.raises(DataError, match="more numbers than the file holds"):
        from_minari("toy/linked-v0")
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        del file["episode_3"]
        file["episode_3"] = np.zeros(3)
    with pytest.raises(DataError, match=r"^[^\n]+$"):
        from_minari("toy/linked-v0")
    (data / "main_data.hdf5").unlink()
    os.mkfifo(data / "main_data.hdf5")
    with pytest.raises(DataError, match="is no file"):
        from_minari("toy/linked-v0")


# ---- folders of runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".rlkit-lock", ".rlkit-run", ".former", "metrics.jsonl", "checkpoints", "tensorboard"]
)
def test_a_run_is_written_through_no_link(
    name: str, run: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(finished, theirs)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(theirs / name if (theirs / name).exists() else theirs)
    assert "is a link" in sentence(capsys, "resume", run, "progress_bar=false")
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "9" * 30, "2001-99-99", "!!binary aGk=", "!!set {a}", ".inf"])
def test_numbers_of_a_config(value: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.yaml").read_text()
    for line in ("total_timesteps: 4", "name: bc", "seed: 0"):
        assert line in text
        (run / "config.yaml").write_text(text.replace(line, f"{line.split(': ')[0]}: {value}", 1))
        sentence(capsys, "resume", run, "progress_bar=false")


LONG = "9" * 400
LINES = [
    *("7", "[]", '{"step": "x"}', '{"eval/score": 1}', '{"step": 1, "eval/score": "x"}'),
    *('{"step": 1, "eval/score": NaN}', f'{{"step": 1, "eval/score": {LONG}}}', f'{{"step": {LONG}, "eval/score": 1}}'),
]


@pytest.mark.parametrize("line", LINES)
def test_a_log_that_cannot_be_drawn(line: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_text(f"{line}\n")
    sentence(capsys, "plot", run, "--out", tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()


def test_what_a_picture_is_of(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("[]", '{"dataset": 7}', '{"dataset": {"sha256": 7}}', "[" * 5000):
        (run / "result.json").write_text(text)
        assert main(["plot", str(run), "--out", str(tmp_path / "p.png")]) == 0
    for out in (tmp_path, tmp_path / "p.foo", tmp_path / "p", "\0.png"):
        assert "expected a file ending in .png" in sentence(capsys, "plot", run, "--out", out)
    for name in ("metrics.jsonl", ".rlkit-run"):
        (run / name).unlink()
        os.mkfifo(run / name)
    sentence(capsys, "plot", run, "--out", tmp_path / "p.png")
    sentence(capsys, "resume", run, "progress_bar=false")


# ---- logs ------------------------------------------------------------------------------------------------------------


ROWS = "\n".join(f"{i},{i % 2},1" for i in range(20))
LOGS: dict[str, tuple[str, str]] = {
    "a cell longer than any number": (f"obs_0,action,reward\n{'9' * 200_000},0,1\n{ROWS}", "as lines of cells"),
    "a quote that never ends": (f'obs_0,action,reward\n"{ROWS * 2000}', "as lines of cells"),
    "a file of one line": ("obs_0,action,reward," + "x," * (1 << 23), "a line of more than 16,777,216 characters"),
    "a name that clears the screen": (f"obs_0,\x1b[2J,action,reward\n{ROWS}", "is unprintable"),
    "a name over two lines": (f'obs_0,"act\nion",reward\n{ROWS}', "cannot be read|has several|unprintable|expected"),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_log_that_is_no_log(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = LOGS[case]
    (tmp_path / "log.csv").write_text(text)
    told = sentence(capsys, "train", "agent=bc", f"env={tmp_path / 'log.csv'}", f"out={tmp_path / 'run'}")
    assert re.search(said, told) and len(told) < 1000 and not (tmp_path / "run").exists()


HEADERS: dict[str, tuple[bytes, str]] = {
    "more than there is": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", "holds fewer"),
    "objects": (b"{'descr': '|O', 'fortran_order': False, 'shape': (20,)}", "is no array of numbers"),
    "a call": (b"__import__('os').system('true')", "expected an NPZ file"),
    "fewer than none": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "expected"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_an_npz_whose_header_lies(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, said = HEADERS[case]
    np.savez(tmp_path / "log.npz", obs=np.arange(20.0), action=np.arange(20.0) % 3)
    with zipfile.ZipFile(tmp_path / "log.npz", "a") as archive:
        archive.writestr("reward.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80))
    assert said in sentence(capsys, "data", "info", tmp_path / "log.npz")


def test_episodes_that_are_no_names(tmp_path: Path) -> None:
    columns = {"obs": np.arange(20.0), "action": np.arange(20.0) % 7, "reward": np.ones(20)}
    np.savez(tmp_path / "log.npz", **columns, episode=np.arange(20)[:, None] // 10)  # one number a row, in a vector
    assert len(load_dataset(tmp_path / "log.npz").episode_ends) == 2
    for cells, held in (
        ([[1.0]] * 20, "array"),
        (["a"] * 19 + [None], "nothing at row 19"),
        ([1.5, None] * 10, "nothing"),
    ):
        with pytest.raises(DataError, match=f"'episode' holds {held}"):
            odd = np.empty(20, object)
            odd[:] = [np.array(cell) if isinstance(cell, list) else cell for cell in cells]
            load_dataset({**columns, "episode": odd})
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({**columns, "episode": [[1.0]] * 20})
    parquet.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"'episode' holds .* at row 0, expected an episode's name"):
        load_dataset(tmp_path / "log.parquet")
