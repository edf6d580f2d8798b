"""Rows about environments stepped by numba and DR-RPO's dual: against Gymnasium, simglucose, rl4co or torch, SciPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit import registry
from rlkit.bench.measure import Line, PeerMissing, Settings, Side, Times, alternate, cores, skipped
from rlkit.vector import make_vector_env

PLAN = 256  # different action batches, repeated
BATCHES, SIZES = (1, 64, 1024, 8192), (20, 100, 500)
DUAL = (20, 200)  # features, samples


# ---- contextual environments -----------------------------------------------------------------------------------------


def contextual(settings: Settings) -> list[Line]:
    """CartPole and Pendulum, one and many, against Gymnasium's: its vectorised CartPole, its loop over Pendulums."""
    import gymnasium as gym

    lines = []
    for name, peer_id, mode in (
        ("CartPole", "CartPole-v1", "vector_entry_point"),
        ("Pendulum", "Pendulum-v1", "sync"),
    ):
        for count in (1, 16, 1024):
            ours_id = registry.record(f"contextual-{name.lower()}").env_id
            ours: Any = gym.make(ours_id) if count == 1 else make_vector_env(ours_id, count)
            peer: Any = gym.make(peer_id) if count == 1 else gym.make_vec(peer_id, count, vectorization_mode=mode)
            ours.action_space.seed(0)
            plan = [ours.action_space.sample() for _ in range(PLAN)]
            sides = {"ours": Side(_steps(ours, plan, count)), "peer": Side(_steps(peer, plan, count))}
            times = alternate(sides, settings)
            against = "Gymnasium's" + ("" if count == 1 else f" make_vec, {mode}")
            line = Line("contextual-stepping", f"{name}, {count} at once, against {against}", "step of all")
            line.ours, line.peer = times["ours"], times["peer"]
            line.note = f"{count / times['ours'].median:,.0f} steps a second; random actions, resets included"
            lines.append(line)
            ours.close()
            peer.close()
    return lines


def _steps(env: Any, plan: list[Any], count: int) -> Callable[[int], None]:
    env.reset(seed=0)
    position = 0

    def run(n: int) -> None:
        nonlocal position
        for _ in range(n):
            _, _, ended, cut, _ = env.step(plan[position % len(plan)])
            if count == 1 and (ended or cut):  # a batch resets itself
                env.reset()
            position += 1

    return run


# ---- glucose ---------------------------------------------------------------------------------------------------------


def glucose(settings: Settings) -> list[Line]:
    """Five minutes of a patient, alone and of 1,024, against simglucose's integration of the same patient."""
    import gymnasium as gym

    lines, env_id = [], registry.record("glucose").env_id
    for count in (1, 1024):
        what = f"glucose, {count} patient{'s' * (count > 1)}, against simglucose's adult#001"
        line = Line("glucose-stepping", what, "step of one")
        env: Any = gym.make(env_id) if count == 1 else make_vector_env(env_id, count)
        plan = [np.full(env.action_space.shape, 1 / 43.2, np.float32)]  # the basal rate
        whole = _steps(env, plan, count)
        try:
            peer = Side(_simglucose(), block=4 if settings.quick else 40)
        except PeerMissing as missing:
            return skipped([line], missing)
        # a batch's step is many patients' steps: units are those of one
        ours = Side(partial(_in_batches, whole, count), multiple=count)
        times = alternate({"ours": ours, "peer": peer}, settings)
        line.ours, line.peer = times["ours"], times["peer"]
        line.note = f"{1 / times['ours'].median:,.0f} steps a second; the basal rate, meals and resets included"
        lines.append(line)
        env.close()
    return lines


