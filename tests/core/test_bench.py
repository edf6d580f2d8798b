"""The bench's structure: rows run, JSON is complete, a missing peer is named.  Speed is never asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlkit.bench import ROWS, pick
from rlkit.bench.measure import Line, Settings, Side, Times, alternate
from rlkit.cli import bench
from rlkit.errors import UserError

LINE_FIELDS = {
    *("row", "what", "unit", "kind", "ours", "peer", "ratio", "spread", "goal", "met", "note", "skipped", "details"),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "bench-cache"))


def test_sides_take_turns():
    calls: list[tuple[str, int]] = []
    sides = {"a": Side(lambda n: calls.append(("a", n)), block=4), "b": Side(lambda n: calls.append(("b", n)), block=2)}
    times = alternate(sides, Settings(rounds=3))
    assert calls == [("a", 4), ("b", 2)] * 3
    assert times["a"].block == 4 and len(times["a"].seconds) == len(times["b"].seconds) == 3


def test_blocks_are_multiples_and_context_is_entered():
    seen: list[int] = []
    entered = []

    class Context:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *_: object) -> None:
            pass

    def run(n: int) -> None:
        seen.append(n)
        sum(range(n))

    times = alternate({"a": Side(run, Context, multiple=3)}, Settings(rounds=2, block_seconds=1e-4))
    assert all(n % 3 == 0 for n in seen) and times["a"].block == seen[-1] == seen[-2]
    assert len(entered) == len(seen)


@pytest.mark.parametrize(
    ("kind", "goal", "ratio", "met"),
    [
        ("speed-up", 3.0, 4.0, True),
        ("speed-up", 5.0, 4.0, False),
        ("fraction", 0.3, 0.25, True),
        ("share", 0.4, -3.0, True),
    ],
)
def test_ratio_is_the_median_of_the_rounds(kind, goal, ratio, met):
    line = Line("r", "w", "u", kind, goal, Times(1, [1.0, 1.0, 2.0]), Times(1, [4.0, 3.0, 10.0]))
    if kind == "speed-up":
        assert line.ratios == [4.0, 3.0, 5.0]
    assert line.ratio == pytest.approx(ratio) and line.met is met
    assert line.spread is not None and line.spread[0] <= line.ratio <= line.spread[1]


def test_a_misspelt_row_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'sampling'"):
        pick(["samplin"])
    assert pick([]) == list(ROWS) and pick(["help", "help"]) == ["help"]


def test_list_loads_neither_torch_nor_peers():
    code = (
        "import sys; from rlkit.cli import main; assert main(['bench', '--list']) == 0;"
        "assert not {'torch', 'd3rlpy', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(ROWS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "5"], "--rows 5 is out of range"),
        (["--rounds", "0"], "--rounds 0 is out of range"),
        (["--out", "no/such/folder/b.json"], "cannot be written"),
        (["--out", "."], "is a folder"),
    ],
)
def test_bad_input_is_named_before_anything_is_measured(arguments, message):
    with pytest.raises(UserError, match=message):
        bench.main(["sampling", *arguments])


def test_quick_rows_write_complete_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "bench.json"
    assert bench.main(["sampling", "overhead", "--quick", "--rounds", "2", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert {"format", "method", "machine", "versions", "settings", "lines"} <= set(content)
    assert content["settings"]["quick"] and content["versions"]["torch"] and content["machine"]["cores"] >= 1
    assert {line["row"] for line in content["lines"]} == {"sampling", "overhead"}
    for line in content["lines"]:
        assert set(line) == LINE_FIELDS
        for side in ("ours", "peer"):
            assert len(line[side]["seconds"]) == 2 and line[side]["median_seconds"] > 0
        assert math.isfinite(line["ratio"]) and isinstance(line["met"], bool)
    printed = capsys.readouterr().out
    assert "met?" in printed and "sampling" in printed
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


def test_a_missing_peer_is_named_and_the_rest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "d3rlpy", None)  # what an import finds where it is not installed
    out = tmp_path / "bench.json"
    assert bench.main(["td3bc-d3rlpy", "sampling", "--quick", "--rounds", "1", "--out", str(out)]) == 0
    lines = json.loads(out.read_text())["lines"]
    missing = [line for line in lines if line["row"] == "td3bc-d3rlpy"]
    assert missing and all("pip install 'rlkit-papers[bench]'" in line["skipped"] for line in missing)
    assert all(line["ratio"] is None and line["met"] is None for line in missing)
    assert all(line["ratio"] > 0 for line in lines if line["row"] == "sampling")
    assert "peer not installed: pip install 'rlkit-papers[bench]'" in capsys.readouterr().err


def test_data_is_deterministic_and_a_damaged_cache_is_made_anew():
    from rlkit.bench.data import bench_data, cache_folder

    first = bench_data("hopper", 500)
    (cache_folder() / "hopper-500-v1.safetensors").write_bytes(b"damaged")
    second, third = bench_data("hopper", 500), bench_data("hopper", 500)
    assert first.content_hash == second.content_hash == third.content_hash
    assert len(first) == 500 and np.abs(first.actions).max() <= 1.0


def test_prdc_pair_runs_with_both_searches_and_leaves_the_agent_as_it_was():
    from rlkit.bench.search import scipy

    settings = Settings.short()
    steady, first = scipy(
        Settings(**{**vars(settings), "rounds": 1, "warm_updates": 6, "block_seconds": 0.01}), "hopper"
    )
    assert steady.ratio and first.ratio and steady.goal and first.goal is None
    assert 0 <= steady.details["own_nearest"] <= 1 and 0.5 <= steady.details["answered_from_memory"] <= 1
    assert first.details["answered_from_memory"] < 0.5


def test_the_plain_loop_and_the_agent_compute_the_same_update():
    torch = pytest.importorskip("torch")
    from rlkit.bench.data import bench_data
    from rlkit.bench.plain import PlainTD3BC
    from rlkit.bench.updates import learner

    data = bench_data("hopper", 500)
    agent = learner("td3bc", data, Settings(batch_size=64))
    plain = PlainTD3BC(11, 3, 1.0)
    for theirs, ours in (
        (plain.actor, agent.policy.actor),
        (plain.critic_1, agent.critic.nets[0]),
        (plain.critic_2, agent.critic.nets[1]),
    ):
        for to, of in zip(theirs.parameters(), ours.parameters(), strict=True):
            to.data.copy_(of.data)
    for theirs, ours in ((plain.actor_target, plain.actor), (plain.critic_1_target, plain.critic_1)):
        theirs.load_state_dict(ours.state_dict())
    plain.critic_2_target.load_state_dict(plain.critic_2.state_dict())
    plain.policy_noise, agent.config = 0.0, type(agent.config)(batch_size=64, target_noise=0.0)
    for _ in range(6):
        batch = agent.replay.batch(64)
        agent.update(batch)
        agent._n_updates += 1
        plain.train([batch.observations, batch.actions, batch.rewards, batch.next_observations, 1 - batch.not_terminal])
    for theirs, ours in ((plain.actor, agent.policy.actor), (plain.critic_1_target, agent.target_critic.nets[0])):
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["ddpg", "sac"])
def test_online_pairs_learn_on_both_sides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkit.bench import online

    monkeypatch.setattr(online, "WARM", 1010)
    lines = online.sb3(Settings(rounds=1, block_seconds=1e-3, batch_size=8), name)
    assert [line.unit for line in lines] == ["update", "step"]
    assert all(line.ratio and line.goal is None for line in lines)


def test_worlds_are_compared_step_for_step(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    rows = ["dual-linprog", "routing-stepping", "contextual-stepping"]
    assert bench.main([*rows, "--quick", "--rounds", "1", "--out", str(out)]) == 0
    lines = json.loads(out.read_text())["lines"]
    assert {line["row"] for line in lines} == set(rows)
    assert all("rl4co" in (line["skipped"] or "") or line["ratio"] > 0 for line in lines)


def test_the_duals_two_solvers_agree() -> None:
    from scipy.optimize import linprog

    from rlkit.agents.drrpo.dual import nu_tv

    generator = np.random.default_rng(1)
    mu, values = generator.dirichlet(np.ones(9), size=2), np.append(0.0, generator.uniform(0, 1, 8))
    found = nu_tv(mu, values, np.full(2, 0.3))[0]
    eye = np.eye(9)
    limits = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, 9)), np.ones((1, 9))]])
    for row, nu in zip(mu, found, strict=True):
        bounds = np.concatenate((row, -row, [0.6]))
        total = np.concatenate((np.ones(9), np.zeros(9)))[None]
        cost = np.concatenate((values, np.zeros(9)))
        best = linprog(cost, A_ub=limits, b_ub=bounds, A_eq=total, b_eq=[1.0], bounds=(0, None))
        assert best.fun == pytest.approx(nu, abs=1e-9)


# ---- JAX, GPUs -------------------------------------------------------------------------------------------------------

SHORT = Settings(rows=2000, rounds=1, block_seconds=0.001, batch_size=16)


@pytest.mark.parametrize(("row", "module"), [("td3bc-jax", "jax"), ("stepping-envpool", "envpool")])
def test_peers_that_are_not_installed_are_said(row: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    lines = ROWS[row](SHORT)
    assert lines and all("installed" in line.skipped and "pip install" in line.skipped for line in lines)


def test_the_jax_peer_is_td3bc() -> None:
    """From the same weights and batch its critics' loss is ours, and its updates change what ours change."""
    jax = pytest.importorskip("jax")
    import torch

    from rlkit.agents.td3bc import critic_loss, td_target
    from rlkit.algorithms.nets import Critics
    from rlkit.algorithms.replay import Batch
    from rlkit.bench import xla

    ds, da, n = 3, 2, 64
    rows = np.random.default_rng(0).standard_normal((n, 2 * ds + da + 2)).astype(np.float32)
    rows[:] = rows[0]  # whatever is drawn is the same batch
    peer = xla.JaxTD3BC(rows, ds, da, 2.5, SHORT)
    critics = Critics(ds, da, (256, 256), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for net, layers in zip(critics.nets, peer.state["online"]["critics"], strict=True):
            for layer, (weight, bias) in zip([m for m in net if hasattr(m, "weight")], layers, strict=True):
                layer.weight.copy_(torch.from_numpy(np.array(weight).T))
                layer.bias.copy_(torch.from_numpy(np.array(bias)))
        parts = torch.from_numpy(rows[:16]).split([ds, da, 1, 1, ds], dim=1)
        batch = Batch(*parts, torch.zeros(16, dtype=torch.int64))
        s2 = jax.numpy.asarray(batch.next_observations.numpy())
        xla_noise, xla.NOISE = xla.NOISE, 0.0
        try:
            a2 = torch.from_numpy(np.array(peer._act(peer.state["target"]["actor"], s2)))
            ours = critic_loss(critics, batch, td_target(critics, batch, a2, 0.99))
            state, loss = jax.jit(peer._update, static_argnums=1)(peer.state, False)
        finally:
            xla.NOISE = xla_noise
    assert float(loss) == pytest.approx(float(ours), rel=1e-4)
    same = jax.tree_util.tree_map(lambda a, b: bool((a == b).all()), state["online"], peer.state["online"])
    assert not any(jax.tree_util.tree_leaves(same["critics"])[:2]) and all(jax.tree_util.tree_leaves(same["actor"]))
    before = np.array(peer.state["target"]["actor"][0][0])
    peer.updates(10)
    assert float(peer.state["steps"]) == 10 and not np.array_equal(before, peer.state["target"]["actor"][0][0])


def test_rows_of_a_gpu_run_where_there_is_one_and_say_so_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rlkit.bench import device

    rows = [name for name in ROWS if name.startswith("gpu-")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = [line for name in rows for line in ROWS[name](SHORT)]
    assert len(lines) >= 8 and {line.skipped for line in lines} == {"not measured: there is no CUDA device"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(device, "DEVICE", "cpu")  # a graph that cannot be recorded runs as it is written
    monkeypatch.setattr(device, "RUNS", 2)
    lines = [line for name in ("gpu-stacked", "gpu-prdc") for line in ROWS[name](SHORT)]
    assert all(line.ratio is not None and line.note for line in lines)


def test_compiled_rows_and_optimisers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXXFLAGS", "-O0")
    lines = [line for name in ("compiled", "optimiser") for line in ROWS[name](SHORT)]
    assert all(line.ratio is not None and line.ratio > 0 for line in lines)
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert all("compiles C++" in line.skipped for line in ROWS["compiled"](SHORT))
