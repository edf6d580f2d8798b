"""``rlkit solve`` and ``rlkit.solve``: every form of input, every method, what is written, what is refused."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlkit
from rlkit.cli import main
from rlkit.cli.solve import BEST
from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import PROBLEMS, generate, make_problem, row
from rlkit.envs.combinatorial.cvrp.files import read_cvrplib
from rlkit.envs.combinatorial.solving import choose, methods_of, require_seconds
from rlkit.envs.combinatorial.tasks import read_coordinates, read_task
from rlkit.envs.combinatorial.tsp.files import read_tour, read_tsplib
from rlkit.errors import DataError, UserError

FILES = Path(__file__).parents[1] / "envs" / "routing"
SQUARE = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 3.0], [4.0, 0.0]])
LIBRARY = os.environ.get("RLKIT_TSPLIB")


def tsp_file(path: Path, points: np.ndarray, kind: str = "EUC_2D") -> Path:
    lines = "".join(f"{i} {x:.6f} {y:.6f}\n" for i, (x, y) in enumerate(points.tolist(), 1))
    head = f"NAME: toy\nTYPE: TSP\nDIMENSION: {len(points)}\nEDGE_WEIGHT_TYPE: {kind}\nNODE_COORD_SECTION\n"
    path.write_text(head + lines + "EOF\n")
    return path


@pytest.fixture
def cities(tmp_path: Path) -> Path:
    return tsp_file(tmp_path / "cities.tsp", np.random.default_rng(0).uniform(0, 1000, (30, 2)))


# ---- what is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,length",
    [
        *(
            (f"{name}.tsp", 14)
            for name in ("ids-shuffled", "comment-utf8", "bom", "text-after-eof", "lowercase-header")
        ),
        *(("man2d.tsp", 14), ("half-up.tsp", 11), ("duplicate-points.tsp", 12), ("explicit-with-display.tsp", 21)),
        *(("lower-diag-row.tsp", 14), ("ceil2d.vrp", 19), ("demand-shuffled.vrp", 20), ("float-demand.vrp", 18)),
        *(("explicit+coords.vrp", 37), ("sol-float.vrp", 20)),
    ],
)
def test_files_are_solved_in_their_own_lengths(name: str, length: int, tmp_path: Path) -> None:
    out = tmp_path / ("a.sol" if name.endswith("vrp") else "a.tour")
    found = rlkit.solve(FILES / name, seconds=0.2, out=out)
    assert found.objective == length
    if name.endswith("vrp"):
        again = read_cvrplib(FILES / name, out)
        assert again.optimum == length and again.length(again.solution) == length  # type: ignore[arg-type]
    else:
        assert read_tsplib(FILES / name).length(read_tour(out)) == length


def test_a_unit_square_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(FILES / "unit-square.tsp"), "--seconds", "0.1"]) == 0
    said = capsys.readouterr()
    assert "length 0\n" in said.out and said.err.count("\n") == 1 and "--exact-lengths" not in said.out
    assert "rounding" in said.err
    assert main(["solve", str(FILES / "unit-square.tsp"), "--seconds", "0.1", "--exact-lengths"]) == 0
    assert "length 1.4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name,text",
    [
        ("a.csv", "0,0\n0,3\n4,3\n4,0\n"),
        ("a.csv", "x,y\n0,0\n0,3\n4,3\n4,0\n"),
        ("a.csv", "city;x;y\nRome;0;0\nOslo;0;3\nBern;4;3\nKiev;4;0\n"),
        ("a.csv", "# made today\nx,y\n0,0\n# a remark, here\n0,3\n4,3\n4,0\n"),
        ("a.csv", '"name","Y","X"\r\n"a",0,0\r\n"b",3,0\r\n"c",3,4\r\n"d",0,4\r\n'),
        ("a.txt", "0 0\n0 3\n\n4 3\n4e0 0.0"),
        ("a.txt", "# x y\n0 0\n0 3\n4 3\n4 0"),
        ("a.CSV", "\ufeff0\t0\n0\t3\n4\t3\n4\t0\n"),
    ],
)
def test_tables_of_coordinates(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found, degrees = read_coordinates(path)
    assert np.array_equal(found, SQUARE) and not degrees
    assert rlkit.solve(path, seconds=0.1).objective == 14.0


def haversine(a: Any, b: Any) -> float:
    """Kilometres between two places, latitude and longitude in degrees: not as the library computes them."""
    (p, q), (r, s) = np.deg2rad(a), np.deg2rad(b)
    half = np.sin((r - p) / 2) ** 2 + np.cos(p) * np.cos(r) * np.sin((s - q) / 2) ** 2
    return float(2 * 6371.0088 * np.arcsin(np.sqrt(half)))


@pytest.mark.parametrize("head", ["lat,lon", "# latitude,longitude", '"Lat","LNG"'])
def test_longitudes_and_latitudes_are_places_on_the_earth(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suva, apia, tokyo, lima = places = [(-18.1, 178.4), (-13.8, -171.8), (35.7, 139.7), (-12.0, -77.0)]
    path, out = tmp_path / "a.csv", tmp_path / "a.tour"
    path.write_text("\n".join([head, *(f"{a},{b}" for a, b in places)]))
    ways = ([suva, apia, lima, tokyo], [suva, lima, apia, tokyo], [suva, apia, tokyo, lima])
    best = min(sum(haversine(a, b) for a, b in zip(way, way[1:] + way[:1], strict=True)) for way in ways)
    for method in ("search", "insertion"):
        found = rlkit.solve(path, seconds=0.1, method=method, out=out, picture=tmp_path / "a.svg")
        assert found.objective == pytest.approx(best, rel=1e-12) and found.task.unit == " km"
        # the antimeridian is no border: Suva and Apia are side by side where an agent sees them too
        seen = found.task.instance["coords"]
        near = np.linalg.norm(seen - seen[0], axis=1)
        assert near[1] == np.sort(near)[1] and seen.min() == 0.0 and seen.max() == 1.0
    assert main(["solve", str(path), "--seconds", "0.1"]) == 0
    assert f"length {best:.10g} km\n" in capsys.readouterr().out
    lat, lon = np.array(places).T
    for given in ({"lat": lat, "lon": lon}, {"Longitude": lon.tolist(), "Latitude": lat.tolist()}):
        assert rlkit.solve(given, seconds=0.1).objective == found.objective


def test_kernels_measure_great_circles_as_their_oracle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = np.column_stack((rng.uniform(-90, 90, 40), rng.uniform(-180, 180, 40)))
    places[1] = -places[0, 0], places[0, 1] + 180.0  # the other end of the earth
    places[2] = places[3] + 1e-7  # a centimetre
    path = tmp_path / "a.csv"
    path.write_text("lat,lon\n" + "".join(f"{a!r},{b!r}\n" for a, b in places.tolist()))
    task = read_task(path)
    i, j = (x.reshape(-1) for x in np.indices((40, 40)))
    wanted = [haversine(places[a], places[b]) for a, b in zip(i, j, strict=True)]
    assert task.costs is not None and task.benchmark is not None
    np.testing.assert_allclose(task.costs.between(i, j), wanted, rtol=1e-9, atol=1e-4)  # at the ends arcsin is steep
    np.testing.assert_allclose(task.for_solvers()["cost"].reshape(-1), wanted, rtol=1e-9, atol=1e-4)
    near = task.costs.neighbours(5)
    order = np.argsort(np.reshape(wanted, (40, 40)) + np.diag([np.inf] * 40), axis=1)[:, :5]
    assert np.array_equal(near, order)


@pytest.mark.parametrize(
    "text,told",
    [
        ("lat,lon\n1,2\n91,2\n", "a.csv:3: '91' is no latitude, expected at most 90 degrees"),
        ("lon,lat\n500000,4649776\n", "a.csv:2: '500000' is no longitude, expected at most 360 degrees"),
        ("name,lat,y\na,1,2\n", "a.csv:1: has 3 columns, expected two, or a header that names x and y, or lon and lat"),
    ],
)
def test_what_is_no_degree(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(told)):
        rlkit.solve(path)
    wrong = [
        ({"lat": [91.0], "lon": [0.0]}, "91 is no latitude"),
        ({"lon": [np.nan], "lat": [0.0]}, "nan is no longitude"),
    ]
    wrong += [
        ({"lon": [1.0, 2.0], "lat": [1.0]}, "two lists of as many"),
        ({"lon": "a", "lat": []}, "two lists of as many"),
    ]
    for given, said in wrong:
        with pytest.raises(UserError, match=said):
            rlkit.solve(given)
    tsp_file(tmp_path / "a.tsp", SQUARE)
    whole = (tmp_path / "a.tsp").read_text()
    (tmp_path / "a.tsp").write_text(whole.replace("EUC_2D", "GREAT_CIRCLE"))  # of tables, not of files
    with pytest.raises(DataError, match="EDGE_WEIGHT_TYPE 'GREAT_CIRCLE' is not known"):
        rlkit.solve(tmp_path / "a.tsp")


def test_arrays_and_instances() -> None:
    ways = solvers.distances(SQUARE)
    for given in (SQUARE, SQUARE.tolist(), SQUARE.astype(np.float32), {"coords": SQUARE}, ways, {"cost": ways}):
        found = rlkit.solve(given, seconds=0.1)
        assert found.objective == pytest.approx(14.0) and sorted(found.solution.tolist()) == [0, 1, 2, 3]
    assert rlkit.solve([[0.0, 1.0], [5.0, 0.0]], "atsp", seconds=0.1).objective == 6.0
    assert rlkit.solve([[0.0, 1.0], [5.0, 0.0]], seconds=0.1).objective == pytest.approx(2 * np.sqrt(26))
    assert rlkit.solve(read_tsplib(FILES / "half-up.tsp"), seconds=0.1).objective == 11
    for name in ("cvrp", "op", "knapsack"):
        problem = make_problem(name)
        instance = row(generate(problem, 1, 0), 0)
        found = rlkit.solve(instance, seconds=0.2)
        assert found.task.kind.name == name and found.objective == problem.objective(instance, found.solution)
    hull = rlkit.solve(np.random.default_rng(0).random((9, 2)), "convex-hull")
    assert hull.objective == 1.0 and hull.method == "own"


def test_arrays_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SQUARE.astype(np.int32))
    assert rlkit.solve(tmp_path / "a.npy", seconds=0.1).objective == 14.0


@pytest.mark.parametrize("points,length", [([[3, 4]], 0.0), ([[0, 0], [3, 4]], 10.0), ([[1, 1]] * 3, 0.0)])
def test_one_city_two_and_one_place(points: Any, length: float, tmp_path: Path) -> None:
    assert rlkit.solve(points, seconds=0.1).objective == length
    path = tsp_file(tmp_path / "few.tsp", np.array(points, float))
    found = rlkit.solve(path, seconds=0.1, out=tmp_path / "few.tour", picture=tmp_path / "few.svg")
    assert found.objective == length and sorted(read_tour(tmp_path / "few.tour").tolist()) == list(range(len(points)))


def test_thirty_at_one_place_and_thirty_on_a_line() -> None:
    assert rlkit.solve(np.ones((30, 2)), seconds=0.5).objective == 0.0
    line = np.column_stack((np.random.default_rng(0).permutation(30), np.zeros(30)))
    assert rlkit.solve(line, seconds=20, optimum=58).objective == 58.0


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_by_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["num_nodes=10"] if name != "knapsack" else []
    words += {"cvrp": ["capacity=20"], "op": ["budget=2.5"]}.get(name, [])
    assert main(["solve", name, *words, "--seconds", "0.1", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert f": {name}, " in said and "method " in said and "seconds " in said


def test_five_thousand_cities() -> None:
    points = np.random.default_rng(0).random((5000, 2))
    begin, told = time.perf_counter(), []
    found = rlkit.solve(points, method="search", seconds=3, told=lambda seconds, length: told.append(seconds))
    assert time.perf_counter() - begin < 60 and told[0] < 2.0  # under checks of every call
    assert found.objective < 1.08 * 0.7124 * np.sqrt(5000)


@pytest.mark.skipif(LIBRARY is None, reason="RLKIT_TSPLIB names no folder of TSPLIB's files")
@pytest.mark.parametrize(
    "name,optimum",
    [
        *(("burma14", 3323), ("ulysses22", 7013), ("gr17", 2085), ("bays29", 2020), ("att48", 10628), ("eil51", 426)),
        *(("berlin52", 7542), ("st70", 675), ("eil76", 538), ("kroA100", 21282), ("gr120", 6942), ("ch130", 6110)),
    ],
)
def test_optima_of_tsplib(name: str, optimum: int) -> None:
    assert LIBRARY is not None
    path = next(Path(LIBRARY).rglob(f"{name}.tsp"))
    assert rlkit.solve(path, method="search", seconds=20, optimum=optimum).gap == 0.0


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_the_optimum_beside_a_file_ends_the_search(cities: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = rlkit.solve(cities, seconds=5, method="search", out=cities.with_suffix(".opt.tour"))
    begin = time.perf_counter()
    assert main(["solve", str(cities), "--method", "search", "--seconds", "60"]) == 0
    assert time.perf_counter() - begin < 10
    said = capsys.readouterr().out
    assert f"length {best.objective}\ngap 0.00 % to {best.objective}, cities.opt.tour\n" in said


def test_the_optimum_in_a_comment_of_cvrplib(tmp_path: Path) -> None:
    text = (FILES / "ceil2d.vrp").read_text().replace("trucks: 2)", "trucks: 2, Optimal value: 16)")
    (tmp_path / "a.vrp").write_text(text)
    found = rlkit.solve(tmp_path / "a.vrp", seconds=0.1)
    assert (found.reference, found.against) == (16, "its comment") and found.gap == pytest.approx(100 * 3 / 16)
    beside = tmp_path / "a.sol"
    found.write(beside)
    assert rlkit.solve(tmp_path / "a.vrp", seconds=0.1).against == "a.sol"


def test_a_comparison_with_another_method(cities: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(cities), "--method", "search", "--against", "insertion", "--seconds", "0.3"]) == 0
    assert ", insertion\n" in capsys.readouterr().out
    found = rlkit.solve(cities, method="insertion", improve=False, against="search", seconds=0.3)
    assert found.gap is not None and found.gap >= 0.0 and found.against == "search"


def test_pictures(tmp_path: Path) -> None:
    for name, start in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("a.pdf", b"%PDF")):
        rlkit.solve(FILES / "ceil2d.vrp", seconds=0.1, picture=tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    rlkit.solve(FILES / "explicit+coords.vrp", seconds=0.1, picture=tmp_path / "b.svg")
    rlkit.solve(FILES / "lower-diag-row.tsp", seconds=0.1, picture=tmp_path / "c.svg")


def test_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    big = read_task(np.random.default_rng(0).random((300, 2)))
    monkeypatch.setitem(sys.modules, "fast_tsp", None)
    method, why = choose(big, "auto")
    assert method == "search" and "a solver is best, which is fast-tsp" in why and "pip install" in why
    monkeypatch.undo()
    monkeypatch.setattr("rlkit.envs.combinatorial.solving.installed", lambda solver: True)
    assert choose(big, "auto")[0] == "fast-tsp"
    assert choose(read_task(np.random.default_rng(0).random((6000, 2))), "auto")[0] == "search"
    assert choose(read_task(SQUARE), "auto") == ("search", "so few nodes are solved exactly")
    many, fewer = (read_task("cvrp", None, 0, None, None, {"num_nodes": n, "capacity": 80}) for n in (300, 299))
    assert choose(many, "auto") == ("search", "for cvrp of so many nodes it does better than hygese in equal time")
    assert "a solver is best, which is hygese" in choose(fewer, "auto")[1]
    assert choose(read_task("knapsack"), "auto") == ("own", "it is exact")
    assert {"search", "insertion", "bq", "ptrnet", "fast-tsp"} == set(methods_of(big.kind))


@pytest.mark.parametrize("name", ["tsp", "atsp", "cvrp", "op", "knapsack"])
def test_agents_solve_and_are_improved(name: str) -> None:
    bare = rlkit.solve(name, method="bq", improve=False, seed=1)
    better = rlkit.solve(name, method="bq", seed=1)
    if bare.task.kind.maximise:
        assert better.objective >= bare.objective
    else:
        assert better.objective <= bare.objective + 1e-9
    assert better.method == "bq" and better.why == "as asked"


def test_a_pointer_network_solves() -> None:
    assert rlkit.solve("tsp", num_nodes=10, method="ptrnet").objective > 0


# ---- what is refused -------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence."""
    assert main(["solve", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("rlkit: ") and said.err.count("\n") == 1 and not said.out
    return said.err


@pytest.mark.parametrize("name", ["nan.tsp", "demand-above-capacity.vrp", "two-depots.vrp", "distance-limit.vrp"])
def test_bad_files_are_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("a.sol" if name.endswith("vrp") else "a.tour")
    out.write_text("before")
    assert name in refused(capsys, str(FILES / name), "--out", str(out))
    assert out.read_text() == "before"


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "holds no coordinates"),
        ("x,y\n", "holds no coordinates"),
        ("0,0\n1,nan\n", "'nan' is no coordinate"),
        ("0,0\n1,inf\n", "'inf' is no coordinate"),
        ("0,0\n1,\n", "'' is no coordinate"),
        ("0,0\n1,two\n", "'two' is no coordinate"),
        ("0,0\n1,1e400\n", "is no coordinate"),
        ("0,0,0\n1,1,1\n", "has 3 columns, expected 2"),
        ("0\n1\n", "has 1 column, expected 2"),
        ("0,0\n1,1,1\n", "a.csv:2: has 3 columns, expected 2"),
        ("a,b,c\n1,1,1\n", "expected two, or a header that names x and y"),
        ("x,x,y\n1,1,1\n", "expected two, or a header that names x and y"),
        ("0,0\n\x00\n", "is not a text file"),
    ],
)
def test_bad_tables_are_one_sentence(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert said in refused(capsys, str(path))


def test_bad_arrays_of_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.npy"
    for array in (np.zeros((3, 3)), np.zeros(4), np.zeros((0, 2)), np.array([["a", "b"]]), np.zeros((2, 2), complex)):
        np.save(path, array)
        assert "expected" in refused(capsys, str(path))
    np.save(path, np.array([[{}, 1]], object), allow_pickle=True)
    assert "is no array of NumPy's" in refused(capsys, str(path))
    np.save(path, np.array([[0.0, np.nan]]))
    assert "finite" in refused(capsys, str(path))
    head = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000, 2), }".ljust(117) + b"\n"
    path.write_bytes(head + len(text).to_bytes(2, "little") + text)
    assert "a.npy" in refused(capsys, str(path))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "-inf", "1e99", "soon", ""])
