"""What is loaded chooses no code, takes no memory that it does not hold, and is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import toy
from minari.serialization import serialize_space

from rlkit import registry
from rlkit.agents import BC, BEER, DRRPO, TD3BC
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.checkpoint import Allowance, read_artefact, require_alike, write_artefact
from rlkit.algorithms.hyperparameters import make_config
from rlkit.arguments import Argument, checked
from rlkit.cli import main
from rlkit.data import from_minari, load_dataset, read_d4rl, to_minari, write_d4rl
from rlkit.data.minari_store import store_root
from rlkit.errors import ArtefactError, DataError, UserError
from rlkit.spaces import read_space

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"hidden_sizes": (8,), "batch_size": 8, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "a.rlk"
    BC("MlpPolicy", toy.generate(size=60), **SMALL).save(path)
    return path


def altered(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """``source`` with its manifest changed; hashes are of the members, which stay."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, content)
    return target


def sentence(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command line says as it refuses ``words``: one line, exit code 2."""
    assert main(list(words)) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.startswith("rlkit: ") and text[:-1].isprintable()
    return text


# ---- nothing that is loaded names code -------------------------------------------------------------------------------

HOME = {"home": "os:system", "command": "touch MARKER"}
ENTRIES = {
    "a callable": ({"id": "rlkit-robotics/AdroitHandPen-v1", "kwargs": HOME}, "takes no keyword 'home'"),
    "a task of robotics": (
        {"id": "rlkit-robotics/FrankaKitchen-v1", "kwargs": {"task": "os:system"}},
        "no keyword 'task'",
    ),
    "a module before an id": ({"id": "hostile_canary:Env-v0", "kwargs": {}}, "names a module to import"),
    "a base to make": (
        {"id": "rlkit/HopperDistractors-v0", "kwargs": {"base": "canary:E"}},
        "no keyword 'base'",
    ),
    "a file to load": ({"id": "Hopper-v5", "kwargs": {"xml_file": "/etc/passwd"}}, "no keyword 'xml_file'"),
    "a value of another type": ({"id": "rlkit/TSP-v0", "kwargs": {"num_nodes": "os:system"}}, "a whole number from"),
    "a value out of range": ({"id": "rlkit/TSP-v0", "kwargs": {"num_nodes": 10**9}}, "a whole number from 1 to"),
    "a list": ([1, 2], "names no environment"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_an_artefact_cannot_choose_what_is_made(
    what: str, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, expected = ENTRIES[what]
    bad = altered(artefact, tmp_path / "bad.rlk", lambda manifest: manifest.update(env=entry))
    assert expected in sentence(capsys, "eval", str(bad), "episodes=1")
    with pytest.raises(ArtefactError, match=expected):
        BC.load(bad)
    with pytest.raises(ArtefactError, match=expected):
        Persistent.load(bad, device="cpu")


def test_a_planner_cannot_be_given_an_environment_by_its_file(tmp_path: Path) -> None:
    agent = DRRPO(env="linear-mdp", seed=0)
    agent.learn(2)
    agent.save(tmp_path / "a.rlk")
    assert DRRPO.load(tmp_path / "a.rlk").predict(np.array([0, 0]))[0] in range(2**5)
    for what, (entry, expected) in ENTRIES.items():
        bad = altered(
            tmp_path / "a.rlk", tmp_path / "bad.rlk", lambda manifest, entry=entry: manifest.update(env=entry)
        )
        with pytest.raises(ArtefactError, match=expected):
            DRRPO.load(bad)
        assert what
    for env, expected in ((None, "names no environment"), ({"id": "No/One-v0", "kwargs": {}}, "registered here")):
        bad = altered(tmp_path / "a.rlk", tmp_path / "bad.rlk", lambda manifest, env=env: manifest.update(env=env))
        with pytest.raises(ArtefactError, match=expected):
            DRRPO.load(bad)


def test_a_pointer_network_cannot_be_given_settings_by_its_file(tmp_path: Path) -> None:
    path = registry.shipped_weights("ptrnet", "convex-hull")
    for problem, expected in (
        ({"name": "os:system", "settings": {}}, "unknown env 'os:system'"),
        ({"name": "tsp", "settings": {"num_nodes": 10**10}}, "a whole number from 1 to"),
        ({"name": "tsp", "settings": {"base": "x"}}, "no keyword 'base'"),
        (None, "names no problem"),
    ):
        bad = altered(path, tmp_path / "bad.rlk", lambda manifest, p=problem: manifest.update(problem=p))
        with pytest.raises(ArtefactError, match=expected):
            Persistent.load(bad)


@pytest.mark.parametrize("what", [name for name in ENTRIES if name != "a list"])
def test_a_dataset_cannot_choose_what_is_made(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry, expected = ENTRIES[what]
    data = toy.generate(size=60)
    path = write_d4rl(data, tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        meta = json.loads(file["metadata/rlkit"][()])
        del file["metadata/rlkit"]
        file["metadata/rlkit"] = json.dumps(meta | {"env_id": entry["id"], "env_kwargs": entry["kwargs"]})
    with pytest.raises(DataError, match=expected):
        read_d4rl(path)
    assert expected in sentence(capsys, "data", "import", str(path), "--id", "toy/bad-v0")
    assert main(["data", "check", str(path)]) == 1
    assert expected in capsys.readouterr().out
    to_minari(data, "toy/hostile-v0", overwrite=True)
    place = next(
        Path(folder) for folder in (str(p) for p in store_root().rglob("metadata.json")) if "hostile" in folder
    )
    meta = json.loads(place.read_text())
    place.write_text(
        json.dumps(meta | {"rlkit": meta["rlkit"] | {"env_id": entry["id"], "env_kwargs": entry["kwargs"]}})
    )
    with pytest.raises(DataError, match=expected):
        from_minari("toy/hostile-v0")


def test_the_command_line_names_no_module(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train = ["train", "agent=beer", "total_timesteps=10", f"out={tmp_path / 'r'}"]
    assert "unknown key" in sentence(capsys, *train, "env=hopper-distractors", "env.kwargs.base=hostile_canary:E")
    assert "unknown key" in sentence(capsys, *train, "env=pen-human", "env.kwargs.home=os:system")
    assert "cannot be imported" in sentence(capsys, *train, "env=no_such_package:Env-v0")  # typed: nowhere else
    assert "names no package" in sentence(capsys, *train, "env=os.path/../x:Env-v0")
    assert "unknown key" in sentence(capsys, *train, "env=hopper", "env.kwargs.xml_file=/etc/passwd")
    assert "unknown key" in sentence(capsys, *train, "env=hopper", "+env.kwargs={xml_file: /etc/passwd}")
    path = write_d4rl(toy.generate(size=60), tmp_path / "a.hdf5")
    assert main(["data", "check", str(path), "--env", "hostile_canary:Env-v0"]) == 1
    assert "no plain id" in capsys.readouterr().out
    assert "no keyword" in sentence(capsys, "eval", "agent=bq", "env=tsp", "home=os:system")
    assert "a whole number" in sentence(capsys, "eval", "agent=bq", "env=tsp", "num_nodes=x")
    assert not (tmp_path / "r").exists() and "hostile_canary" not in sys.modules


def test_declared_keywords_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    from rlkit.config import compose_config

    config = compose_config(["agent=orpo", "env=tomato", "env.kwargs.reward=true", "env.kwargs.horizon=20"])
    assert dict(config.env.kwargs) == {"reward": "true", "horizon": 20}
    config = compose_config(["agent=beer", "env=contextual-pendulum", "env.kwargs.context={m: 2.0}"])
    assert config.env.kwargs.context == {"m": 2.0}
    for words, expected in (
        (["env=tomato", "env.kwargs.reward=both"], "expected proxy or true"),
        (["env=tomato", "env.kwargs.horizon=true"], "a whole number from 1 to"),
        (["env=tomato", "env.kwargs.horizn=3"], "did you mean 'env.kwargs.horizon'"),
        (["env=contextual-pendulum", "env.kwargs.context={mass: 2}"], "unknown name 'mass'"),
        (["env=contextual-pendulum", "env.kwargs.context={m: 1e9}"], "numbers by name"),
    ):
        with pytest.raises(UserError, match=expected):
            compose_config(["agent=orpo", *words])


def test_an_environment_that_nobody_registered_is_said(
    artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = altered(
        artefact, tmp_path / "b.rlk", lambda m: m.update(env={"id": "their/Plant-v3", "kwargs": {"p": [1, {}]}})
    )
    agent = BC.load(other, device="cpu")
    assert agent.predict(np.zeros(3, np.float32))[0].shape == (2,)
    with pytest.raises(UserError, match="'their/Plant-v3', which is not registered here"):
        agent.evaluator(1, 0)
    assert "their/Plant-v3" in sentence(capsys, "eval", str(other))
    agent.save(tmp_path / "c.rlk")  # what it was made in is not forgotten
    assert read_artefact(tmp_path / "c.rlk")[0]["env"]["id"] == "their/Plant-v3"


def test_a_dataset_of_an_unknown_environment_is_learnt_from() -> None:
    data = toy.generate(size=60).with_(env_id=None)
    to_minari(data, "toy/foreign-v0", overwrite=True)
    place = store_root() / "toy" / "foreign-v0" / "data" / "metadata.json"
    meta = json.loads(place.read_text())
    place.write_text(json.dumps(meta | {"rlkit": meta["rlkit"] | {"env_id": "their/Plant-v3", "env_kwargs": {"x": 1}}}))
    found = load_dataset("toy/foreign-v0")
    assert found.env_id is None and found.env_kwargs == {}


def test_the_watch_and_the_canary() -> None:
    """A few hundred hostile files of every kind in a process of its own, under an audit hook."""
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), "--inputs", "400", "--seed", "11"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "400 inputs, 0 did not pass" in found.stdout


@pytest.mark.slow
def test_ten_thousand_hostile_files() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), "--inputs", "10000", "--seed", "0"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-3000:]


def test_the_watch_sees() -> None:
    """The audit hook notes what it is for: a fuzz that cannot fail shows nothing."""
    code = (
        "import sys, os, pathlib, tempfile; sys.path.insert(0, sys.argv[1]); from fuzz import Watch\n"
        "watch, folder = Watch(), pathlib.Path(tempfile.mkdtemp())\n"
        "with watch.over(folder):\n"
        "    (folder / 'inside').write_text('x')\n"
        "assert watch.seen == [], watch.seen\n"
        "with watch.over(folder):\n"
        "    import wave; os.system('true'); exec('1'); (folder.parent / 'outside').write_text('x')\n"
        "print(sorted(line.split()[0] for line in watch.seen))\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['exec', 'import', 'open', 'os.system']"


# ---- a manifest switches nothing on ----------------------------------------------------------------------------------


def test_a_manifest_does_not_switch_on_a_compiler(artefact: Path, tmp_path: Path) -> None:
    bad = altered(artefact, tmp_path / "b.rlk", lambda manifest: manifest["config"].update(compile=True))
    assert BC.load(bad, device="cpu").config.compile is False


def test_a_manifest_does_not_start_processes(tmp_path: Path) -> None:
    shipped = registry.shipped_weights("bq", "tsp")
    bad = altered(shipped, tmp_path / "b.rlk", lambda manifest: manifest["config"].update(label_jobs=99))
    assert Persistent.load(bad).config.label_jobs == 1


def test_a_learner_of_mbtl_takes_no_place_to_write() -> None:
    from rlkit.agents.mbtl.train import learner_class

    for settings in ({"tensorboard_log": "/tmp/x"}, {"device": "cuda"}, {"policy": "x"}, {"no_such": 1}):
        with pytest.raises(UserError, match="ppo takes no"):
            learner_class("ppo", settings)


# ---- sizes before memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[9000, 9000], [10**9], [64] * 900, [2**40, 2]])
def test_networks_larger_than_the_file_are_refused_unmade(sizes: list[int], artefact: Path, tmp_path: Path) -> None:
    bad = altered(artefact, tmp_path / "b.rlk", lambda manifest: manifest["config"].update(hidden_sizes=sizes))
    made: list[int] = []
    before = torch.Tensor.uniform_

    def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(tensor.numel())
        return before(tensor, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", noted)
        with pytest.raises(ArtefactError):
            BC.load(bad, device="cpu")
    assert sum(made) < 50_000_000


def test_an_allowance_is_spent() -> None:
    with pytest.raises(ArtefactError, match="far larger"), Allowance(1000, 100):
        torch.empty(1000)
    with pytest.raises(ArtefactError, match="far larger"), Allowance(10**6, 3):
        for _ in range(5):
            torch.zeros(1)
    with Allowance(1000, 100):
        torch.nn.Linear(3, 4)
    torch.empty(1000)  # it is over outside


def test_a_replay_beyond_the_machine_is_refused() -> None:
    with pytest.raises(UserError, match="this machine has"):
        BEER("MlpPolicy", "contextual-pendulum", buffer_size=10**13, device="cpu")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ('{"type": "Box", "dtype": "float32", "shape": [100000, 100000], "low": 0, "high": 1}', "at most"),
        ('{"type": "Box", "dtype": "object", "shape": [1], "low": [0], "high": [1]}', "dtype"),
        ('{"type": "Box", "dtype": "float32", "shape": [2], "low": [2, 2], "high": [1, 1]}', "above its upper"),
        ('{"type": "Box", "dtype": "float32", "shape": [2], "low": [NaN, 0], "high": [1, 1]}', "above its upper"),
        ('{"type": "Discrete", "n": 1e99}', "whole number"),
        ('{"type": "Discrete", "n": -3}', "whole number"),
        ('{"type": "os:system"}', "expected Box"),
        ("[" * 100_000, "no space"),
        ("7", "no space"),
    ],
)
def test_a_space_is_checked_before_it_is_made(space: str, expected: str, artefact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        read_space(space, "its space")
    bad = altered(artefact, tmp_path / "b.rlk", lambda manifest: manifest.update(observation_space=space))
    with pytest.raises(ArtefactError):
        BC.load(bad)


def test_spaces_come_back() -> None:
    from gymnasium import spaces

    for space in (
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Box(0, 255, (4, 4), np.uint8),
        spaces.Box(np.array([-1.0, 0.25], np.float32), np.array([1.0, 2.0], np.float32)),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([5, 4]),
        spaces.MultiBinary(7),
        spaces.MultiBinary([2, 3]),
        spaces.Dict(a=spaces.Discrete(3), b=spaces.Tuple([spaces.Box(-1, 1, (2,), np.float64)])),
    ):
        assert read_space(serialize_space(space), "x") == space


def test_hdf5_holds_what_it_declares(tmp_path: Path) -> None:
    path = write_d4rl(toy.generate(size=60), tmp_path / "a.hdf5")
    for what in ("sparse", "external", "link", "text"):
        with h5py.File(path, "r+") as file:
            del file["observations"]
            if what == "sparse":
                file.create_dataset("observations", shape=(10**9, 11), dtype="f4", chunks=(1000, 11))
            elif what == "external":
                file.create_dataset("observations", shape=(60, 3), dtype="f4", external=[("/etc/passwd", 0, 720)])
            elif what == "link":
                file["observations"] = h5py.ExternalLink("/etc/passwd", "/x")
            else:
                file["observations"] = np.array([b"text"] * 60)
        expected = (
            "declares" if what == "sparse" else "other files" if what == "external" else "not an array of numbers"
        )
        with pytest.raises(DataError, match=expected):
            read_d4rl(path)
    with h5py.File(path, "r+") as file:
        del file["observations"]
        file.create_dataset("observations", data=np.zeros((60, 3), np.float32), compression="gzip", chunks=(60, 3))
    assert len(read_d4rl(path)) == 60  # compressed numbers are numbers


# ---- tensors go into what they fit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["shape", "dtype", "name", "missing", "state"])
def test_moments_of_another_form_never_reach_a_kernel(what: str, tmp_path: Path) -> None:
    agent = TD3BC("MlpPolicy", toy.generate(size=60), **SMALL)
    agent.learn(3)
    agent.save_checkpoint(tmp_path / "a.rlk")
    manifest, model, training = read_artefact(tmp_path / "a.rlk")
    assert training is not None
    key = next(name for name in sorted(training) if name.startswith("optimiser.") and name.endswith(".exp_avg"))
    if what == "shape":
        training[key] = torch.zeros(1)
    elif what == "dtype":
        training[key] = training[key].double()
    elif what == "name":
        training[key.replace("exp_avg", "exp_average")] = training.pop(key)
    elif what == "missing":
        training.pop(key)
    else:
        training["generator.noise"] = torch.zeros(3, dtype=torch.uint8)
    manifest.pop("sha256")
    write_artefact(tmp_path / "b.rlk", manifest, model, training)
    with pytest.raises(ArtefactError, match=r"^[^\n]+$"):
        TD3BC("MlpPolicy", toy.generate(size=60), **SMALL).restore(tmp_path / "b.rlk")


def test_weights_are_compared_in_name_shape_and_dtype(artefact: Path, tmp_path: Path) -> None:
    own = {"a": torch.zeros(2, 3), "b": torch.zeros(3)}
    for bad, expected in (
        ({"a": torch.zeros(2, 3)}, "'b' is missing"),
        ({**own, "c": torch.zeros(1)}, "'c' is unknown"),
        ({**own, "a": torch.zeros(3, 2)}, r"\[3, 2\], expected torch.float32 \[2, 3\]"),
        ({**own, "b": torch.zeros(3, dtype=torch.float64)}, "float64"),
        ({**own, "b": torch.full((3,), torch.nan)}, "holds NaN"),
    ):
        with pytest.raises(ArtefactError, match=expected):
            require_alike(bad, own, "x")
    manifest, model, _ = read_artefact(artefact)
    manifest.pop("sha256")
    name = sorted(model)[0]
    for tensor in (model[name].double(), model[name][None], torch.full_like(model[name], torch.nan)):
        write_artefact(tmp_path / "b.rlk", manifest, {**model, name: tensor})
        with pytest.raises(ArtefactError, match=name):
            BC.load(tmp_path / "b.rlk")


# ---- one line whatever is wrong --------------------------------------------------------------------------------------


def test_whatever_is_wrong_is_one_line(artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(artefact) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    texts = [
        *("[" * 100_000, '{"format": ' + "9" * 5000 + "}", "[]", "null", "\x00", '{"format": 1}', '{"format": true}'),
        *(json.dumps(manifest | {key: None}) for key in ("config", "seed", "agent", "sha256", "num_timesteps")),
        *(json.dumps(manifest | {"agent": name}) for name in ("\x1b[2J\n\nlines", ["bc"], "os:system")),
        *(json.dumps(manifest | {"config": config}) for config in ([], {"nope": 1}, {"batch_size": True})),
        *(json.dumps(manifest | {"seed": seed}) for seed in (-1, 2**40, "x", 1.5)),
    ]
    for text in texts:
        with zipfile.ZipFile(tmp_path / "b.rlk", "w", zipfile.ZIP_STORED) as archive:
            for name, content in {**members, "manifest.json": text.encode()}.items():
                archive.writestr(name, content)
        sentence(capsys, "eval", str(tmp_path / "b.rlk"), "env=hopper")
        with pytest.raises(ArtefactError, match=r"^[^\n]+$"):
            BC("MlpPolicy", toy.generate(size=60), **SMALL).restore(tmp_path / "b.rlk")


def test_encrypted_members_are_refused(artefact: Path, tmp_path: Path) -> None:
    data = artefact.read_bytes()
    at = data.index(b"PK\x01\x02")
    (tmp_path / "b.rlk").write_bytes(data[: at + 8] + b"\x01" + data[at + 9 :])
    with pytest.raises(ArtefactError, match="encrypted"):
        BC.load(tmp_path / "b.rlk")


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    agent = BC("MlpPolicy", toy.generate(size=60), **SMALL)
    agent.save_checkpoint(tmp_path / "a.rlk")
    with pytest.raises(ArtefactError, match="another seed"):
        BC("MlpPolicy", toy.generate(size=60), **{**SMALL, "seed": 1}).restore(tmp_path / "a.rlk")


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_check_what_they_declare() -> None:
    known = {
        "n": Argument(int, 1, 5),
        "x": Argument(float, 0, 1, optional=True),
        "flag": Argument(bool),
        "word": Argument(str, choices=("true", "proxy")),
        "pair": Argument(float, length=(2, 2)),
        "by": Argument(dict, 0, 9, choices=("a", "b")),
    }
    good = {"n": 3, "x": None, "flag": True, "word": True, "pair": [0, 1.5], "by": {"a": 2}}
    assert checked(good, known, "env") == {**good, "word": "true"}
    for name, values in {
        "n": (0, 6, 2.0, True, "3", None, [1], 10**400),
        "x": (-0.1, 1.1, float("nan"), float("inf"), "0.5", True),
        "flag": (1, "true", None),
        "word": ("other", 1, None, False),
        "pair": ([1], [1, 2, 3], 1, [1, "2"], [1, None]),
        "by": ({"c": 1}, {"a": 10}, {"a": True}, {1: 1}, [1]),
        "none": (1,),
    }.items():
        for value in values:
            with pytest.raises(UserError, match=r"^env[^\n]*$"):
                checked({name: value}, known, "env")


def test_every_record_declares_what_it_sets() -> None:
    for name, record in registry.records().items():
        if name not in registry._records:  # what tests added
            assert set(record.env_kwargs) <= set(record.arguments), record.name
            assert registry.configured(record, dict(record.env_kwargs)).env_kwargs == record.env_kwargs


def test_hyperparameters_are_of_their_types() -> None:
    for values, expected in (
        ({"batch_size": 8.0}, "is not a whole number, expected one like 256"),
        ({"batch_size": True}, "is not a whole number"),
        ({"batch_size": "8"}, "is not a whole number"),
        ({"learning_rate": float("nan")}, "is not a number"),
        ({"learning_rate": float("inf")}, "is not a number"),
        ({"learning_rate": None}, "is not a number"),
        ({"hidden_sizes": 8}, "a sequence of whole numbers"),
        ({"hidden_sizes": "88"}, "a sequence of whole numbers"),
        ({"hidden_sizes": [8, 1.5]}, "a sequence of whole numbers"),
        ({"hidden_sizes": [8] * 2000}, "a sequence of whole numbers"),
        ({"normalise_observations": 1}, "is not a truth value"),
        ({"reward_scale": "x"}, "is not a number or null"),
    ):
        with pytest.raises(UserError, match=expected):
            make_config(BC, values)
    found = make_config(BC, {"batch_size": np.int64(8), "learning_rate": 1, "hidden_sizes": [4, 4]})
    assert (found.batch_size, found.hidden_sizes) == (8, (4, 4))


# ---- a run's own files -----------------------------------------------------------------------------------------------


def test_a_run_cannot_choose_what_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    settings = ["agent=bc", "env=point-noisy", "agent.hidden_sizes=[8]", "agent.batch_size=8", "total_timesteps=4"]
    quiet = ["eval_every=0", "final_episodes=1", "progress_bar=false", "tensorboard=false", f"out={out}"]
    assert main(["train", *settings, *quiet]) == 0
    config = (out / "config.yaml").read_text()
    (out / "result.json").unlink()
    for before, after, expected in (
        ("kwargs: {}", "kwargs: {home: 'os:system', command: touch hit}", "no keyword 'home'"),
        ("kwargs: {}", "kwargs: {base: 'canary:E'}", "no keyword 'base'"),
        ("name: point-noisy", "name: canary:Env-v0", "unknown env"),
        ("name: bc", "name: os:system", "unknown agent"),
        ("seed: 0", "seed: ${oc.env:HOME}", "stands for another value"),
        ("seed: 0", "seed: !!python/object/apply:os.system [touch hit]", "not the configuration of a run"),
        ("seed: 0", "seed: 1", "a run goes on with the settings it began with"),
        ("- 8", "- 9000\n  - 9000", "a run goes on with the settings it began with"),
    ):
        assert before in config
        (out / "config.yaml").write_text(config.replace(before, after, 1))
        assert expected in sentence(capsys, "resume", str(out), "progress_bar=false")
    (out / "config.yaml").write_text(config)
    (newest,) = (out / "checkpoints").glob("*.rlk")
    whole = newest.read_bytes()
    for extra in ({"seconds": []}, {"evaluations": 3}, {"metrics_bytes": True}, {"changes": [1]}, {"config": 3}):
        bad = altered(newest, tmp_path / "bad.rlk", lambda found, e=extra: found["training"]["extra"].update(e))
        newest.write_bytes(bad.read_bytes())
        assert "no readable checkpoint" in sentence(capsys, "resume", str(out), "progress_bar=false")
        newest.write_bytes(whole)
    assert main(["resume", str(out), "progress_bar=false"]) == 0


# ---- what lies beside somebody's data --------------------------------------------------------------------------------


def test_processes_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """As the command runs, from a script elsewhere: neither a module named like a package nor one of Python's own."""
    place, script = tmp_path / "data", tmp_path / "bin" / "rlkit.script"
    place.mkdir()
    script.parent.mkdir()
    for name in ("signal", "threading", "numba", "mujoco", "hostile"):
        (place / f"{name}.py").write_text("import pathlib\npathlib.Path('ran').touch()\nraise SystemExit(9)\n")
    script.write_text(
        "import os, subprocess\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from rlkit.cli.frames import PROBE\n"
        "from rlkit.system.python import child, spawning\n"
        "if __name__ == '__main__':\n"
        "    for code in ('import numba, rlkit; print(4)', 'import hostile', PROBE):\n"
        "        subprocess.run(**child('-c', code, MUJOCO_GL='none'), stderr=subprocess.DEVNULL)\n"
        "    with ProcessPoolExecutor(1, spawning()) as pool:\n"
        "        print(pool.submit(abs, -3).result(), os.environ.get('PYTHONSAFEPATH'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, str(script)]
    found = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["4", "3", "None"], found.stderr
    assert not (place / "ran").exists()
    bare = subprocess.run(
        [sys.executable, "-c", "import hostile"], cwd=place, env=environment, check=False
    )  # the trap is one
    assert bare.returncode == 9 and (place / "ran").exists()