def _in_batches(run: Callable[[int], None], count: int, n: int) -> None:
    run(max(1, n // count))


def _simglucose() -> Callable[[int], None]:
    try:
        from simglucose.actuator.pump import InsulinPump  # type: ignore[import-not-found,unused-ignore]
        from simglucose.controller.base import Action  # type: ignore[import-not-found,unused-ignore]
        from simglucose.patient.t1dpatient import T1DPatient  # type: ignore[import-not-found,unused-ignore]
        from simglucose.sensor.cgm import CGMSensor  # type: ignore[import-not-found,unused-ignore]
        from simglucose.simulation.env import T1DSimEnv  # type: ignore[import-not-found,unused-ignore]
        from simglucose.simulation.scenario_gen import RandomScenario  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise PeerMissing("simglucose is not installed") from error
    name, start = "adult#001", datetime(2020, 1, 1)
    patient, sensor = T1DPatient.withName(name), CGMSensor.withName("GuardianRT", seed=1)  # five minutes a sample
    env = T1DSimEnv(patient, sensor, InsulinPump.withName("Insulet"), RandomScenario(start_time=start, seed=1))
    env.reset()
    basal = Action(basal=float(patient._params.u2ss * patient._params.BW / 6000), bolus=0.0)

    def run(n: int) -> None:
        for _ in range(n):
            if env.step(basal).done:
                env.reset()

    return run


# ---- routing ---------------------------------------------------------------------------------------------------------


class TorchTSP:
    """TSP as batched libraries on torch state it: a dictionary of tensors, a new one each step, the length at the end.

    coords float32 ``[B, n, 2]``.
    """

    def __init__(self, coords: Tensor):
        self.coords = coords

    def reset(self) -> dict[str, Tensor]:
        batch, n = self.coords.shape[:2]
        return {
            "first": torch.zeros(batch, dtype=torch.int64),
            "current": torch.zeros(batch, dtype=torch.int64),
            "mask": torch.ones(batch, n, dtype=torch.bool).scatter(1, torch.zeros(batch, 1, dtype=torch.int64), False),
            "reward": torch.zeros(batch),
            "done": torch.zeros(batch, dtype=torch.bool),
        }

    def step(self, state: dict[str, Tensor], action: Tensor) -> dict[str, Tensor]:
        mask = state["mask"].scatter(1, action[:, None], False)  # [B, n]
        return {
            "first": state["first"],
            "current": action,
            "mask": mask,
            "reward": torch.zeros_like(state["reward"]),
            "done": ~mask.any(dim=1),
        }

    def lengths(self, tours: Tensor) -> Tensor:
        """[B] of tours [B, n]."""
        places = self.coords.gather(1, tours[..., None].expand(-1, -1, 2))  # [B, n, 2]
        return (places - places.roll(-1, dims=1)).norm(dim=2).sum(dim=1)


def routing(settings: Settings) -> list[Line]:
    """Whole TSP episodes of random tours, resets not timed: our batch against rl4co's, or a torch re-statement."""
    cases = [(64, 20)] if settings.quick else [(batch, n) for n in SIZES for batch in BATCHES]
    lines = []
    for batch, n in cases:
        generator = np.random.default_rng(0)
        tours = np.stack([1 + generator.permutation(n - 1) for _ in range(batch)])  # [B, n - 1], after node 0
        coords = torch.as_tensor(generator.random((batch, n, 2)), dtype=torch.float32)
        with cores(settings.threads):
            sides = {"ours": _our_episode(batch, n, tours)}
            sides["torch"] = _torch_episode(coords, tours)
            with suppress(PeerMissing):
                sides["rl4co"] = _rl4co_episode(coords, tours)
            times = alternate(sides, settings)
        for name in ("torch", "rl4co"):
            peer = {"torch": "a torch re-statement", "rl4co": "rl4co's TSPEnv"}[name]
            line = Line("routing-stepping", f"TSP{n}, batch {batch}, against {peer}", "step of all")
            line.goal = 10.0 if name == "rl4co" else None
            if name not in times:
                line.skipped = "rl4co is not installed"
            line.ours, line.peer = times["ours"], times.get(name)
            line.note = f"{batch / times['ours'].median:,.0f} steps a second"
            lines.append(line)
    return lines


def _our_episode(batch: int, n: int, tours: np.ndarray) -> Side:
    env = make_vector_env(registry.record("tsp").env_id, batch, num_nodes=n, autoreset_mode="Disabled")
    columns = list(np.ascontiguousarray(tours.T))

    def run(steps: int) -> None:
        assert steps == len(columns)
        for actions in columns:
            env.step(actions)

    return Side(run, lambda: _before(lambda: env.reset(seed=0)), block=n - 1)


def _torch_episode(coords: Tensor, tours: np.ndarray) -> Side:
    env, columns = TorchTSP(coords), list(torch.as_tensor(np.ascontiguousarray(tours.T)))

    def run(steps: int) -> None:
        state = env.reset()
        for actions in columns:
            state = env.step(state, actions)
        env.lengths(torch.cat((state["first"][:, None], torch.as_tensor(tours)), dim=1))

    return Side(run, block=len(columns))


def _rl4co_episode(coords: Tensor, tours: np.ndarray) -> Side:
    try:
        from rl4co.envs import TSPEnv  # type: ignore[import-not-found,unused-ignore]
        from tensordict import TensorDict  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise PeerMissing("rl4co is not installed") from error
    batch, n = coords.shape[:2]
    env = TSPEnv(generator_params={"num_loc": n})
    whole = torch.cat((torch.zeros(batch, 1, dtype=torch.int64), torch.as_tensor(tours)), dim=1)  # [B, n]
    columns = list(whole.T.contiguous())
    begun: list[Any] = []

    def begin() -> None:
        begun[:] = [env.reset(TensorDict({"locs": coords}, batch_size=[batch]))]

    def run(steps: int) -> None:
        state = begun[0]
        for actions in columns[1:]:
            state.set("action", actions)
            state = env.step(state)["next"]
        env.get_reward(state, whole)

    def first() -> None:
        begin()
        begun[0].set("action", columns[0])
        begun[0] = env.step(begun[0])["next"]

    return Side(run, lambda: _before(first), block=n - 1)


@contextmanager
def _before(prepare: Callable[[], object]) -> Iterator[None]:
    prepare()
    yield


# ---- the dual --------------------------------------------------------------------------------------------------------


def dual(settings: Settings) -> list[Line]:
    """The exact breakpoint search against ``scipy.optimize.linprog`` on the primal, over distributions."""
    from scipy.optimize import linprog

    nu_tv = registry.resolve_object("rlkit.agents.drrpo.dual:nu_tv")
    features, samples = DUAL
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(samples), size=features)  # [d, n]
    values, radii = generator.uniform(0, 1, samples), np.full(features, 0.3)
    values[0] = 0.0  # a fail state, to which mass may go
    ones, eye = np.ones(samples), np.eye(samples)
    limits = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, samples)), ones[None]]])

    def solve(n: int) -> None:
        for _ in range(n):
            for mu, rho in zip(weights, radii, strict=True):
                bounds = np.concatenate((mu, -mu, [2 * rho]))
                cost, total = np.concatenate((values, 0 * ones)), np.concatenate((ones, 0 * ones))[None]
                linprog(cost, A_ub=limits, b_ub=bounds, A_eq=total, b_eq=[1.0], bounds=(0, None))

    def search(n: int) -> None:
        for _ in range(n):
            nu_tv(weights, values, radii)

    times: dict[str, Times] = alternate({"ours": Side(search), "peer": Side(solve, block=1)}, settings)
    what = f"{features} duals over {samples} samples, against SciPy's linprog (HiGHS)"
    return [Line("dual-linprog", what, "solve of all", ours=times["ours"], peer=times["peer"])]
