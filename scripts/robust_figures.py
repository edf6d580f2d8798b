"""Robustness curves and regret of DR-RPO and its peers: docs/assets/robust/, every number from exact evaluation.

    python scripts/robust_figures.py            # a minute and a half of processor time
    python scripts/robust_figures.py --draw     # figures and summary again, from the runs that are there

Four studies.  ``linear``: the simulated linear MDP, 100 episodes in the nominal world, returns at shifts q = 0..1 of
the policy handed over and of the uniform mixture of all policies played.  ``put``: the American put, 100 episodes at
p_up = 0.5, payoff at other drifts, first prices spread evenly over [95, 105].  ``regret``: robust regularised regret
of DR-RPO over 1600 episodes.  All methods share ridge 0.1, β 1 and known rewards; η is 100 on the linear MDP and 20 on
the put, which mirror descent reaches in sum over its 100 episodes.  ``cartpole``: the extension over radial features,
150 episodes in Gymnasium's CartPole, then played in others, with the best action at each step.

Every run is a line of ``runs.jsonl``; what is there is not run again, so an interrupted call is simply repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.agents.drrpo.core import METHODS, DRRPOConfig, Planner, Policy
from rlkit.agents.drrpo_features import FeatureDRRPO
from rlkit.algorithms.checkpoint import versions
from rlkit.envs.robust import american_put as put
from rlkit.envs.robust import linear_mdp as lin
from rlkit.system.files import write_atomically

OUT = Path(__file__).resolve().parent.parent / "docs" / "assets" / "robust"
SHIFTS = np.round(np.arange(0, 1.01, 0.05), 2)
DRIFTS = np.round(np.arange(0.15, 0.851, 0.025), 3)
NORMS = (0.1, 0.2, 0.3)
SHARED = {"ridge": 0.1, "beta": 1.0}
RHO, EPISODES = 0.5, 100
# name: ‖ξ‖₁, options of DR-RPO
REGRETS: dict[str, tuple[float, dict[str, Any]]] = {
    "‖ξ‖₁ 0.1, β 1": (0.1, {}),
    "‖ξ‖₁ 0.3, β 1": (0.3, {}),
    "‖ξ‖₁ 0.1, β 1, doubling": (0.1, {"refresh": "doubling"}),
    "‖ξ‖₁ 0.1, β 0.1": (0.1, {"beta": 0.1}),
}
REGRET_EPISODES = 1600
RADII = (0.0, 0.002, 0.005, 0.01)  # of the extension; 0 is the method without robustness
LENGTHS, CARTS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.5, 5.0), (0.1, 0.5, 1.0, 2.0, 4.0, 7.0, 10.0)  # of pole, m; and cart, kg
CART_EPISODES, PLAYED = 150, 20
LABELS = {
    "lsvi-ucb": "LSVI-UCB",
    "dr-lsvi-ucb": "DR-LSVI-UCB",
    "drrpo": "DR-RPO",
    "we-drive-u": "We-DRIVE-U",
    "drrpo-mirror": "DR-RPO, mirror",
    "drrpo-annealed": "DR-RPO, annealed",
    "oppo": "OPPO",
}


def eta_of(method: str, final: float) -> float:
    """η that mirror descent's sum, or the annealed last episode, brings to ``final``."""
    slow = METHODS[method].improvement == "mirror" or METHODS[method].anneal
    return final / EPISODES if slow else final


def tabled(planner: Planner, policy: Policy) -> np.ndarray:
    """[H, S, A] on the linear MDP."""
    return np.stack([planner.probabilities(policy, lin.LinearMDP().observations(h)) for h in range(lin.HORIZON)])


def greedy(table: np.ndarray) -> np.ndarray:
    """The policy that plays the most probable action, the first of equals; ``[..., A]`` as ``table``."""
    return np.eye(table.shape[-1])[table.argmax(-1)]


def linear(method: str, norm: float, seed: int) -> dict[str, Any]:
    env = lin.LinearMDPEnv(norm)
    worlds = [lin.LinearMDP(norm, shift=float(q)) for q in SHIFTS]
    planner = Planner(env.problem, DRRPOConfig(method=method, rho=RHO, eta=eta_of(method, 100.0), **SHARED))
    state, mixture, seconds = planner.initial(seed), np.zeros(2), 0.0
    for _ in range(EPISODES):
        begin = time.process_time()
        planner.run_episode(state, env)
        seconds += time.process_time() - begin
        table = tabled(planner, state.policy)
        mixture += [lin.policy_value(worlds[i], table)[0, 0] / EPISODES for i in (0, -1)]
    table = tabled(planner, planner.deployed(state))
    curve = [round(float(lin.policy_value(world, table)[0, 0]), 6) for world in worlds]
    played = [round(float(lin.policy_value(world, greedy(table))[0, 0]), 6) for world in worlds]
    return {
        "curve": curve,
        "greedy": played,
        "mixture_ends": mixture.round(6).tolist(),
        "plans": state.plans,
        "cpu_seconds": round(seconds, 3),
    }


