"""Train the policies that generate rlkit's stand-in datasets.

One SAC run per task (Haarnoja et al. 2018, as implemented by Stable-Baselines3) leaves an actor snapshot every
``--snapshot-every`` environment steps.  ``scripts/select_behaviours.py`` then measures the snapshots and picks
D4RL's levels from them: the policy nearest to *medium*, the best one as *expert*, and the snapshots in between
as the mixture of *medium-replay*.

Sixteen environments share one learner and an update is made per ``1 / --utd`` transitions: on a CPU, simulation is
nearly free beside a gradient step, and fresh transitions are worth more than repeated ones.

A killed run continues where its last checkpoint was (``--resume`` is implied by the folder's presence).  The replay
buffer, networks and optimisers are restored; the environments start new episodes.

    OMP_NUM_THREADS=1 python scripts/train_behaviours.py hopper --steps 1500000
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

TASKS = {
    "hopper": "Hopper-v5",
    "halfcheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "ant": "Ant-v5",
}
OPTIMISERS = {"actor": "actor.optimizer", "critic": "critic.optimizer", "ent_coef": "ent_coef_optimizer"}


def _optimiser(model: SAC, path: str) -> torch.optim.Optimizer:
    target: Any = model
    for name in path.split("."):
        target = getattr(target, name)
    return target


def save_checkpoint(model: SAC, folder: Path) -> None:
    """Write everything but the environments' state, each file through a temporary name."""
    tensors = {f"policy.{k}": v.contiguous() for k, v in model.policy.state_dict().items()}
    tensors["log_ent_coef"] = model.log_ent_coef.detach()
    for name, path in OPTIMISERS.items():
        for index, state in _optimiser(model, path).state_dict()["state"].items():
            tensors |= {f"optim.{name}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    buffer = model.replay_buffer
    assert buffer is not None
    size = buffer.buffer_size if buffer.full else buffer.pos
    fields = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    arrays = {k: np.ascontiguousarray(getattr(buffer, k)[:size]) for k in fields}
    counters = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "pos": buffer.pos,
        "full": buffer.full,
    }
    save_file(arrays, folder / "replay.tmp")
    save_tensors({k: v.clone() for k, v in tensors.items()}, folder / "learner.tmp")
    (folder / "counters.tmp").write_text(json.dumps(counters))
    for stem, suffix in (("replay", "safetensors"), ("learner", "safetensors"), ("counters", "json")):
        (folder / f"{stem}.tmp").replace(folder / f"{stem}.{suffix}")


def load_checkpoint(model: SAC, folder: Path) -> None:
    tensors = load_tensors(folder / "learner.safetensors")
    counters = json.loads((folder / "counters.json").read_text())
    model.policy.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("policy.")})
    with torch.no_grad():
        model.log_ent_coef.copy_(tensors["log_ent_coef"])
    for name, path in OPTIMISERS.items():
        optimiser = _optimiser(model, path)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optim.{name}."):
                _, _, index, field = key.split(".")
                state.setdefault(int(index), {})[field] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    buffer = model.replay_buffer
    assert buffer is not None
    for key, value in load_file(folder / "replay.safetensors").items():
        getattr(buffer, key)[: len(value)] = value
    buffer.pos, buffer.full = counters["pos"], counters["full"]
    model.num_timesteps, model._n_updates = counters["num_timesteps"], counters["n_updates"]


class Snapshots(BaseCallback):
    """Every ``every`` steps: measure the deterministic policy, save its actor, append a line to ``progress.jsonl``."""

    def __init__(self, folder: Path, eval_env: VecEnv, every: int, checkpoint_every: int):
        super().__init__()
        self.folder, self.eval_env, self.every, self.checkpoint_every = folder, eval_env, every, checkpoint_every
        self.started = time.time()
        self.first_step: int | None = None

    def _on_step(self) -> bool:
        model = self.model
        assert isinstance(model, SAC)
        step = model.num_timesteps
        self.first_step = step if self.first_step is None else self.first_step
        if step // self.every > (step - self.training_env.num_envs) // self.every:
            returns, _ = evaluate_policy(model, self.eval_env, n_eval_episodes=10, return_episode_rewards=True)
            actor = {k: v.contiguous() for k, v in model.actor.state_dict().items()}
            save_tensors(actor, self.folder / f"actor_{step // self.every * self.every:08d}.safetensors")
            line = {
                "step": step,
                "updates": model._n_updates,
                "learning_rate": model.learning_rate,
                "return": round(float(np.mean(returns)), 1),
                "sd": round(float(np.std(returns)), 1),
                "steps_per_s": round((step - self.first_step) / (time.time() - self.started), 1),
            }
            with (self.folder / "progress.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
        if step // self.checkpoint_every > (step - self.training_env.num_envs) // self.checkpoint_every:
            save_checkpoint(model, self.folder)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--steps", type=int, default=1_500_000, help="environment steps")
    parser.add_argument("--utd", type=float, default=0.25, help="updates per transition")
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="may be lowered when a run is continued")
    parser.add_argument("--snapshot-every", type=int, default=20_000)
    parser.add_argument("--checkpoint-every", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/behaviours"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    # On AVX-512 machines this selects oneDNN's float32 kernels, twice as fast as the default on AMD.
    torch.set_float32_matmul_precision("medium")
    folder = args.out / args.task
    folder.mkdir(parents=True, exist_ok=True)
    env = make_vec_env(lambda: gym.make(TASKS[args.task]), n_envs=args.envs, seed=args.seed)
    model = SAC(
        "MlpPolicy",
        env,
        seed=args.seed,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        train_freq=1,
        gradient_steps=max(1, round(args.utd * args.envs)),
        learning_starts=10_000,
        buffer_size=1_000_000,
        policy_kwargs={"optimizer_kwargs": {"fused": True}},
    )
    if (folder / "counters.json").exists():
        load_checkpoint(model, folder)
        print(f"continuing at step {model.num_timesteps}", flush=True)
    eval_env = make_vec_env(lambda: gym.make(TASKS[args.task]), n_envs=5, seed=args.seed + 10_000)
    callback = Snapshots(folder, eval_env, args.snapshot_every, args.checkpoint_every)
    model.learn(args.steps - model.num_timesteps, callback=callback, reset_num_timesteps=False)
    save_checkpoint(model, folder)


if __name__ == "__main__":
    main()
