"""Logs as they come out of machines and spreadsheets: what is wrong is said in one line before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rlkit
from rlkit.cli import main
from rlkit.errors import DataError

NAMES = ["episode", "step", "obs_0", "obs_1", "action", "reward", "terminated"]
Rows = list[list[str]]


def rows() -> Rows:
    """Three episodes of 20 rows, each ended by itself; row 0 are the names."""
    g = np.random.default_rng(0)
    made = [NAMES]
    for i in range(60):
        numbers = [f"{value:.4f}" for value in g.normal(size=4)]
        made.append([str(i // 20), str(i % 20), *numbers, str(int(i % 20 == 19))])
    return made


def cell(name: str, row: int, value: str) -> Callable[[Rows], Rows]:
    """The log with one cell changed; ``row`` counts from 0, after the names."""

    def change(log: Rows) -> Rows:
        log[row + 1] = [value if column == name else old for column, old in zip(NAMES, log[row + 1], strict=True)]
        return log

    return change


def column(name: str, value: Callable[[int, str], str]) -> Callable[[Rows], Rows]:
    """The log with each cell of a column made from its row, from 0, and what it held."""

    def change(log: Rows) -> Rows:
        place = NAMES.index(name)
        return [log[0], *([*r[:place], value(i, r[place]), *r[place + 1 :]] for i, r in enumerate(log[1:]))]

    return change


def joined(log: Rows, between: str = ",", end: str = "\n") -> str:
    return "".join(between.join(row) + end for row in log)


def commas(between: str, quote: str = "") -> Callable[[], str]:
    return lambda: joined([rows()[0], *([quote + c.replace(".", ",") + quote for c in r] for r in rows()[1:])], between)


def row_edit(row: int, change: Callable[[list[str]], list[str]]) -> Callable[[Rows], Rows]:
    return lambda log: [change(r) if i == row + 1 else r for i, r in enumerate(log)]


BAD: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "no reward": (lambda log: [r[:5] + r[6:] for r in log], "iql learns from rewards"),
    "no action": (lambda log: [r[:4] + r[5:] for r in log], "no column is an action by its name"),
    "episodes of one row": (
        lambda log: column("terminated", lambda i, c: "0")(column("episode", lambda i, c: str(i))(log)),
        "all 60 episodes have one row and no end",
    ),
    "nan": (cell("obs_1", 7, "nan"), "'obs_1' holds nan at row 7, expected finite numbers"),
    "nan as an action": (cell("action", 7, "NaN"), "'action' holds nan at row 7"),
    "nothing": (cell("obs_1", 7, ""), "'obs_1' holds nothing at row 7"),
    "null": (cell("obs_1", 7, "NULL"), "the column 'obs_1' of observations holds text ('NULL' at row 7)"),
    "one word": (cell("action", 7, "open"), "the column 'action' of actions holds text ('open' at row 7)"),
    "words": (column("obs_0", lambda i, c: "red"), "the column 'obs_0' of observations holds text ('red' at row 0)"),
    "yes for an end": (cell("terminated", 19, "yes"), "the column 'terminated' of end holds text ('yes' at row 19)"),
    "thousands": (cell("obs_0", 5, '"1,234.5"'), "the column 'obs_0' of observations holds text ('1,234.5' at row 5)"),
    "mixed": (cell("obs_0", 55, "true"), "at row 0, expected true or false as in other rows"),
    "steps apart": (lambda log: [*log[:4], log[10], *log[5:10], log[4], *log[11:]], "'step' goes from 9 to 4 at row 4"),
    "a row twice": (lambda log: [*log[:7], *log[6:]], "'step' is 5 at rows 5 and 6"),
    "constant action": (column("action", lambda i, c: "0.5"), "the action 'action' is 0.5 in every row"),
    "a name twice": (lambda log: [["obs_0" if c == "obs_1" else c for c in log[0]], *log[1:]], "for several columns"),
    "names alone": (lambda log: log[:1], "holds no rows"),
    "short row": (row_edit(7, lambda r: r[:5]), "row 7 has fewer cells than names"),
    "long row": (row_edit(7, lambda r: [*r, "9"]), "row 7 has 8 cells, expected 7 as there are names"),
    "long rows": (lambda log: [log[0], *([*r, "9"] for r in log[1:])], "row 0 has 8 cells"),
    "huge integer": (cell("obs_0", 5, str(10**30)), "at row 5, expected finite numbers up to 1e+18"),
    "huge action": (cell("action", 5, str(-(10**30))), "at row 5, expected finite numbers up to 1e+18"),
    "beyond a float": (cell("obs_0", 5, str(10**400)), "'obs_0' holds inf at row 5"),
    "infinite reward": (cell("reward", 7, "inf"), "'reward' holds inf at row 7"),
    "reward of minus infinity": (cell("reward", 7, "-inf"), "'reward' holds -inf at row 7"),
    "dates as observations": (column("obs_0", lambda i, c: "2024-01-02"), "holds text ('2024-01-02' at row 0)"),
}
TEXTS: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "is empty (0 bytes)"),
    "a blank line": (lambda: "\n", "has no line of names"),
    "decimal commas": (commas(";"), "at row 0), expected numbers with a point, not a comma"),
    "decimal commas in quotes": (commas(",", '"'), "expected numbers with a point, not a comma"),
    "decimal commas between commas": (commas(","), "has 11 cells, expected 7"),
}


def refused(path: Path, said: str, capsys: pytest.CaptureFixture[str], *more: str) -> None:
    out = path.parent / "run"
    assert main(["train", "agent=iql", f"env={path}", "device=cpu", "total_timesteps=2", f"out={out}", *more]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("case", BAD)
def test_rows_that_are_wrong(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = BAD[case]
    (tmp_path / "log.csv").write_text(joined(change(rows())))
    refused(tmp_path / "log.csv", said, capsys)


@pytest.mark.parametrize("case", TEXTS)
def test_files_that_are_wrong(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = TEXTS[case]
    (tmp_path / "log.csv").write_text(text())
    refused(tmp_path / "log.csv", said, capsys)


def test_bounds_that_the_data_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text(joined(rows()))
    refused(tmp_path / "log.csv", "'action' is out of bounds", capsys, "env.bounds.action=[-0.1,0.1]")


@pytest.mark.parametrize(
    "content",
    [
        joined(rows(), ";").encode(),
        joined(rows(), "\t").encode(),
        joined(rows(), end="\r\n").encode(),
        b"\xef\xbb\xbf" + joined(rows()).encode(),
        joined([*rows()[:9], [], *rows()[9:]]).encode(),
        joined([[f'"{c}"' for c in r] for r in rows()]).encode(),
    ],
    ids=["semicolons", "tabs", "crlf", "mark", "blank line", "quotes"],
)
def test_other_ways_to_write_it_are_the_same_data(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text(joined(rows()))
    (tmp_path / "log.csv").write_bytes(content)
    wanted, found = (rlkit.load_dataset(tmp_path / name) for name in ("plain.csv", "log.csv"))
    assert len(found) == 60 and found.content_hash == wanted.content_hash


def test_bc_needs_no_rewards(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(joined(BAD["no reward"][0](rows())))
    assert rlkit.make("bc", rlkit.load_dataset(tmp_path / "log.csv"), hidden_sizes=(8,)).learn(2).num_timesteps == 2


def test_dates_tell_the_order_and_text_may_be_left_out(tmp_path: Path) -> None:
    log = column("step", lambda i, c: f"2024-01-{i % 20 + 1:02d}")(rows())
    (tmp_path / "log.csv").write_text(joined(log))
    assert len(rlkit.load_dataset(tmp_path / "log.csv", columns={"step": "step"})) == 60
    log[5], log[6] = log[6], log[5]
    (tmp_path / "log.csv").write_text(joined(log))
    with pytest.raises(DataError, match=r"'step' goes from .* at row 5, within an episode"):
        rlkit.load_dataset(tmp_path / "log.csv", columns={"step": "step"})
    words = cell("obs_0", 3, "high")(rows())
    (tmp_path / "log.csv").write_text(joined(words))
    data = rlkit.load_dataset(tmp_path / "log.csv", columns={"observations": "obs_1"})
    assert data.observations.shape == (60, 1)


@pytest.mark.parametrize("form", ["csv", "mapping"])
def test_a_word_among_the_numbers_of_an_observation_is_no_reason_to_leave_it_out(form: str, tmp_path: Path) -> None:
    free = [["episode", "warmth", "flow", "machine", "action", "reward"]]
    for i, old in enumerate(rows()[1:]):
        free.append([old[0], "warm" if i == 7 else old[2], old[3], "M17" if i else "", old[4], old[5]])
    if form == "csv":
        (tmp_path / "log.csv").write_text(joined(free))
        log: object = tmp_path / "log.csv"
    else:
        table = {name: [r[place] for r in free[1:]] for place, name in enumerate(free[0])}
        as_number = {name: np.array(list(map(float, table[name]))) for name in ("flow", "action", "reward", "episode")}
        warmth = np.array([v if v == "warm" else float(v) for v in table["warmth"]], object)
        machine = np.array([None, *table["machine"][1:]], object)  # a name that is missing somewhere
        log = {**as_number, "warmth": warmth, "machine": machine}
    with pytest.raises(DataError, match=r"'warmth' of observations holds text \('warm' at row 7\)"):
        rlkit.load_dataset(log)
    chosen = rlkit.load_dataset(log, columns={"observations": ["flow"]})  # said so, it is left out
    assert chosen.observations.shape[1] == 1
    assert set(chosen.provenance.details["ignored"]) == {"warmth", "machine"}