def american(method: str, seed: int, seeds: int) -> dict[str, Any]:
    s0 = put.LOWEST_START + 10.0 * (seed + 0.5) / seeds
    env = put.AmericanPutEnv(s0=s0)
    options = {"method": method, "rho": RHO, "eta": eta_of(method, 20.0), "bonus": "sum"}
    planner = Planner(env.problem, DRRPOConfig(**options, **SHARED))
    state, begin = planner.initial(seed), time.process_time()
    for _ in range(EPISODES):
        planner.run_episode(state, env)
    seconds = time.process_time() - begin
    policy = planner.deployed(state)
    table = [planner.probabilities(policy, env.problem.observations(h)) for h in range(env.problem.horizon)]
    worlds = [put.AmericanPut(p_up=float(p), s0=s0) for p in DRIFTS]
    curve = [round(put.policy_value(world, table), 6) for world in worlds]
    played = [round(put.policy_value(world, [greedy(step) for step in table]), 6) for world in worlds]
    return {"curve": curve, "greedy": played, "s0": s0, "plans": state.plans, "cpu_seconds": round(seconds, 3)}


def regret(name: str, seed: int) -> dict[str, Any]:
    norm, options = REGRETS[name]
    env = lin.LinearMDPEnv(norm)
    planner = Planner(env.problem, DRRPOConfig(**{**SHARED, "rho": RHO, "eta": 100.0, **options}))
    state, found = planner.initial(seed), []
    best = lin.optimal_value(env.problem, planner.radii, 100.0)[0][0, 0]
    last, value = -1, 0.0
    for _ in range(REGRET_EPISODES):
        planner.run_episode(state, env)
        if state.plans != last:  # between plans the policy stays
            last = state.plans
            value = lin.policy_value(env.problem, tabled(planner, state.policy), planner.radii, 100.0)[0, 0]
        found.append(best - value)
    return {"cumulative": np.cumsum(found)[::10].round(6).tolist(), "plans": state.plans}


def cartpole(rho: float, seed: int) -> dict[str, Any]:
    agent = FeatureDRRPO("MlpPolicy", "rlkit/ContextualCartPole-v0", seed=seed, rho=rho)
    begin = time.process_time()
    returns = [float(agent.update(None)["return"]) for _ in range(CART_EPISODES)]
    seconds = time.process_time() - begin
    found: dict[str, Any] = {"last_10_episodes": float(np.mean(returns[-10:])), "cpu_seconds": round(seconds, 3)}
    for feature, values in (("length", LENGTHS), ("masscart", CARTS)):
        worlds = np.repeat(values, PLAYED)
        envs = gym.make_vec(
            "rlkit/ContextualCartPole-v0",
            len(worlds),
            vectorization_mode="vector_entry_point",
            context={feature: worlds.tolist()},
        )
        seen, _ = envs.reset(seed=1000)
        total, running = np.zeros(len(worlds)), np.ones(len(worlds), bool)
        while running.any():
            seen, rewards, ended, cut, _ = envs.step(agent.predict(seen, deterministic=True)[0])
            total += rewards * running
            running &= ~(ended | cut)
        envs.close()
        found[feature] = total.reshape(len(values), PLAYED).mean(axis=1).tolist()
    return found


# ---- runs ------------------------------------------------------------------------------------------------------------


