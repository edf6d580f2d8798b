"""Rows about learning by acting: our DDPG and SAC against SB3's, an update alone and a whole run, on the same task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlkit import registry
from rlkit.algorithms.floats import fast_float32
from rlkit.bench.measure import Line, Settings, Side, alternate, cores

ENV_ID = "Hopper-v5"
WARM = 2_000  # environment steps before anything is timed
# Ours by its name and options that make it the plain algorithm; SB3's by its name and the same sizes and rates.
PAIRS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "ddpg": (
        "beer",
        {"regulariser": "none", "rank_interval": 0},
        "DDPG",
        {"learning_rate": 3e-4, "policy_kwargs": {"net_arch": [256, 256]}},
    ),
    "sac": (
        "vagram",
        {"model_loss": "none", "updates_per_step": 1, "target_every": 1},
        "SAC",
        {"policy_kwargs": {"net_arch": [256, 256]}},
    ),
}


def sb3(settings: Settings, name: str) -> list[Line]:
    """``name`` is a key of :data:`PAIRS`; one environment, one update a step, batches of the settings' size."""
    import stable_baselines3
    from stable_baselines3.common.noise import NormalActionNoise

    agent, options, algorithm, arguments = PAIRS[name]
    size = settings.batch_size
    with cores(settings.threads):
        shared = {"seed": 0, "device": "cpu", "batch_size": size, "buffer_size": 100_000, "learning_starts": 1000}
        ours = registry.agent_class(agent)("MlpPolicy", ENV_ID, **shared, **options)
        if algorithm == "DDPG":
            import numpy as np

            arguments = {**arguments, "action_noise": NormalActionNoise(np.zeros(3), np.full(3, 0.1))}
        peer = getattr(stable_baselines3, algorithm)("MlpPolicy", ENV_ID, train_freq=1, **shared, **arguments)
        for learner in (ours, peer):
            learner.learn(WARM, log_interval=None)
        updates = {"ours": Side(_updates(ours, size), fast_float32), "peer": Side(_updates(peer, size))}
        runs = {"ours": Side(_steps(ours)), "peer": Side(_steps(peer))}
        by_update, by_step = alternate(updates, settings), alternate(runs, settings)
    note = f"{ENV_ID}, batch {size}, networks of 256 twice"
    return [
        Line(f"{name}-sb3", f"{algorithm} update, against SB3's", "update", ours=t["ours"], peer=t["peer"], note=note)
        if what == "update"
        else Line(f"{name}-sb3", f"{algorithm} run, against SB3's", "step", ours=t["ours"], peer=t["peer"], note=note)
        for what, t in (("update", by_update), ("step", by_step))
    ]


def _updates(learner: Any, size: int) -> Callable[[int], None]:
    return lambda n: learner.train(gradient_steps=n, batch_size=size)


def _steps(learner: Any) -> Callable[[int], None]:
    return lambda n: learner.learn(n, log_interval=None, reset_num_timesteps=False)
