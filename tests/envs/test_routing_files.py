"""Benchmark files of routing: what is read, with which lengths, and what is refused with one sentence."""

from __future__ import annotations

import os
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlkit.envs.combinatorial import solvers, tsplib
from rlkit.envs.combinatorial.base import MOST_SQUARE
from rlkit.envs.combinatorial.cvrp.files import read_cvrplib
from rlkit.envs.combinatorial.tsp.files import read_tour, read_tsplib
from rlkit.errors import DataError, UserError

FILES = Path(__file__).parent / "routing"
SQUARE = [(0, 0), (0, 3), (4, 3), (4, 0)]


def tsp(
    points: list[tuple[float, ...]] | None = None,
    kind: str = "EUC_2D",
    *,
    head: str = "",
    body: str | None = None,
    n: int | None = None,
    type: str = "TSP",
) -> str:
    points = SQUARE if points is None else points
    lines = "\n".join(f"{i + 1} {' '.join(map(str, point))}" for i, point in enumerate(points))
    body = f"NODE_COORD_SECTION\n{lines}" if body is None else body
    n = len(points) if n is None else n
    return f"NAME : toy\nTYPE : {type}\nDIMENSION: {n}\nEDGE_WEIGHT_TYPE : {kind}\n{head}{body}\nEOF\n"


def cvrp(demand: str = "1 0\n2 4\n3 5\n4 6", capacity: str = "10", depot: str = "1\n-1", **options: Any) -> str:
    text = tsp(type="CVRP", **options).removesuffix("EOF\n")
    return f"CAPACITY : {capacity}\n{text}DEMAND_SECTION\n{demand}\nDEPOT_SECTION\n{depot}\nEOF\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def around(found: tsplib.Benchmark) -> int | float:
    return found.length(np.arange(found.nodes))


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,length",
    [
        *((name, 14) for name in ("ids-shuffled", "comment-utf8", "bom", "text-after-eof", "lowercase-header")),
        *(("man2d", 14), ("half-up", 11), ("lower-diag-row", 14), ("explicit-with-display", 21)),
        ("duplicate-points", 12),
    ],
)
def test_files_of_tsplib(name: str, length: int) -> None:
    found = read_tsplib(FILES / f"{name}.tsp")
    assert around(found) == length and isinstance(around(found), int)
    order = np.roll(np.arange(found.nodes), -1)
    assert found.costs[np.arange(found.nodes), order].sum() == length and found.costs.dtype == np.int64
    problem = found.make_problem()
    instance = problem.check(found.instance)
    best = solvers.local_search(solvers.costs_of(instance), 5, np.random.default_rng(0))
    assert problem.objective(instance, best) > 0 and found.length(best) <= length


def test_files_of_cvrplib() -> None:
    found = read_cvrplib(FILES / "demand-shuffled.vrp")
    assert found.instance["demand"].tolist() == [0, 4, 5, 6] and found.instance["capacity"] == 10
    assert read_cvrplib(FILES / "ceil2d.vrp").costs[0].tolist() == [0, 2, 5, 4]
    explicit = read_cvrplib(FILES / "explicit+coords.vrp")
    assert explicit.costs.tolist() == [[0, 9, 9, 9], [9, 0, 1, 1], [9, 1, 0, 1], [9, 1, 1, 0]]
    assert explicit.length(np.array([0, 1, 2, 0, 3, 0, -1])) == 37
    assert explicit.coords is not None and explicit.coords.tolist() == [list(point) for point in SQUARE]
    with pytest.raises(UserError, match="its lengths are EXPLICIT, expected points in the plane"):
        explicit.make_problem()
    exact = read_cvrplib(FILES / "float-demand.vrp")
    assert (exact.instance["demand"] / exact.demand_scale).tolist() == [0, 1.6, 1.6, 0.9]
    assert exact.instance["capacity"] / exact.demand_scale == 2.5
    problem = exact.make_problem()
    assert problem.objective(exact.instance, [0, 1, 3, 0, 2, 0]) > 0  # 1.6 + 0.9 is 2.5, and fits
    with pytest.raises(UserError, match="a route carries 32, expected at most 25"):
        problem.objective(exact.instance, [0, 1, 2, 0, 3, 0])


