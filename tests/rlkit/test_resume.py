"""``rlkit resume``: the run's configuration is checked as that of a new run is, and must be its checkpoint's."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import toy
import yaml

from rlkit import registry
from rlkit.arguments import Argument
from rlkit.cli import main
from rlkit.system.plain import MAX_CONFIG

TRAIN = ["train", "agent=bc", "env=point-noisy", "total_timesteps=40", "log_every=10", "eval_every=20"]
TRAIN += ["eval_episodes=2", "final_episodes=2", "agent.batch_size=8", "agent.hidden_sizes=[8]", "progress_bar=false"]
TRAIN += ["tensorboard=false", "checkpoint_every=20", "out=r"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Path:
    assert main(TRAIN) == 0
    return Path("r")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "r"
    assert main([*TRAIN[:-1], f"out={out}"]) == 0
    return out


def content(run: Path) -> dict[str, bytes]:
    names = ("config.yaml", "metrics.jsonl", "model.rlk", "result.json")
    return {name: (run / name).read_bytes() for name in names} | {
        path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()
    }


def refused(argv: list[str], capsys: Any, *expected: str) -> None:
    before = content(Path("r"))
    capsys.readouterr()
    assert main(argv) == 2
    text = capsys.readouterr().err
    assert text.startswith("rlkit: ") and text.count("\n") == 1, text
    for word in expected:
        assert word in text, text
    assert content(Path("r")) == before


def edit(run: Path, change: Any) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    change(settings)
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


@pytest.mark.parametrize(
    ("group", "key", "value", "expected"),
    [
        (None, "seed", 1, "seed=0, expected that in config.yaml, not 1"),
        (None, "eval_every", 10, "eval_every=20"),
        (None, "eval_episodes", 3, "eval_episodes=2"),
        (None, "log_every", 20, "log_every=10"),
        (None, "final_episodes", 3, "final_episodes=2"),
        (None, "total_timesteps", 39, "total_timesteps=40"),
        ("agent", "batch_size", 16, "agent.batch_size=8, expected that in config.yaml, not 16"),
        ("agent", "learning_rate", 0.1, "expected that in config.yaml, not 0.1"),
        ("env", "data_seed", 1, "env.data_seed=0"),
        ("env", "size", 500, "expected that in config.yaml, not 500"),
        ("env", "source", "auto", "env.source=generated"),
    ],
)
def test_settings_other_than_the_checkpoints_are_refused(
    group: str | None, key: str, value: Any, expected: str, run: Path, capsys: Any
) -> None:
    edit(run, lambda settings: (settings[group] if group else settings).update({key: value}))
    if key == "source":  # settled anew to the same
        assert main(["resume", "r"]) == 0
    else:
        refused(["resume", "r"], capsys, "step_0000000040.rlk", expected)


def test_other_arguments_of_the_environment_are_refused(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"render_mode": Argument(str, choices=("rgb_array",), optional=True)}
    drawn = dataclasses.replace(
        toy.RECORD, name="point-drawn", env_kwargs={"render_mode": "rgb_array"}, arguments=known
    )
    monkeypatch.setitem(registry._records, "point-drawn", drawn)
    assert main([argument.replace("point-noisy", "point-drawn") for argument in TRAIN]) == 0
    edit(Path("r"), lambda settings: settings["env"]["kwargs"].update(render_mode=None))
    refused(["resume", "r"], capsys, "env.kwargs.render_mode='rgb_array', expected that in config.yaml, not None")


def test_a_checkpoint_of_before_is_compared_by_its_seed(
    run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlkit.algorithms.base import Persistent

    save = Persistent.save_checkpoint

    def older(self: Any, path: Any, extra: Any = None) -> None:
        save(self, path, {key: extra[key] for key in ("evaluations", "metrics_bytes", "seconds")})

    with monkeypatch.context() as patch:
        patch.setattr(Persistent, "save_checkpoint", older)
        assert main([*TRAIN, "overwrite=true"]) == 0
    expected = content(run)["model.rlk"]
    assert main(["resume", "r"]) == 0 and content(run)["model.rlk"] == expected
    edit(run, lambda settings: settings.update(seed=1))
    refused(["resume", "r"], capsys, "seed=0, expected that in config.yaml, not 1")


def test_what_touches_no_number_may_change(run: Path, capsys: Any) -> None:
    before = content(run)
    edit(run, lambda settings: settings.update(checkpoint_every=7, progress_bar=True, out="elsewhere", overwrite=True))
    Path("r").rename("moved=1")  # an equals sign is no setting
    assert main(["resume", "moved=1", "progress_bar=false"]) == 0
    after = content(Path("moved=1"))
    assert [name for name in ("model.rlk", "metrics.jsonl") if before[name] != after[name]] == []


def test_another_number_of_threads_is_said_and_written(run: Path, capsys: Any) -> None:
    assert main(["resume", "r", "threads=2", "total_timesteps=50"]) == 0
    assert "threads was 1 and is 2" in capsys.readouterr().out
    assert main(["resume", "r", "total_timesteps=60"]) == 0
    assert "threads" not in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert result["changes"] == [{"step": 40, "setting": "threads", "from": 1, "to": 2}]
    assert result["config"]["threads"] == 2 and result["config"]["total_timesteps"] == 60
    import torch

    torch.set_num_threads(1)


def test_a_longer_run_stays_longer(run: Path, capsys: Any) -> None:
    refused(["resume", "r", "total_timesteps=39"], capsys, "total_timesteps=39 is less than the 40")
    assert main(["resume", "r", "total_timesteps=60"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["total_timesteps"] == 60
    (run / "checkpoints" / "step_0000000060.rlk").unlink()  # as if killed on the way
    assert main(["resume", "r"]) == 0
    assert json.loads((run / "result.json").read_text())["updates"] == 60
    refused(["resume", "r", "total_timesteps=50"], capsys, "less than the 60")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("total_timesteps=many", "total_timesteps: Value 'many'"),
        ("total_timesteps=1e9", "total_timesteps: Value '1e9'"),
        ("total_timesteps=-5", "out of range"),
        ("progress_bar=maybe", "progress_bar"),
        ("threads=0", "threads=0 is out of range"),
        ("threads=1000000", "threads=1000000 is out of range"),
        ("device=gpu", "device=gpu is unknown"),
        ("seed=1", "usage"),
        ("more", "usage"),
    ],
)
def test_bad_arguments_get_a_sentence(argument: str, expected: str, finished: Path, capsys: Any) -> None:
    Path("r").symlink_to(finished)
    refused(["resume", "r", argument], capsys, expected)


HOSTILE = {
    "an interpolation": ("out: ${oc.env:SECRET}", "stands for another value"),
    "a resolver in a list": ("agent: {name: bc, hidden_sizes: ['${oc.decode:8}']}", "stands for another value"),
    "a value to come": ("seed: ???", "stands for another value"),
    "an object": ("seed: !!python/object/apply:os.system ['touch ran']", "could not determine a constructor"),
    "a module": ("seed: !!python/module:antigravity ''", "could not determine a constructor"),
    "an alias": ("seed: &a 0\nthreads: *a", "alias"),
    "a date": ("seed: 2020-01-01", "holds a date"),
    "bytes": ("out: !!binary aGk=", "holds a bytes"),
    "deep": ("seed: " + "[" * 20_000, "recursion"),
    "a number of many digits": ("seed: " + "9" * 10_000, "digits"),
    "a list": ("- 1", "holds no settings"),
    "nothing": ("", "holds no settings"),
    "half": ("agent: {name: bc", "expected"),
    "control characters": ("out: \x00", "not the configuration"),
    "large": ("# " + "x" * MAX_CONFIG, f"more than {MAX_CONFIG} bytes"),
    "a key that is a number": ("1: 2", "the key 1 is no name"),
}
WRONG: dict[str, Any] = {
    "seed": [
        ("x", "seed: Value 'x'"),
        (-1, "seed=-1"),
        (2**32, "out of range"),
        (None, "not Optional"),
        (True, "seed"),
    ],
    "log_every": [(0, "out of range"), (1.5, "log_every"), (float("nan"), "log_every"), (float("inf"), "log_every")],
    "threads": [(10**30, "more than twenty digits"), (10**6, "out of range")],
    "device": [("gpu", "device=gpu is unknown")],
    "sed": [(1, "unknown key 'sed'; did you mean 'seed'")],
    "agent": [
        (3, "unknown agent 'None'"),
        ({"name": "bcc"}, "did you mean 'bc'"),
        ({"name": ["bc"]}, "unknown agent"),
        ({"name": "bc", "_target_": "os.system"}, "_target_"),
        ({"name": "td3bc"}, "a run goes on with the settings"),
        ({"name": "bc", "batch_size": "8"}, "a run goes on with the settings"),  # a number in quotes is that number
        ({"name": "bc", "batch_size": 0}, "expected that in config.yaml, not 0"),
        ({"name": "bc", "hidden_sizes": "8"}, "hidden_sizes"),
    ],
    "env": [
        ({"name": "os:system"}, "unknown env 'os:system'"),
        ({"name": "point-noisy", "kwargs": {"entry_point": "os:system"}}, "takes no keyword 'entry_point'"),
        ({"name": "point-noisy", "kwargs": 3}, "env.kwargs"),
        ({"name": "point-noisy", "id": "os:system"}, "env.id"),
    ],
}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_config_is_plain_data(
    text: str, finished: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "told")
    Path("r").symlink_to(finished)
    before = (finished / "config.yaml").read_bytes()
    (finished / "config.yaml").write_text(HOSTILE[text][0])
    try:
        refused(["resume", "r"], capsys, "config.yaml", HOSTILE[text][1])
    finally:
        (finished / "config.yaml").write_bytes(before)
    assert not os.path.exists("ran")  # noqa: PTH110


@pytest.mark.parametrize(("key", "value", "expected"), [(k, *pair) for k, pairs in WRONG.items() for pair in pairs])
def test_a_config_has_the_types_and_ranges_of_a_new_run(
    key: str, value: Any, expected: str, finished: Path, capsys: Any
) -> None:
    Path("r").symlink_to(finished)
    before = (finished / "config.yaml").read_bytes()
    edit(finished, lambda settings: settings.update({key: value}))
    try:
        refused(["resume", "r"], capsys, expected)
    finally:
        (finished / "config.yaml").write_bytes(before)


# ---- the log and the checkpoints -------------------------------------------------------------------------------------


def test_a_log_shorter_than_the_checkpoint_is_never_padded(run: Path, capsys: Any) -> None:
    expected = content(run)
    log = run / "metrics.jsonl"
    newest = json.loads(_manifest(run / "checkpoints" / "step_0000000040.rlk"))["training"]["extra"]["metrics_bytes"]
    older = json.loads(_manifest(run / "checkpoints" / "step_0000000020.rlk"))["training"]["extra"]["metrics_bytes"]
    for left in (older, older + 5):
        log.write_bytes(expected["metrics.jsonl"][:left])
        assert main(["resume", "r"]) == 0
        printed = capsys.readouterr().out
        assert f"counts on {newest} bytes" in printed and "resuming at step 20" in printed
        after = content(run)
        assert all(after[name] == expected[name] for name in ("metrics.jsonl", "model.rlk"))
    for left in (0, older - 1):
        log.write_bytes(expected["metrics.jsonl"][:left])
        refused(["resume", "r"], capsys, "no readable checkpoint", f"which has {left}")
    log.unlink()
    capsys.readouterr()
    assert main(["resume", "r"]) == 2 and "which has 0" in capsys.readouterr().err
    assert not log.exists()


def _manifest(path: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return archive.read("manifest.json")


def test_a_damaged_newest_checkpoint_is_mentioned(run: Path, capsys: Any) -> None:
    newest = run / "checkpoints" / "step_0000000040.rlk"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert main(["resume", "r"]) == 0
    printed = capsys.readouterr().out
    assert f"{newest}: not a readable rlkit artefact" in printed and "going on from an older checkpoint" in printed


def test_a_finished_run_without_its_checkpoints_is_not_begun_again(run: Path, capsys: Any) -> None:
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    refused(["resume", "r"], capsys, "no checkpoint to go on from")
