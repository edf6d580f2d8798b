"""Logs: every form gives the same dataset, columns are found or named, and what is wrong is one sentence."""

from __future__ import annotations

import csv
import io
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

import rlkit
from rlkit.cli import main
from rlkit.data import check_dataset, to_minari
from rlkit.data.logs import read_log
from rlkit.errors import Caution, DataError, UserError

LENGTHS, ENDED = (30, 1, 50, 20), (1, 1, 0, 1)  # of four episodes, and whether each ended by itself
ROWS = sum(LENGTHS)
LAST = np.cumsum(LENGTHS) - 1
COLUMNS = {"actions": ["valve", "heater"]}


@pytest.fixture(scope="module")
def log() -> dict[str, Any]:
    """Columns as a machine would log them."""
    g = np.random.default_rng(0)
    done = np.zeros(ROWS, int)
    done[LAST] = ENDED
    return {
        "temp": g.normal(size=ROWS),
        "pressure": g.normal(size=ROWS) * 1e5,
        "valve": g.uniform(0, 100, ROWS),
        "heater": g.uniform(-0.01, 0.01, ROWS),
        "reward": g.normal(size=ROWS),
        "run": np.repeat(["a", "b", "c", "d"], LENGTHS),
        "done": done,
        "t": np.concatenate([np.arange(n) for n in LENGTHS]),
        "note": np.array(["x"] * ROWS),
    }