@pytest.mark.parametrize(
    "name,sentence",
    [
        ("two-depots", "DEPOT_SECTION has 2 depots, expected one"),
        ("distance-limit", ":7: 'DISTANCE' is not understood"),
        ("demand-above-capacity", "the demand of node 4 is 6, expected above 0 and up to the capacity 5"),
    ],
)
def test_refused_files_of_cvrplib(name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_cvrplib(FILES / f"{name}.vrp")
    with pytest.raises(DataError, match=r"nan\.tsp:7: NODE_COORD_SECTION holds nan, expected finite numbers"):
        read_tsplib(FILES / "nan.tsp")


@pytest.mark.parametrize(
    "text",
    [
        tsp().replace("\n", "\r\n"),
        tsp().replace("\n", "\r"),
        tsp().replace(" ", "\t"),
        tsp().replace(" : ", ":").replace(": ", ":"),
        tsp().replace(" : ", "  :   "),
        tsp().replace(" : ", " = "),
        tsp().replace(" : ", " ").replace(": ", "\t"),
        tsp().replace("NODE_COORD_SECTION", "NODE_COORD_SECTION :"),
        tsp().replace("NODE_COORD_SECTION", "\n  node_coord_section\n"),
        tsp().replace("EUC_2D", "euc_2d").replace("TSP", "tsp (a remark)"),
        tsp().replace("4 3", "4e0 0.3E+1").replace("2 0 3", "2 -0.0 +3."),
        tsp().replace("NAME", "COMMENT : one\nCOMMENT : two: three\nNAME"),
        tsp().replace("EOF\n", ""),
        tsp() + "1 2 3\nEDGE_WEIGHT_SECTION\n",
        tsp().encode().replace(b"NAME", b"COMMENT : S\xe3o Paulo \x85 1\nNAME"),
        b"\xef\xbb\xbf" + tsp().replace("\n", "\r\n").encode(),
        tsp(head="NODE_COORD_TYPE : TWOD_COORDS\nDISPLAY_DATA_TYPE : COORD_DISPLAY\n"),
    ],
)
def test_harmless_forms_are_read(tmp_path: Path, text: str | bytes) -> None:
    found = read_tsplib(write(tmp_path / "toy.tsp", text))
    assert around(found) == 14 and found.name == "toy"


def test_ids_decide_in_every_section(tmp_path: Path) -> None:
    rows = ["1 0 0", "2 0 3", "3 4 3", "4 4 0"]
    demand = ["1 0", "2 4", "3 5", "4 6"]
    for order in ([3, 1, 0, 2], [1, 0, 3, 2], [2, 3, 0, 1]):
        body = "NODE_COORD_SECTION\n" + "\n".join(rows[k] for k in order)
        text = cvrp(demand="\n".join(demand[k] for k in reversed(order)), body=body)
        found = read_cvrplib(write(tmp_path / "a.vrp", text))
        assert around(found) == 14 and found.instance["demand"].tolist() == [0, 4, 5, 6]
        body = "EDGE_WEIGHT_SECTION\n1 2 3\n4 5 6\nDISPLAY_DATA_SECTION\n" + "\n".join(rows[k] for k in order)
        text = tsp(kind="EXPLICIT", head="EDGE_WEIGHT_FORMAT: UPPER_ROW\n", body=body)
        shown = read_tsplib(write(tmp_path / "a.tsp", text))
        assert shown.coords is not None and shown.coords.tolist() == [list(point) for point in SQUARE]


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    found = read_tsplib(write(tmp_path / "a.tsp", tsp().encode().replace(b"toy", b"S\xe3o\x07")))
    assert found.name == "S\xe3o "


# ---- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsp", "vrp"])
@pytest.mark.parametrize(
    "kind,points,expected",
    [
        ("EUC_2D", [(0, 0), (3, 4), (1, 1), (0, 2)], [5, 1, 2]),  # 5, sqrt 2, 2
        ("EUC_2D", [(0, 0), (2.5, 0), (0.5, 0), (1.5, 0)], [3, 1, 2]),  # halves go up
        ("CEIL_2D", [(0, 0), (3, 4), (1, 1), (0, 2)], [5, 2, 2]),
        ("MAN_2D", [(0, 0), (3, 4), (1.25, 1.25), (0, 2)], [7, 3, 2]),
        ("MAX_2D", [(0, 0), (3, 4), (1.5, 1), (0, 2)], [4, 2, 2]),
        ("EUC_3D", [(0, 0, 0), (2, 3, 6), (1, 1, 1), (0, 0, 2)], [7, 2, 2]),  # sqrt 3 is 1.73
        ("MAN_3D", [(0, 0, 0), (2, 3, 6), (1, 1, 1), (0, 0, 2)], [11, 3, 2]),
        ("MAX_3D", [(0, 0, 0), (2, 3, 6), (1, 1, 1), (0, 0, 2)], [6, 1, 2]),
        ("ATT", [(0, 0), (30, 40), (10, 10), (0, 2)], [16, 5, 1]),  # 15.81, 4.47 (4 is less, so 5), 0.63
        ("GEO", [(16.47, 96.10), (16.47, 94.44), (20.09, 92.54), (22.39, 93.37)], [153, 510, 706]),
    ],
)
def test_every_type_has_its_own_lengths_in_both_kinds_of_file(
    tmp_path: Path, name: str, kind: str, points: list[tuple[float, ...]], expected: list[int]
) -> None:
    if name == "tsp":
        found = read_tsplib(write(tmp_path / "a.tsp", tsp(points, kind)), optimum=9)
        assert found.optimum == 9
        problem = found.make_problem()
        instance = problem.check(found.instance)
        assert max(array.max() for array in instance.values()) == 1.0
        assert problem.name == ("tsp" if kind in tsplib.PLANAR else "atsp")
        assert problem.objective(instance, [0, 1, 2, 3]) > 0
    else:
        found = read_cvrplib(write(tmp_path / "a.vrp", cvrp(points=points, kind=kind)))
    assert found.costs[0, 1:].tolist() == expected and (found.costs == found.costs.T).all()
    tour = np.array([2, 0, 3, 1])
    assert found.length(tour) == found.costs[tour, np.roll(tour, -1)].sum()


@pytest.mark.parametrize("name", ["atsp", "vrp"])
@pytest.mark.parametrize("form", [*tsplib.FORMATS, "FULL_MATRIX"])
def test_explicit_matrices_in_every_form(tmp_path: Path, name: str, form: str) -> None:
    full = np.array([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    if form == "FULL_MATRIX":
        full[0, 1] = 9
        numbers = np.where(np.eye(4) > 0, 9999, full).ravel()
    else:
        offset = 0 if "DIAG" in form else 1
        upper = form.startswith("UPPER") == form.endswith("ROW")
        numbers = full[np.triu(np.ones((4, 4)), offset) > 0 if upper else np.tril(np.ones((4, 4)), -offset) > 0]
    body = "EDGE_WEIGHT_SECTION\n" + "\n".join(map(str, numbers))
    options: dict[str, Any] = {"kind": "EXPLICIT", "head": f"EDGE_WEIGHT_FORMAT: {form}\n", "body": body}
    if name == "vrp":
        found = read_cvrplib(write(tmp_path / "a.vrp", cvrp(**options)))
        assert found.coords is None
    else:
        found = read_tsplib(write(tmp_path / "a.atsp", tsp(type="ATSP", **options)))
        assert found.problem == "atsp" and found.make_problem().check(found.instance)["cost"].max() == 1.0
    np.testing.assert_array_equal(found.costs, full)


def test_explicit_lengths_with_fractions_are_kept(tmp_path: Path) -> None:
    body = "EDGE_WEIGHT_SECTION\n0.5 1 1\n2 2\n0.25"
    text = tsp(kind="EXPLICIT", head="EDGE_WEIGHT_FORMAT: UPPER_ROW\n", body=body)
    found = read_tsplib(write(tmp_path / "a.tsp", text))
    assert around(found) == 0.5 + 2 + 0.25 + 1 and not found.rounded
    with pytest.raises(DataError, match="its lengths have fractions, expected rounded=False"):
        read_tsplib(tmp_path / "a.tsp", rounded=True)


def test_published_lengths_show_whether_they_are_rounded(tmp_path: Path) -> None:
    vrp, sol = FILES / "sol-float.vrp", FILES / "sol-float.sol"
    found = read_cvrplib(vrp, sol)
    assert found.optimum == 24.61 and not found.rounded and found.costs.dtype == np.float64
    assert found.solution is not None and found.solution.tolist() == [0, 1, 0, 2, 0, 3, 0]
    assert found.length(found.solution) == 24.0
    with pytest.raises(DataError, match=r"an optimum of 24\.61 is no sum of rounded lengths"):
        read_cvrplib(vrp, sol, rounded=True)
    assert read_cvrplib(vrp).rounded and not read_cvrplib(vrp, rounded=False).rounded
    # lengths 1.5 three times and back: exactly 9, rounded 2 + 2 + 2 + 5
    path = write(tmp_path / "a.vrp", cvrp(points=[(0, 0), (1.5, 0), (3, 0), (4.5, 0)], capacity="99"))
    for cost, rounded in (("9", False), ("9.0", False), ("11", True), ("12", True)):
        solution = write(tmp_path / "a.sol", f"Route #1: 1 2 3\nCost {cost}\n")
        found = read_cvrplib(path, solution)
        assert found.rounded is rounded and found.optimum == float(cost)
        assert found.length(found.solution) == (11 if rounded else 9)
    found = read_tsplib(write(tmp_path / "a.tsp", tsp([(0, 0), (1, 1), (2, 0)])), optimum=4.83)
    assert around(found) == pytest.approx(2 + 2 * 2**0.5) and read_tsplib(tmp_path / "a.tsp").rounded
    with pytest.raises(DataError, match="CEIL_2D has whole lengths alone"):
        read_cvrplib(FILES / "ceil2d.vrp", sol)
    with pytest.raises(DataError, match="an optimum of nan"):
        read_tsplib(tmp_path / "a.tsp", float("nan"))


@pytest.mark.parametrize(
    "text",
    [
        "Route #1: 1\nRoute #2: 2 3\nCost 22\n",
        "route 1 : 3 2\r\nroute 2 : 1\r\ncost : 22.0\r\n",
        "Route #1: 1\nRoute #2:\nRoute #3: 2 3\nCOST: 2.2e1",
    ],
)
def test_forms_of_solutions(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.vrp", cvrp(capacity="11"))
    found = read_cvrplib(path, write(tmp_path / "a.sol", text))
    assert found.optimum == 22 and found.solution is not None and sorted(found.solution)[-3:] == [1, 2, 3]


@pytest.mark.parametrize(
    "text,sentence",
    [
        ("Route #1: 1 2\nRoute #2: 3\n", "the cost is missing"),
        ("Route #1: 1 2\nRoute #2: 3\nCost nan\n", "'Cost nan', expected one cost"),
        ("Route #1: 1 2\nRoute #2: 3\nCost -3\n", "'Cost -3', expected one cost"),
        ("Route #1: 1 2\nRoute #2: 3\nCost 3\nCost 4\n", "expected one cost"),
        ("Route #1: 1 2\nCost 3\n", "its routes serve 2 customers, expected 3"),
        ("Route #1: 1 2 2\nCost 3\n", ":1: customer 2 again or unknown"),
        ("Route #1: 1 2 4\nCost 3\n", ":1: customer 4 again or unknown, expected each of 1 to 3 once"),
        ("Route #1: 1 2 3\nCost 3\n", "route 1 carries 1.5 times the capacity"),
        ("Route #1: 1 2.5\nCost 3\n", "is neither a route nor the cost"),
        ("Route #1: 1 2\nRoute #2: 3\nCost 3\nTime 7\n", ":4: 'Time 7' is neither"),
        ("", "the cost is missing"),
    ],
)
def test_bad_solutions_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path / "a.vrp", cvrp())
    with pytest.raises(DataError, match=sentence) as error:
        read_cvrplib(path, write(tmp_path / "a.sol", text))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="cannot read"):
        read_cvrplib(path, tmp_path / "missing.sol")


def test_the_unit_square_is_read_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="rounding of EUC_2D makes every length 0 or 1; rounded=False"):
        found = read_tsplib(FILES / "unit-square.tsp")
    assert around(found) == 0
    assert around(read_tsplib(FILES / "unit-square.tsp", rounded=False)) == pytest.approx(1.4)
    with pytest.warns(UserWarning, match="makes every length 0 to 2"):
        read_cvrplib(write(tmp_path / "a.vrp", cvrp(points=[(0, 0), (0, 1), (1, 1), (0.2, 0)], kind="CEIL_2D")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_tsplib(write(tmp_path / "a.tsp", tsp([(7, 7), (7, 7), (7, 7)])))  # one place: 0 is right


def test_tours_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "toy.opt.tour", "NAME : toy\nTYPE : TOUR\nDIMENSION : 4\nTOUR_SECTION\n1\n3 2\n4\n-1\nEOF\n"
    )
    assert read_tour(path).tolist() == [0, 2, 1, 3]
    for body, sentence in (
        ("1\n3\n3\n-1", "no permutation"),
        ("1 2 3.5 -1", "no permutation"),
        ("", "no permutation"),
        ("1 2 3 -1 1 3 2 -1", "goes on behind its -1"),
        ("1 2 x", "'x' in TOUR_SECTION is not a number|'x' is not understood"),
        ("1 2 1e300 -1", r"holds 1e\+300"),
    ):
        with pytest.raises(DataError, match=sentence):
            read_tour(write(path, f"TYPE : TOUR\nTOUR_SECTION\n{body}\nEOF\n"))
    with pytest.raises(DataError, match="has 3 nodes, expected 4, the DIMENSION"):
        read_tour(write(path, "TYPE : TOUR\nDIMENSION: 4\nTOUR_SECTION\n1 2 3 -1\n"))
    with pytest.raises(DataError, match="TOUR_SECTION is missing"):
        read_tour(write(path, "TYPE : TOUR\n"))


# ---- what is refused -------------------------------------------------------------------------------------------------


MATRIX = {"kind": "EXPLICIT", "head": "EDGE_WEIGHT_FORMAT: UPPER_ROW\n"}


@pytest.mark.parametrize(
    "text,sentence",
    [
        (tsp(type="SOP"), "TYPE is 'SOP', expected TSP or ATSP"),
        (tsp().replace("TYPE : TSP\n", ""), "TYPE is '', expected TSP or ATSP"),
        (tsp(kind="XRAY1"), "EDGE_WEIGHT_TYPE 'XRAY1' is not known"),
        (tsp(kind="SPECIAL"), "EDGE_WEIGHT_TYPE 'SPECIAL' is not known"),
        (tsp(n=5), "NODE_COORD_SECTION has 4 lines, expected 5, the DIMENSION"),
        (tsp(n=3), "NODE_COORD_SECTION has 4 lines, expected 3, the DIMENSION"),
        (tsp(n=0), "DIMENSION is '0', expected a whole number of at least 1"),
        (tsp().replace("DIMENSION: 4", "DIMENSION: 4.0"), "DIMENSION is '4.0'"),
        (tsp().replace("DIMENSION: 4", "DIMENSION: " + "9" * 5000), "DIMENSION is '9999"),
        (tsp().replace("DIMENSION: 4", "DIMENSION: 4\nDIMENSION: 4"), "a second DIMENSION"),
        (tsp().replace("DIMENSION: 4\n", ""), "DIMENSION is ''"),
        (tsp().replace("3 4 3", "3 4"), ":8: NODE_COORD_SECTION has 2 numbers in a line, expected a node and 2"),
        (tsp().replace("3 4 3", "3 4 3 9"), ":8: NODE_COORD_SECTION has 4 numbers in a line"),
        (tsp().replace("3 4 3", "2 4 3"), "has node 2 here, expected every one of 1 to 4 once"),
        (tsp().replace("3 4 3", "0 4 3"), ":8: NODE_COORD_SECTION has node 0 here"),
        (tsp().replace("3 4 3", "7 4 3"), "has node 7 here"),
        (tsp().replace("3 4 3", "2.5 4 3"), "has node 2.5 here"),
        (tsp().replace("3 4 3", "3 4 x"), ":8: 'x' in NODE_COORD_SECTION is not a number"),
        (tsp().replace("3 4 3", "3 4 1_0"), "'1_0' in NODE_COORD_SECTION is not a number"),
        (tsp().replace("3 4 3", "3 4 \u0663"), "is not a number"),
        (tsp().replace("3 4 3", "3 4 -inf"), ":8: NODE_COORD_SECTION holds -inf"),
        (tsp().replace("3 4 3", "nan 4 3"), ":8: NODE_COORD_SECTION holds nan"),
        (tsp().replace("3 4 3", "3 4 1e13"), r"holds 1e\+13, expected finite numbers up to 1e\+12"),
        (tsp().replace("3 4 3", "3 4 1e999"), "holds inf"),
        (tsp().replace("NODE_COORD_SECTION", "NODE_COORDS_SECTION"), "did you mean 'NODE_COORD_SECTION'"),
        (tsp(body=""), "NODE_COORD_SECTION is missing"),
        (tsp().replace("EOF", "NODE_COORD_SECTION"), "a second NODE_COORD_SECTION"),
        (tsp(head="FIXED_EDGES_SECTION\n1 2\n-1\n"), "'FIXED_EDGES_SECTION' is not understood"),
        (tsp(head="CAPACITY : 3\n"), "'CAPACITY' is not understood"),
        (tsp(head="NODE_COORD_TYPE: THREED_COORDS\n"), "has 3 numbers in a line, expected a node and 3"),
        (tsp(kind="EUC_3D"), "has 3 numbers in a line, expected a node and 3"),
        (tsp(head="EDGE_WEIGHT_FORMAT: FULL_MATRIX\n"), "has a matrix of lengths, expected EDGE_WEIGHT_TYPE EXPLICIT"),
        (tsp(head="EDGE_WEIGHT_SECTION\n1 2 3\n"), "has a matrix of lengths"),
        (tsp(kind="EXPLICIT"), "EDGE_WEIGHT_SECTION is missing"),
        (tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 3"), "has 3 numbers, expected 6 for UPPER_ROW of 4 nodes"),
        (tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 3 4 5 6 7"), "has 7 numbers, expected 6"),
        (tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 3 4 -5 6"), "from node 2 to 4 is -5, expected at least 0"),
        (tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 nan 4 5 6"), "EDGE_WEIGHT_SECTION holds nan"),
        (tsp(kind="EXPLICIT", body="EDGE_WEIGHT_SECTION\n1"), "EDGE_WEIGHT_FORMAT '' is not known"),
        (tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1").replace("UPPER_ROW", "SPIRAL"), "'SPIRAL' is not known"),
        (
            tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 3 4 5 6\nDISPLAY_DATA_SECTION\n1 0 0"),
            "DISPLAY_DATA_SECTION has 1 lines, expected 4",
        ),
        ("hello\n1 2 3\n", "'hello' is not understood"),
        ("1 2 3\n", "'1 2 3' is neither KEY: VALUE nor in a section"),
        ("", "TYPE is ''"),
        (bytes(range(128, 256)), "is neither KEY: VALUE nor in a section"),
        (tsp().encode("utf-16"), "is not a text file"),
        (b"NAME: a\0\n", ":1: is not a text file"),
    ],
)
def test_bad_files_of_tsplib_are_one_sentence(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        read_tsplib(write(tmp_path / "a.tsp", text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text,sentence",
    [
        (cvrp(depot="1\n3\n-1"), "has 2 depots"),
        (cvrp(depot="-1"), "has 0 depots"),
        (cvrp(depot="2\n-1"), "the depot is node 2, expected the first"),
        (cvrp(depot="1\n-1\n2"), "goes on behind its -1"),
        (cvrp().replace("DEPOT_SECTION\n1\n-1\n", ""), "DEPOT_SECTION is missing"),
        (cvrp().replace("CAPACITY : 10\n", ""), "CAPACITY is ''"),
        *((cvrp(capacity=text), f"CAPACITY is '{text}'") for text in ("0", "-3", "nan", "inf", "ten", "1e99", "1_0")),
        (cvrp(demand="1 0\n2 4\n3 5"), "DEMAND_SECTION has 3 lines, expected 4"),
        (cvrp(demand="1 0\n2 4\n3 5\n3 6"), "DEMAND_SECTION has node 3 here"),
        (cvrp(demand="1 0\n2 4\n3 5\n4 -6"), "the demand of node 4 is -6"),
        (cvrp(demand="1 0\n2 4\n3 0\n4 6"), "the demand of node 3 is 0"),
        (cvrp(demand="1 0\n2 4\n3 5\n4 nan"), "DEMAND_SECTION holds nan"),
        (cvrp(demand="1 0\n2 4\n3 5\n4 10.001"), "the demand of node 4 is 10.001, expected above 0 and up to"),
        (cvrp(demand="1 0\n2 4\n3 5\n4 0.123456789012345678"), "too many digits"),
        (cvrp(demand="1 0\n2 4\n3 5\n4 1e-300"), "too many digits"),
        (cvrp(demand="1 2\n2 4\n3 5\n4 6"), "the depot's demand is 2, expected 0"),
        *(
            (cvrp(head=f"{key} : 3\n"), f"'{key}' is not understood")
            for key in ("DISTANCE", "SERVICE_TIME", "VEHICLES", "SALESMEN", "GTSP_SETS")
        ),
        *(
            (cvrp(head=f"{key}_SECTION\n1 2\n"), f"'{key}_SECTION' is not understood")
            for key in ("TIME_WINDOW", "BACKHAUL", "PICKUP_AND_DELIVERY", "SERVICE_TIME", "LINEHAUL", "TOUR")
        ),
        (cvrp(n=3, points=SQUARE[:3]), "DIMENSION is '3', expected a whole number of at least 4"),
        (tsp(), "TYPE is 'TSP', expected CVRP|is not understood"),
        ("NAME : toy\n", "TYPE is ''"),
    ],
)
def test_bad_files_of_cvrplib_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        read_cvrplib(write(tmp_path / "a.vrp", text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match=r"cannot read .*: No such file, or not a regular one"):
            read_tsplib(path)


# ---- sizes before memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        tsp(**MATRIX, body="EDGE_WEIGHT_SECTION\n1 2 3", n=1_000_000),
        tsp(kind="EXPLICIT", head="EDGE_WEIGHT_FORMAT: FULL_MATRIX\n", body="EDGE_WEIGHT_SECTION\n1 2 3", n=1_000_000),
        tsp(n=1_000_000),
        cvrp(n=1_000_000),
        cvrp(n=10**9),
        tsp(n=999_999_999),
    ],
)
def test_a_size_that_is_not_there_takes_no_memory(tmp_path: Path, text: str) -> None:
    path, read = write(tmp_path / "a.tsp", text), read_cvrplib if "CVRP" in text else read_tsplib
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(DataError):
        read(path)
    seconds, memory = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memory < 2**20 and seconds < 1.0


def test_points_are_measured_without_a_matrix(tmp_path: Path) -> None:
    n = MOST_SQUARE + 1
    rows = "\n".join(f"{i + 1} {i} 0" for i in range(n))
    found = read_tsplib(write(tmp_path / "a.tsp", tsp(body=f"NODE_COORD_SECTION\n{rows}", n=n)))
    assert around(found) == 2 * (n - 1) and found.make_problem().num_nodes == n
    with pytest.raises(DataError, match=f"a matrix of its {n} nodes would be too large, expected at most {n - 1}"):
        _ = found.costs
    with pytest.raises(DataError, match="would be too large"):  # an agent can see these lengths as a matrix alone
        read_tsplib(write(tmp_path / "a.tsp", tsp(body=f"NODE_COORD_SECTION\n{rows}", n=n, kind="MAN_2D")))
    with pytest.raises(UserError, match=f"names node {n}, expected 0 to {n - 1}"):
        found.length(np.array([0, n]))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsp"
    with path.open("wb") as file:
        file.truncate(tsplib.MOST_BYTES + 1)
    with pytest.raises(DataError, match="expected at most"):
        read_tsplib(path)


# ---- the library itself ----------------------------------------------------------------------------------------------


OPTIMA = {"burma14": 3323, "ulysses16": 6859, "gr17": 2085, "br17": 39, "berlin52": 7542, "att48": 10628}


@pytest.mark.skipif("RLKIT_TSPLIB" not in os.environ, reason="RLKIT_TSPLIB names no folder with TSPLIB's files")
def test_published_optima_are_reached_with_the_official_lengths() -> None:
    folder = Path(os.environ["RLKIT_TSPLIB"])
    paths = [path for name in OPTIMA for path in (folder / f"{name}.tsp", folder / f"{name}.atsp") if path.exists()]
    assert paths
    for path in paths:
        found = read_tsplib(path)
        cost = found.costs.astype(float)
        if len(cost) < 18:
            best = float((solvers.held_karp_table(cost)[0][-1] + cost[1:, 0]).min())
        else:
            best = found.length(solvers.local_search(cost, 400, np.random.default_rng(0)))
        assert best == OPTIMA[path.stem]