def work(seeds: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every run's key and how to make it."""
    for method in LABELS:
        for seed in range(seeds):
            for norm in NORMS:
                yield f"linear|{method}|{norm}|{seed}", lambda m=method, n=norm, s=seed: linear(m, n, s)
            yield f"put|{method}|{seed}", lambda m=method, s=seed: american(m, s, seeds)
    for rho in RADII:
        for seed in range(max(1, seeds // 4)):
            yield f"cartpole|{rho}|{seed}", lambda r=rho, s=seed: cartpole(r, s)
    for name in REGRETS:
        for seed in range(max(1, seeds // 4)):
            yield f"regret|{name}|{seed}", lambda n=name, s=seed: regret(n, s)


def stored(path: Path) -> dict[str, Any]:
    """The runs that are there; a line cut short by an interruption is dropped."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry.pop("key")] = entry
    return found


def run_all(path: Path, seeds: int) -> dict[str, Any]:
    found = stored(path)
    write_atomically(path, "".join(json.dumps({"key": k, **v}) + "\n" for k, v in found.items()).encode())
    for key, make in work(seeds):
        if key not in found:
            found[key] = make()
            with path.open("a") as file:
                file.write(json.dumps({"key": key, **found[key]}) + "\n")
            print(key, flush=True)
    return found


# ---- what they show --------------------------------------------------------------------------------------------------


def pick(runs: dict[str, Any], prefix: str, field: str) -> np.ndarray:
    """[seeds, ...] of one field over the runs whose keys begin with ``prefix``, in the order of seeds."""
    keys = sorted((key for key in runs if key.startswith(prefix)), key=lambda key: int(key.rsplit("|", 1)[1]))
    return np.array([runs[key][field] for key in keys])


def crossing(grid: np.ndarray, gap: np.ndarray) -> float | None:
    """Where ``gap`` first falls through 0, by linear interpolation."""
    for i in range(len(grid) - 1):
        if gap[i] > 0 >= gap[i + 1]:
            return float(grid[i] + (grid[i + 1] - grid[i]) * gap[i] / (gap[i] - gap[i + 1]))
    return None


def slope(cumulative: np.ndarray) -> float:
    """Log-log slope of ``cumulative`` (every tenth episode from 1) between episode 50 and the end."""
    count = np.arange(1, REGRET_EPISODES + 1, 10)
    late = count >= 50
    return float(np.polyfit(np.log(count[late]), np.log(cumulative[late]), 1)[0])


def error(curve: np.ndarray, played: np.ndarray) -> dict[str, Any]:
    """What is wrong where the most probable action is played in place of a sampled one: ``[seeds, worlds]`` of each."""
    apart = played - curve
    return {"mean": float(apart.mean()), "root_mean_square": float(np.sqrt(np.square(apart).mean()))} | {
        "largest": float(np.abs(apart).max()),
        "mean_over_seeds": apart.mean(axis=0).round(6).tolist(),
    }


def summarise(runs: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {"versions": versions(), "linear": {}, "put": {}, "regret": {}, "cartpole": {}}
    three, drifts = np.searchsorted(SHIFTS, [0.0, 0.5, 1.0]), np.searchsorted(DRIFTS, np.arange(0.2, 0.81, 0.1) - 1e-9)
    for norm in NORMS:
        plus, minus = 0.3 + norm, 0.3 - norm
        following = 2 * plus + 0.999 * (1 - plus) * plus
        part: dict[str, Any] = {"crossing_expected": 1 - following / 2}
        for label, p in (("first action +1", plus), ("first action -1", minus)):
            part[label] = [2 * (1 - q) * p + (1 - p) * following for q in (0.0, 0.5, 1.0)]
        curves = {method: pick(runs, f"linear|{method}|{norm}|", "curve") for method in LABELS}
        for method, curve in curves.items():
            played = pick(runs, f"linear|{method}|{norm}|", "greedy")
            ends = pick(runs, f"linear|{method}|{norm}|", "mixture_ends").mean(axis=0)
            part[method] = {
                "mean": curve.mean(axis=0)[three].tolist(),
                "sd": curve.std(axis=0)[three].tolist(),
                "greedy": error(curve, played),
                "mixture": [ends[0], ends.mean(), ends[1]],  # returns are linear in the shift
                "plans": float(pick(runs, f"linear|{method}|{norm}|", "plans").mean()),
                "cpu_seconds": float(np.median(pick(runs, f"linear|{method}|{norm}|", "cpu_seconds"))),
                "seeds": len(curve),
            }
        means = {method: curve.mean(axis=0) for method, curve in curves.items()}
        part["crossing"] = crossing(SHIFTS, means["lsvi-ucb"] - means["drrpo"])
        part["largest_gap_to_dr_lsvi_ucb"] = float(np.abs(means["drrpo"] - means["dr-lsvi-ucb"]).max())
        summary["linear"][str(norm)] = part
    curves = {method: pick(runs, f"put|{method}|", "curve") for method in LABELS}
    for method, curve in curves.items():
        summary["put"][method] = {
            "mean": curve.mean(axis=0)[drifts].tolist(),
            "sd": curve.std(axis=0)[drifts].tolist(),
            "greedy": error(curve, pick(runs, f"put|{method}|", "greedy")),
            "plans": float(pick(runs, f"put|{method}|", "plans").mean()),
            "cpu_seconds": float(np.median(pick(runs, f"put|{method}|", "cpu_seconds"))),
            "seeds": len(curve),
        }
    means = {method: curve.mean(axis=0) for method, curve in curves.items()}
    summary["put"]["crossing"] = crossing(DRIFTS, means["lsvi-ucb"] - means["drrpo"])
    summary["put"]["largest_gap_to_dr_lsvi_ucb"] = float(np.abs(means["drrpo"] - means["dr-lsvi-ucb"]).max())
    for name in REGRETS:
        found = pick(runs, f"regret|{name}|", "cumulative")
        summary["regret"][name] = {
            "slope_of_mean": slope(found.mean(axis=0)),
            "slopes": [slope(one) for one in found],
            "final_mean": float(found[:, -1].mean()),
            "plans": float(pick(runs, f"regret|{name}|", "plans").mean()),
            "seeds": len(found),
        }
    for rho in RADII:
        part = {"last_10_episodes": pick(runs, f"cartpole|{rho}|", "last_10_episodes").tolist()}
        for feature, values in (("length", LENGTHS), ("masscart", CARTS)):
            curve = pick(runs, f"cartpole|{rho}|", feature)
            part[feature] = {"at": values, "mean": curve.mean(axis=0).tolist(), "sd": curve.std(axis=0).tolist()}
        summary["cartpole"][str(rho)] = part
    return summary


def draw(runs: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = list(LABELS)[:4]
    styles = dict(zip(shown, ("C3-", "C0-", "C2--", "C1:"), strict=True))

    def curve(axes: Any, grid: np.ndarray, values: np.ndarray, method: str) -> None:
        mean, sd = values.mean(axis=0), values.std(axis=0)
        axes.plot(grid, mean, styles[method], label=LABELS[method])
        axes.fill_between(grid, mean - sd, mean + sd, color=styles[method][:2], alpha=0.12, linewidth=0)

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    for axes, norm in zip(panels, NORMS, strict=True):
        for method in shown:
            curve(axes, SHIFTS, pick(runs, f"linear|{method}|{norm}|", "curve"), method)
        axes.set(title=f"‖ξ‖₁ = {norm}", xlabel="shift q of the deployed world")
    panels[0].set_ylabel("expected return")
    panels[0].legend()
    figure.savefig(out / "linear_mdp.png", dpi=120)

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method in shown:
        curve(axes, DRIFTS, pick(runs, f"put|{method}|", "curve"), method)
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="probability of a rise in the deployed world (trained at 0.5)", ylabel="expected payoff")
    axes.legend()
    figure.savefig(out / "american_put.png", dpi=120)

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    count = np.arange(1, REGRET_EPISODES + 1, 10)
    for name in REGRETS:
        mean = pick(runs, f"regret|{name}|", "cumulative").mean(axis=0)
        axes.loglog(count[5:], mean[5:], label=f"{name}: slope {slope(mean):.2f}")
    axes.set(xlabel="episodes", ylabel="cumulative robust regularised regret")
    axes.legend()
    figure.savefig(out / "regret.png", dpi=120)

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for axes, feature, values, unit in zip(
        panels, ("length", "masscart"), (LENGTHS, CARTS), ("half the pole, m", "cart, kg"), strict=True
    ):
        for i, rho in enumerate(RADII):
            found = pick(runs, f"cartpole|{rho}|", feature)
            mean, sd = found.mean(axis=0), found.std(axis=0)
            axes.plot(values, mean, f"C{i}-o", label=f"radius {rho}", markersize=3)
            axes.fill_between(values, mean - sd, mean + sd, color=f"C{i}", alpha=0.1, linewidth=0)
        axes.axvline(0.5 if feature == "length" else 1.0, color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel=f"{unit} (trained at the line)")
    panels[0].set_ylabel("return")
    panels[0].legend()
    figure.savefig(out / "cartpole.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each curve; regret takes a quarter of them")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", action="store_true", help="only draw and summarise")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "runs.jsonl"
    begin = time.time()
    runs = stored(path) if arguments.draw else run_all(path, arguments.seeds)
    text = json.dumps(summarise(runs), indent=1, ensure_ascii=False)
    write_atomically(arguments.out / "summary.json", (text + "\n").encode())
    draw(runs, arguments.out)
    print(f"{len(runs)} runs, {time.time() - begin:.0f} s now; written to {arguments.out}")


if __name__ == "__main__":
    main()