def arrays(log: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same as D4RL lays it out, without successors."""
    timeouts = np.zeros(ROWS, int)
    timeouts[LAST] = 1 - np.array(ENDED)
    return {
        "observations": np.stack([log["temp"], log["pressure"]], 1),
        "actions": np.stack([log["valve"], log["heater"]], 1),
        "rewards": log["reward"],
        "terminals": log["done"],
        "timeouts": timeouts,
    }


def write(path: Path, columns: dict[str, Any], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True))
    return path


def episodes(log: dict[str, Any], kind: Callable[..., Any]) -> list[Any]:
    table, starts = arrays(log), [0, *(LAST[:-1] + 1)]
    names = {"observations": "observations", "actions": "actions", "rewards": "rewards", "terminals": "terminations"}
    return [
        kind(**{new: table[old][start : end + 1] for old, new in names.items()})
        for start, end in zip(starts, LAST, strict=True)
    ]


def flags_only(log: dict[str, Any]) -> dict[str, Any]:
    kept = {name: column for name, column in log.items() if name not in ("run", "t", "note")}
    return {**kept, "done": kept["done"] == 1, "time limit": arrays(log)["timeouts"]}


def hdf5(path: Path, columns: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


def frame(kind: str, log: dict[str, Any]) -> Any:
    return pytest.importorskip(kind).DataFrame(log)


def parquet(path: Path, log: dict[str, Any]) -> Path:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(log), path)
    return path


def npz(path: Path, columns: dict[str, np.ndarray]) -> Path:
    np.savez(path, **columns)  # type: ignore[arg-type]
    return path


FORMS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "csv": lambda p, log: (write(p / "a.csv", log), COLUMNS),
    "csv, flags": lambda p, log: (write(p / "b.csv", flags_only(log), ";"), COLUMNS),
    "tsv": lambda p, log: (write(p / "b.tsv", flags_only(log), "\t"), COLUMNS),
    "parquet": lambda p, log: (parquet(p / "c.parquet", log), COLUMNS),
    "hdf5, d4rl": lambda p, log: (hdf5(p / "d.hdf5", arrays(log)), None),
    "hdf5, names": lambda p, log: (
        hdf5(p / "e.h5", flags_only(log)),
        {**COLUMNS, "observations": ["temp", "pressure"]},  # the file has them in alphabetical order
    ),
    "npz": lambda p, log: (npz(p / "f.npz", arrays(log)), None),
    "mapping": lambda p, log: ({**arrays(log), "note": ["x"] * ROWS}, None),
    "pandas": lambda p, log: (frame("pandas", log), COLUMNS),
    "polars": lambda p, log: (frame("polars", log), COLUMNS),
    "episodes": lambda p, log: (episodes(log, dict), None),
    "objects": lambda p, log: (episodes(log, SimpleNamespace), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_dataset(form: str, tmp_path: Path, log: dict[str, Any]) -> None:
    what, columns = FORMS[form](tmp_path, log)
    found = rlkit.load_dataset(what, columns=columns)
    expected = rlkit.load_dataset(arrays(log))
    assert found.content_hash == expected.content_hash
    assert len(found) == ROWS - 1 and len(found.episode_ends) == 4
    assert np.array_equal(found.action_space.high, arrays(log)["actions"].max(axis=0).astype(np.float32))


def test_successors_are_formed_within_episodes(log: dict[str, Any]) -> None:
    data = rlkit.load_dataset(log, columns=COLUMNS)
    states = np.stack([log["temp"], log["pressure"]], 1).astype(np.float32)
    kept = np.delete(np.arange(ROWS), LAST[2])  # the third episode was cut off: its last row has no successor
    assert np.array_equal(data.observations, states[kept])
    inside = np.setdiff1d(np.arange(ROWS), LAST)
    assert np.array_equal(data.next_observations[np.searchsorted(kept, inside)], states[inside + 1])
    assert np.array_equal(np.flatnonzero(data.terminations), np.searchsorted(kept, LAST[[0, 1, 3]]))
    assert np.flatnonzero(data.truncations).tolist() == [LAST[2] - 1]


def test_episodes_that_hold_their_last_observation_lose_no_row(log: dict[str, Any]) -> None:
    table = arrays(log)
    last = np.full((1, 2), 5.0)
    whole = [{**one, "observations": np.concatenate([one["observations"], last])} for one in episodes(log, dict)]
    data = rlkit.load_dataset(whole)
    assert len(data) == ROWS and (data.next_observations[LAST] == 5).all()
    assert np.array_equal(data.observations, table["observations"].astype(np.float32))
    with pytest.raises(DataError, match="expected one form"):
        rlkit.load_dataset([whole[0], episodes(log, dict)[1]])


def test_names_are_guessed_and_shown(tmp_path: Path, log: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    named = {
        "obs_0": log["temp"],
        "state_pressure": log["pressure"],
        "action.valve": log["valve"],
        "u1": log["heater"],
        "Rew": log["reward"],
        "Episode ID": log["run"],
        "is_terminal": log["done"],
        "Timestamp": log["t"],
        "colour": log["note"],
        "humidity": log["temp"],
    }
    path = write(tmp_path / "log.csv", named)
    told = rlkit.load_dataset(path).provenance.details
    assert told["columns"] == {
        "observations": ["obs_0", "state_pressure"],
        "actions": ["action.valve", "u1"],
        "reward": "Rew",
        "episode": "Episode ID",
        "end": "is_terminal",
        "step": "Timestamp",
    }
    assert told["ignored"] == ["colour", "humidity"]
    assert main(["data", "info", str(path), "columns.observations=obs_0,humidity", "bounds.u1=-0.02,0.02"]) == 0
    shown = capsys.readouterr().out
    assert "observations: humidity" in shown and "bounds -0.02 to 0.02" in shown and "reward: Rew" in shown
    assert "guessed" in shown and "colour" in shown


def test_a_step_that_begins_again_begins_an_episode() -> None:
    table = {"x": np.arange(9.0), "a": np.arange(9.0), "r": np.ones(9), "t": [0, 1, 2, 0, 1, 0, 1, 2, 3]}
    data = rlkit.load_dataset(table)
    assert data.observations[:, 0].tolist() == [0, 1, 3, 5, 6, 7]
    assert np.flatnonzero(data.truncations).tolist() == [1, 2, 5]


def test_large_names_of_episodes_are_told_apart(tmp_path: Path) -> None:
    ids = [str(90071992547409920 + i // 3) for i in range(9)]  # one number in float64
    path = write(tmp_path / "a.csv", {"x": np.arange(9.0), "a": np.arange(9.0), "r": np.ones(9), "episode": ids})
    assert len(rlkit.load_dataset(path).episode_ends) == 3


def test_bounds_are_per_column_and_units_do_not_matter(log: dict[str, Any]) -> None:
    data = rlkit.load_dataset(log, columns=COLUMNS, bounds={"valve": (-10, 110)})
    assert data.action_space.low[0] == -10 and data.action_space.high[0] == 110
    assert data.action_space.high[1] == np.float32(log["heater"].max())
    in_order = rlkit.load_dataset(arrays(log), bounds=[(-10, 110), (-1, 1)])
    assert in_order.action_space.high.tolist() == [110, 1]
    both = rlkit.load_dataset(arrays(log), bounds={"actions": ([-10, -1], [110, 1])})
    assert both.action_space == in_order.action_space
    learnt = []
    for unit in (1.0, 0.01, 1000.0):
        scaled = {**log, "valve": log["valve"] * unit}
        agent = rlkit.make("td3bc", rlkit.load_dataset(scaled, columns=COLUMNS), hidden_sizes=(8,), batch_size=16)
        learnt.append(agent.learn(8).predict(data.observations[:50])[0][:, 0] / unit)
    assert np.allclose(learnt[0], learnt[1], rtol=1e-3) and np.allclose(learnt[0], learnt[2], rtol=1e-3)


def test_an_environment_that_is_named_gives_its_spaces() -> None:
    g = np.random.default_rng(0)
    table = {"observations": g.normal(size=(60, 11)), "actions": g.uniform(-1, 1, (60, 3)), "rewards": np.ones(60)}
    data = read_log(table, record=rlkit.registry.record("hopper-medium"))
    assert data.env_id == "Hopper-v5" and data.action_space.high.tolist() == [1, 1, 1]
    with pytest.raises(DataError, match=r"10 columns are observations .* expected \[11\]"):
        read_log({**table, "observations": table["observations"][:, 1:]}, record=rlkit.registry.record("hopper-medium"))


def test_d4rl_without_an_environment_has_bounds_per_column(tmp_path: Path, log: dict[str, Any]) -> None:
    data = rlkit.load_dataset(hdf5(tmp_path / "a.hdf5", arrays(log)))
    assert data.action_space.low[0] >= 0 and data.action_space.high[1] < 0.011
    small = {**arrays(log), "actions": np.random.default_rng(0).uniform(-0.9, 0.9, (ROWS, 2))}
    box = rlkit.load_dataset(hdf5(tmp_path / "b.hdf5", small)).action_space
    assert box == gym.spaces.Box(-1, 1, (2,), np.float32)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def changed(name: str, row: int, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(log: dict[str, Any]) -> dict[str, Any]:
        column = np.asarray(log[name]).astype(object)
        column[row] = value
        return {**log, name: column}

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], dict[str, Any], str]] = {
    "nan": (changed("temp", 7, "nan"), {}, "'temp' holds nan at row 7"),
    "infinity": (changed("valve", 3, "inf"), {}, "'valve' holds inf at row 3"),
    "nothing": (changed("reward", 5, ""), {}, "'reward' holds nothing at row 5"),
    "text in a column": (changed("pressure", 90, "open"), {"observations": ["temp", "pressure"]}, "holds text"),
    "a column of text": (dict, {"observations": ["temp", "note"]}, "'note' of observations holds text"),
    "flags": (changed("done", 4, 2), {}, "'done' holds 2.0 at row 4, expected flags"),
    "steps back": (changed("t", 10, 3), {}, "'t' goes from 9 to 3 at row 10, within an episode"),
    "steps twice": (changed("t", 10, 9), {}, "'t' is 9 at rows 9 and 10, within an episode"),
    "apart": (changed("run", 99, "a"), {}, "rows of run '.*' lie apart, some end at row 29 and more begin at row 99"),
    "constant": (lambda log: {**log, "heater": np.full(ROWS, 3.0)}, {}, "'heater' is 3 in every row"),
    "bounds": (dict, {"bounds": {"valve": (0, 50)}}, r"action .* at row \d+, 'valve' is out of bounds"),
    "bounds of nothing": (dict, {"bounds": {"vlave": (0, 50)}}, "'vlave', which is no action; did you mean 'valve'"),
    "bounds upside down": (dict, {"bounds": {"valve": (5, 0)}}, "the lower first"),
    "bounds for all": (dict, {"bounds": (0, 50, 3)}, "expected 2 pairs"),
    "no such column": (dict, {"reward": "rewrad"}, "no column 'rewrad'; did you mean 'reward'"),
    "no such role": (dict, {"rewards": "reward"}, "'rewards' is no role of a column; did you mean 'reward'"),
    "two roles": (dict, {"observations": ["temp", "valve"]}, "'valve' is given two roles"),
    "two rewards": (dict, {"reward": ["temp", "reward"]}, "columns.reward are 2 columns"),
    "no action": (dict, {"actions": None}, "no column is an action by its name"),
    "single rows": (
        lambda log: {**log, "run": np.arange(ROWS), "done": 0 * log["done"]},
        {},
        "all 101 episodes have one row",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["csv", "mapping"])
def test_what_is_wrong_is_one_sentence(case: str, form: str, tmp_path: Path, log: dict[str, Any]) -> None:
    change, options, said = BAD[case]
    if form == "mapping" and case in ("nan", "infinity", "nothing", "text in a column"):
        pytest.skip("text in a file alone")
    what = change(log)
    options = dict(options)
    bounds = options.pop("bounds", None)
    given = write(tmp_path / "log.csv", what) if form == "csv" else what
    if form == "mapping" and case in ("flags", "steps back", "steps twice"):
        given = {name: column.astype(float) if column.dtype == object else column for name, column in what.items()}
    with pytest.raises(DataError, match=said) as caught:
        rlkit.load_dataset(given, columns={**COLUMNS, **options}, bounds=bounds)
    assert "\n" not in str(caught.value)


FILES: dict[str, tuple[str, bytes, str]] = {
    "missing": ("a.csv", b"", "does not exist"),
    "empty": ("b.csv", b"", "is empty"),
    "no names": ("c.csv", b"1,2,3\n4,5,6\n", "no line of names"),
    "a name twice": ("d.csv", b"x,a,a\n1,2,3\n", "stands for several columns"),
    "names alone": ("e.csv", b"x,a,r\n", "holds no rows"),
    "short row": ("f.csv", b"x,a,r\n1,2,3\n4,5\n", "row 1 has fewer cells"),
    "latin": ("g.csv", "x,a,r\n1,2,ü\n".encode("latin-1"), "no text in UTF-8"),
    "decimal commas": ("h.csv", b"x;a;r\n1,5;2;3\n", "no column is left|holds text|expected"),
    "npz that is none": ("i.npz", b"PK", "expected an NPZ file"),
    "parquet that is none": ("j.parquet", b"PAR1", "expected a Parquet file|needs pyarrow"),
    "hdf5 that is none": ("k.hdf5", b"x" * 600, "not an HDF5 file"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, said = FILES[case]
    if case != "missing":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        rlkit.load_dataset(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert main(["train", "agent=iql", f"env={tmp_path / name}", f"out={tmp_path / 'r'}"]) == 2
    assert not (tmp_path / "r").exists() and capsys.readouterr().err.count("\n") == 1


def test_a_pickle_in_an_npz_stays_closed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", observations=np.array([{}, []], object), actions=np.ones((2, 1)))
    with pytest.raises(DataError, match="'observations' is no array of numbers"):
        rlkit.load_dataset(tmp_path / "a.npz")


def test_more_than_memory_is_refused_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.data.tables.memory", lambda: 10_000)
    path = write(tmp_path / "a.csv", {"x": np.arange(3000.0), "a": np.arange(3000.0), "r": np.ones(3000)})
    with pytest.raises(DataError, match="expected fewer columns or rows"):
        rlkit.load_dataset(path)


def test_a_long_file_takes_less_than_twice_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.data.tables.CHUNK", 2_000)
    rows = 40_000
    line = "0.123456789,1.23456789,2.3456789,3.456789,4.56789,5.6789,6.789012,{},1.0,{}\n"
    with (tmp_path / "a.csv").open("w") as file:
        file.write("s0,s1,s2,s3,s4,s5,a0,a1,reward,episode\n")
        file.writelines(line.format(i / rows, i // 1000) for i in range(rows))
    size = (tmp_path / "a.csv").stat().st_size
    tracemalloc.start()
    with pytest.raises(DataError, match=r"'a0' is 6\.78901 in every row"):
        rlkit.load_dataset(tmp_path / "a.csv")
    data = rlkit.load_dataset(tmp_path / "a.csv", bounds={"a0": (0, 10)})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == rows - 40 and most < 2 * size


@pytest.mark.parametrize("form", ["npz", "hdf5", "d4rl"])
def test_arrays_take_less_than_twice_their_size(form: str, tmp_path: Path) -> None:
    numbers, rows = np.random.default_rng(0).uniform(-1, 1, (100_000, 11)).astype(np.float32), np.arange(100_000)
    columns = {f"obs_{i}": numbers[:, i] for i in range(8)} | {"act_0": numbers[:, 8], "act_1": numbers[:, 9]}
    columns |= {"reward": numbers[:, 10], "done": rows % 1000 == 999}
    if form == "d4rl":
        columns = {"observations": numbers[:, :8], "actions": numbers[:, 8:10], "rewards": numbers[:, 10]}
        columns["terminals"] = columns["timeouts"] = rows % 1000 == 999
    path = npz(tmp_path / "a.npz", columns) if form == "npz" else hdf5(tmp_path / "a.hdf5", columns)
    tracemalloc.start()
    data = rlkit.load_dataset(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == 100_000 and most < 2 * path.stat().st_size


@pytest.mark.parametrize("form", ["csv", "parquet", "npz", "hdf5, names", "hdf5, d4rl"])
def test_a_terminal_is_shown_how_far_a_file_is_read(
    form: str, tmp_path: Path, log: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    what, columns = FORMS[form](tmp_path, log)
    for stream, asked in ((Terminal(), True), (Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        rlkit.load_dataset(what, columns=columns, progress=asked)
        shown = f"{what.name}: 100%" in stream.getvalue()
        assert shown == (asked and stream.isatty()) and (shown or not stream.getvalue())


# ---- agents ----------------------------------------------------------------------------------------------------------


def test_agents_of_rewards_say_who_imitates(log: dict[str, Any]) -> None:
    without = {name: column for name, column in log.items() if name != "reward"}
    data = rlkit.load_dataset(without, columns=COLUMNS)
    with pytest.raises(DataError, match=r"learns from rewards, which the mapping has none of; .* imitates: bc"):
        rlkit.make("iql", data)
    assert rlkit.make("bc", data, hidden_sizes=(8,)).learn(2).num_timesteps == 2


def test_a_log_is_standardised_and_a_caution_says_what_is_not(log: dict[str, Any]) -> None:
    data = rlkit.load_dataset(log, columns=COLUMNS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = rlkit.make("iql", data, hidden_sizes=(8,))
    assert agent.config.normalise_observations and agent.policy.obs_std[1] > 1e4
    with pytest.warns(Caution, match=r"orders of magnitude .*'pressure' about 1e\+05.* iql does not standardise"):
        rlkit.make("iql", data, hidden_sizes=(8,), normalise_observations=False)


def test_clocks_and_constant_columns_are_found(tmp_path: Path, log: dict[str, Any]) -> None:
    more = {
        "temp": log["temp"],
        "seconds": 1.7e9 + np.arange(ROWS) * 10,
        "elapsed": log["t"] * 0.5,
        "flat": np.full(ROWS, 2.0),
        **{name: log[name] for name in ("valve", "heater", "reward", "run", "done")},
    }
    path = write(tmp_path / "log.csv", {**more, "heater": np.ones(ROWS)})
    findings = {one.code: one.sentence for one in check_dataset(path, columns=COLUMNS)}
    assert {"constant-observations", "constant-actions", "timestamps", "scales"} <= findings.keys()
    assert "'flat'" in findings["constant-observations"] and "'heater'" in findings["constant-actions"]
    assert "'elapsed'" in findings["timestamps"] and "'temp'" not in findings["timestamps"]
    clean = write(tmp_path / "clean.csv", {k: v for k, v in log.items() if k not in ("note", "pressure")})
    codes = {one.code for one in check_dataset(clean, columns=COLUMNS)}
    assert not codes & {"constant-observations", "constant-actions", "timestamps", "scales"}


def test_a_minari_dataset_without_a_record_trains(tmp_path: Path, log: dict[str, Any]) -> None:
    data = rlkit.load_dataset(log, columns=COLUMNS)
    to_minari(data, "my/machine/log-v0", overwrite=True)
    out = tmp_path / "run"
    small = ["total_timesteps=4", "log_every=2", "agent.hidden_sizes=[8]", "progress_bar=false", "tensorboard=false"]
    small += ["verdict=false"]
    assert main(["train", "agent=bc", "env=my/machine/log-v0", f"out={out}", *small]) == 0
    assert "id: my/machine/log-v0" in (out / "config.yaml").read_text()
    assert main(["resume", str(out), "total_timesteps=6", "progress_bar=false"]) == 0
    with pytest.raises(UserError, match="are for files and tables"):
        rlkit.load_dataset("my/machine/log-v0", columns=COLUMNS)