def test_seconds_out_of_range(seconds: str, cities: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "seconds" in refused(capsys, str(cities), f"--seconds={seconds}")


@pytest.mark.parametrize(
    "words,said",
    [
        (["{}", "--method", "hygese"], "method 'hygese' does not know tsp"),
        (["{}", "--method", "serch"], "did you mean 'search'"),
        (["knapsack", "--method", "search"], "method 'search' does not know knapsack"),
        (["cvrp", "--method", "ptrnet"], "method 'ptrnet' does not know cvrp"),
        (["{}", "--against", "pyvrp"], "method 'pyvrp' does not know tsp"),
        (["nowhere.tsp"], "nowhere.tsp"),
        (["tps"], "did you mean 'tsp'"),
        (["{}", "num_nodes=5"], "'num_nodes' is a setting of a problem that is named"),
        (["tsp", "num_nodes=2"], "num_nodes=2 is out of range"),
        (["tsp", "num_nods=20"], "did you mean 'num_nodes'"),
        (["{}", "seconds=5"], "'seconds=5' is no setting of a problem, expected the option --seconds"),
        (["{}", "exact_lengths=true"], "'exact_lengths=true' is no setting of a problem, expected the option --exact-"),
        (["tsp", "what=5"], "'what'"),
        (["tsp", "twenty"], "'twenty' is no setting"),
        (["cvrp", "num_nodes=33"], "expected capacity="),
        (["{}", "--seed", "1.5"], "expected a whole number"),
        (["{}", "--seed", "-1"], "seed=-1 is out of range"),
        (["{}", "--optimum", "short"], "expected a number"),
        (["{}", "--optimum", "-3"], "expected a length of at least 0"),
        (["{}", "--out", "a.sol"], "expected .tour"),
        (["{}", "--out", "a"], "expected .tour"),
        (["op", "--out", "a.tour"], "have no format"),
        (["{}", "--picture", "a.gif"], "expected a file ending in"),
        (["{}", "--out", "{}/a.tour", "--seconds", "0.1"], "cannot write"),
    ],
)
def test_bad_words_are_one_sentence(
    words: list[str], said: str, cities: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cities.parent)
    assert said in refused(capsys, *(word.format(cities) for word in words))


def test_no_word_reaches_an_argument_of_another_meaning(
    cities: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cities.parent)
    known = inspect.signature(rlkit.solve).parameters.keys() - {"problem", "settings"}  # `problem=op` is a use
    assert len(known) > 10
    for name in sorted(known):
        assert f"'{name}=1' is no setting" in refused(capsys, "tsp", f"{name}=1"), name


def test_files_of_other_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert "expected a file ending in .tsp" in refused(capsys, str(tmp_path / "a.json"))
    (tmp_path / "empty.tsp").write_text("")
    assert "empty.tsp" in refused(capsys, str(tmp_path / "empty.tsp"))
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv" in refused(capsys, str(tmp_path / "folder.csv"))
    path = tsp_file(tmp_path / "b.tsp", SQUARE)
    (tmp_path / "b.opt.tour").write_text("TYPE: TOUR\nTOUR_SECTION\n1 2 3 -1\n")
    assert "has 3 nodes, expected the 4" in refused(capsys, str(path))


def test_a_solver_that_is_not_installed(
    cities: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fast_tsp", None)
    assert "the solver 'fast-tsp' is not installed: pip install" in refused(capsys, str(cities), "--method", "fast-tsp")
    assert "is not installed" in refused(capsys, str(cities), "--against", "fast-tsp", "--seconds", "30")


@pytest.mark.parametrize(
    "given,problem,said",
    [
        (np.zeros((3, 4)), None, "expected coordinates"),
        (np.zeros((0, 2)), None, "expected coordinates"),
        (np.full((5, 2), np.nan), None, "finite"),
        (np.full((1, 2), np.inf), None, "finite"),
        ([["a", "b"]], None, "not an array of numbers"),
        ({"coords": SQUARE, "demands": [1]}, None, "has arrays coords, demands"),
        ({"coords": SQUARE[None]}, None, "expected one instance"),
        (SQUARE, "tps", "unknown problem 'tps'; did you mean 'tsp'"),
        (SQUARE, "cvrp", "expected a mapping of coords, demand, capacity"),
        (-np.ones((5, 5)), None, "zero on the diagonal"),
        (7, None, "expected coordinates"),
        (None, None, "expected"),
    ],
)
def test_bad_arrays_are_one_sentence(given: Any, problem: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        rlkit.solve(given, problem, seconds=0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "10", None])
def test_bad_seconds_are_one_sentence(seconds: Any) -> None:
    with pytest.raises(UserError, match=r"seconds=.* is out of range"):
        require_seconds(seconds)


def test_solving_loads_no_torch(cities: Path) -> None:
    code = f"import rlkit, sys; rlkit.solve({str(cities)!r}, seconds=0.1, chains=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command and every block of Python on the page, and what it says is printed."""
    page = (Path(rlkit.__file__).resolve().parents[1] / "docs" / "solve.md").read_text()
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).random((30, 2))
    np.savetxt("cities.csv", points, delimiter=",")
    blocks = re.findall(r"```(bash|python|text)\n(.*?)```", page, re.DOTALL)
    said = ""
    for language, block in blocks:
        if language == "bash":
            capsys.readouterr()
            for line in block.splitlines():
                command, *words = shlex.split(line)
                assert command == "rlkit" and main(words) == 0
            said = capsys.readouterr().out
        elif language == "text":
            assert re.sub(r"seconds .*", "", block) == re.sub(r"seconds .*", "", said)
        else:
            exec(compile(block, "solve.md", "exec"), {})
    assert {language for language, _ in blocks} == {"bash", "python", "text"}
    assert read_tour(tmp_path / "cities.tour").shape == (30,) and (tmp_path / "cities.svg").exists()


def test_help_names_the_sizes_that_auto_goes_by() -> None:
    """So that what is said and what is done cannot part."""
    sizes = {name: make_problem(name).part("improve", "AS_GOOD_UP_TO") for name in ("tsp", "atsp")}
    routes = make_problem("cvrp").part("improve", "BETTER_FROM")
    assert f"search up to {sizes['tsp']} (atsp {sizes['atsp']}) nodes" in BEST
    assert f"search from {routes} customers on" in BEST


def test_one_is_told_that_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from numba.core import event

    from rlkit.cli import solve as command

    monkeypatch.setattr(command, "PATIENCE", 0.5)
    with command.compiling_is_told():
        time.sleep(1.2)  # nothing is compiled
    assert not capsys.readouterr().err
    with command.compiling_is_told():
        event.start_event("numba:compile")
        time.sleep(1.2)
        event.end_event("numba:compile")
    assert capsys.readouterr().err == f"{command.COMPILES}\n"
