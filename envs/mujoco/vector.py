"""Batched MuJoCo locomotion that equals Gymnasium's ``SyncVectorEnv`` in every bit, several times as fast."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from rlkit.envs import rows
from rlkit.envs.mujoco.batch import RESET, SKIP, STEP, Simulations
from rlkit.envs.records.locomotion import MUJOCO_TASKS
from rlkit.errors import UserError, nearest

RESET_KEYS = {"x_position", "y_position", "z_distance_from_origin", "distance_from_origin"}


class MujocoVectorEnv(VectorEnv[NDArray[np.float64], NDArray[Any], NDArray[Any]]):
    """``num_envs`` copies of a MuJoCo task, equal to ``gymnasium.make_vec(env_id, num_envs, "sync")`` in every bit.

    Observations are (num_envs, n) float64, actions (num_envs, m) of any float type and, as in Gymnasium, not clipped;
    rewards (num_envs,) float64, terminations and truncations (num_envs,) bool.  ``infos`` holds Gymnasium's keys, each
    with its mask ``_key``: positions in metres, velocities in metres per second, and the parts of the reward.

    Args:
        env_id: "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5" or "Ant-v5", also with the prefix "rlkit/".
        num_envs: number of environments.
        num_threads: threads that step them, by default one per available core.  The results do not depend on it.
        autoreset_mode: when a finished environment is reset; Gymnasium's default is ``NEXT_STEP``.
        max_episode_steps: steps until truncation, by default the task's 1000; -1 for no limit.
        env_kwargs: arguments of Gymnasium's single environment, such as ``reset_noise_scale`` or ``frame_skip``.

    Raises:
        UserError: an id or argument that is not known, or out of range.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        *,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **env_kwargs: Any,
    ) -> None:
        task = env_id.removeprefix("rlkit/")
        if task not in MUJOCO_TASKS:
            raise UserError(f"no batched MuJoCo task '{env_id}'{nearest(task, MUJOCO_TASKS)}")
        if num_threads is None:
            num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        limit = (gym.spec(task).max_episode_steps or -1) if max_episode_steps is None else max_episode_steps
        if num_envs < 1 or num_threads < 1 or limit == 0 or limit < -1:
            raise UserError(
                f"{env_id}: expected num_envs and num_threads >= 1 and max_episode_steps >= 1 (or -1 for no limit), "
                f"got {num_envs}, {num_threads} and {limit}"
            )
        if env_kwargs.pop("render_mode", None) is not None:
            raise UserError(f"{env_id}: a batch does not render; use gymnasium.make for videos")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
            env: Any = gym.make(task, disable_env_checker=True, **env_kwargs).unwrapped
        except (TypeError, ValueError, OSError) as error:
            raise UserError(f"{env_id}: {error}") from error

        self.num_envs, self.num_threads, self.max_episode_steps = num_envs, min(num_threads, num_envs), limit
        self.metadata = {**env.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self.task, self.model = task, env.model
        self._read_task(env)
        self._allocate()
        env.close()

    def _read_task(self, env: Any) -> None:
        """Take the parameters of the reward, of health and of resets from Gymnasium's environment ``env``."""
        nq, nv = self.model.nq, self.model.nv
        self._is_ant, self._dt, self._frame_skip = self.task == "Ant-v5", env.dt, env.frame_skip
        self._forward_weight, self._ctrl_weight = env._forward_reward_weight, env._ctrl_cost_weight
        self._noise, self._init_qpos, self._init_qvel = env._reset_noise_scale, env.init_qpos, env.init_qvel
        self._normal_velocity = self.task in ("Ant-v5", "HalfCheetah-v5")
        self._clips_velocity = not self._normal_velocity
        self._skipped = env.observation_structure["skipped_qpos"]
        self._body = self.model.body(env._main_body).id if self._is_ant else None
        self._contact_weight, self._force_range, self._observes_forces = 0.0, (0.0, 0.0), False
        if self._is_ant:
            self._contact_weight, self._force_range = env._contact_cost_weight, env._contact_force_range
            self._observes_forces = env._include_cfrc_ext_in_observation

        # Health is a box in (qpos, qvel): open for Hopper-v5 and Walker2d-v5, closed for Ant-v5.  Coordinates without
        # a bound are left out: they may be NaN in a healthy Walker2d-v5.
        self._healthy_reward = None if self.task == "HalfCheetah-v5" else env._healthy_reward
        self._terminates = self._healthy_reward is not None and env._terminate_when_unhealthy
        self._inside: Callable[..., NDArray[np.bool_]] = operator.le if self._is_ant else operator.lt
        low, high = np.full(nq + nv, -np.inf), np.full(nq + nv, np.inf)
        self._bounded = slice(1, 3)
        if self.task == "Hopper-v5":
            self._bounded = slice(1, nq + nv)
            low[2:], high[2:] = env._healthy_state_range
        elif self._is_ant:
            self._bounded = slice(0, nq + nv)
            low[:], high[:] = np.finfo(np.float64).min, np.finfo(np.float64).max
        if self._healthy_reward is not None:
            ranges = {2 if self._is_ant else 1: env._healthy_z_range}
            if not self._is_ant:
                ranges[2] = env._healthy_angle_range
            for coordinate, (least, most) in ranges.items():
                low[coordinate] = max(low[coordinate], least)
                high[coordinate] = min(high[coordinate], most)
        self._low, self._high = low[self._bounded], high[self._bounded]

    def _allocate(self) -> None:
        n = self.num_envs
        self._batch = Simulations(self.model, n, self.num_threads, self._frame_skip, self._body)
        self._clipped_forces = np.zeros_like(self._batch.forces)
        self._observations: Any = create_empty_array(self.single_observation_space, n)
        self._elapsed, self._autoreset = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        self._resting = np.zeros(n, np.bool_)
        self._generators: list[np.random.Generator | None] = [None] * n
        self._seeds: list[int | None] = [None] * n
        self._was_reset = False

    # -- Gymnasium's interface -----------------------------------------------------------------------------------------

    def reset(
        self, *, seed: rows.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Begin new episodes in all environments, or in those of the bool array ``options["reset_mask"]``.

        A seed makes the generators of environments 0, 1, ... anew from ``seed``, ``seed + 1``, ..., or from one seed
        each; without, they go on.  Raises UserError for a list or mask that does not fit ``num_envs``.
        """
        mask, seeds = rows.which(self.num_envs, seed, options, began=self._was_reset)
        for i, made in rows.reseed(self._generators, mask, seeds).items():
            self._seeds[i] = made
        self._was_reset = True
        self._autoreset[mask], self._resting[mask] = False, False
        self._batch.job.fill(SKIP)
        self._draw(mask)
        self._run()
        return self._observations.copy(), _masked(self._reset_infos(), mask)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every environment, or reset it where ``autoreset_mode`` says so; see the class for shapes.

        Raises UserError for actions of another shape, ``gymnasium.error.ResetNeeded`` before the first reset and, in
        the mode ``DISABLED``, where an episode has ended.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise UserError(f"expected actions of shape {self.action_space.shape}, got {actions.shape}")
        resets = self._autoreset
        some_reset = bool(resets.any())
        if not self._was_reset or (some_reset and self.autoreset_mode is AutoresetMode.DISABLED):
            raise ResetNeeded("call reset() first: an episode has not begun, or has ended and autoreset is disabled")

        before = self._batch.position.copy() if self._is_ant else self._batch.qpos[:, 0].copy()
        self._elapsed += 1
        self._batch.ctrl[:] = actions
        self._batch.job.fill(STEP)
        if some_reset:
            self._draw(resets)
        self._batch.job[self._resting] = SKIP
        self._run()
        rewards, terminations, infos = self._outcome(actions, before)
        truncations = self._elapsed >= self.max_episode_steps if self.max_episode_steps > 0 else np.zeros_like(resets)
        if some_reset:
            rewards[resets], terminations[resets], truncations[resets] = 0.0, False, False
        ended = (terminations | truncations) & ~self._resting
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            resets, some_reset, ended = ended, bool(ended.any()), np.zeros_like(ended)
            if some_reset:
                final = self._reset_now(infos, resets)
        self._autoreset = ended
        return self._observations.copy(), rewards, terminations, truncations, self._batch_infos(infos, resets) | final

    def rest(self, mask: NDArray[np.bool_]) -> None:
        """Leave the environments of the bool array ``mask`` as they are, whatever the action, until they are reset.

        It saves their simulation where nobody looks at them any more; what :meth:`step` says of them has no meaning.
        """
        self._resting = mask.copy()
        self._autoreset = self._autoreset & ~mask

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator | None, ...]:  # type: ignore[override]
        """The generators of the environments, None before the first reset."""
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seeds of the generators; -1 where not known, None before the first reset."""
        return tuple(self._seeds)

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads."""
        self._batch.close()

    # -- Saving --------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the future depends on; an environment given them goes on bit for bit.

        ``simulation`` (num_envs, n) float64: time, positions, velocities, activations, warm start, controls;
        ``position`` (num_envs, 2 or 0) float64: the last body positions; ``forces`` (num_envs, 6 bodies or 0)
        float64: contact forces; ``elapsed`` (num_envs,) int64: steps since the reset; ``autoreset`` (num_envs,) bool;
        ``generators`` (num_envs, 6) uint64: the PCG64 generators.  Raises ``gymnasium.error.ResetNeeded`` before the
        first reset.
        """
        if not self._was_reset:
            raise ResetNeeded("there is no state before the first reset")
        generators = np.array([_pack(generator) for generator in self._generators if generator is not None], np.uint64)
        return {**{key: value.copy() for key, value in self._saved().items()}, "generators": generators}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from what :meth:`get_state` of an equal environment returned; UserError where it does not fit."""
        expected = self._saved() | {"generators": np.empty((self.num_envs, 6), np.uint64)}
        for key, value in expected.items():
            given = state.get(key)
            if not isinstance(given, np.ndarray) or given.shape != value.shape or given.dtype != value.dtype:
                got = f"{given.shape} {given.dtype}" if isinstance(given, np.ndarray) else "no array"
                raise UserError(f"state '{key}' of {self.task}: expected {value.shape} {value.dtype}, got {got}")
        for key, value in self._saved().items():
            value[...] = state[key]
        self._generators = [_unpack(row) for row in state["generators"]]
        self._seeds = [-1] * self.num_envs
        self._was_reset = True
        self._resting[:] = False
        self._observe()

    def _saved(self) -> dict[str, NDArray[Any]]:
        return {
            "simulation": self._batch.state,
            "position": self._batch.position,
            "forces": self._batch.forces,
            "elapsed": self._elapsed,
            "autoreset": self._autoreset,
        }

    # -- One batch -----------------------------------------------------------------------------------------------------

    def _draw(self, mask: NDArray[np.bool_]) -> None:
        """Order a reset where ``mask`` and draw the states it begins from, as Gymnasium's ``reset_model`` does."""
        scale = self._noise
        self._batch.state[mask] = self._batch.initial
        self._elapsed[mask] = 0
        self._batch.job[mask] = RESET
        for i in np.flatnonzero(mask):
            generator = self._generators[i]
            assert generator is not None
            self._batch.qpos[i] = self._init_qpos + generator.uniform(low=-scale, high=scale, size=self.model.nq)
            if self._normal_velocity:
                self._batch.qvel[i] = self._init_qvel + scale * generator.standard_normal(self.model.nv)
            else:
                self._batch.qvel[i] = self._init_qvel + generator.uniform(low=-scale, high=scale, size=self.model.nv)

    def _run(self) -> None:
        self._batch.run()
        self._observe()

    def _observe(self) -> None:
        positions = self.model.nq - self._skipped
        velocities = positions + self.model.nv
        self._observations[:, :positions] = self._batch.qpos[:, self._skipped :]
        self._observations[:, positions:velocities] = self._batch.qvel
        if self._clips_velocity:
            clipped = self._observations[:, positions:velocities]
            np.clip(clipped, -10, 10, out=clipped)
        if self._is_ant:
            np.clip(self._batch.forces, *self._force_range, out=self._clipped_forces)
            if self._observes_forces:
                self._observations[:, velocities:] = self._clipped_forces[:, 6:]

    def _outcome(
        self, actions: NDArray[Any], before: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], dict[str, NDArray[Any]]]:
        """Rewards, terminations and infos; in Gymnasium's types and order of operations, for the sake of the bits."""
        infos = self._reset_infos()
        if self._is_ant:
            velocity = (self._batch.position - before) / self._dt
            infos["x_velocity"], infos["y_velocity"] = velocity[:, 0].copy(), velocity[:, 1].copy()
        else:
            infos["x_velocity"] = (self._batch.qpos[:, 0] - before) / self._dt
        infos["reward_forward"] = rewards = self._forward_weight * infos["x_velocity"]
        costs = self._ctrl_weight * np.square(actions).sum(axis=1)  # of the actions' type, as are Gymnasium's
        infos["reward_ctrl"] = -costs
        if self._is_ant:
            contact_costs = self._contact_weight * np.square(self._clipped_forces).sum(axis=1)
            infos["reward_contact"] = -contact_costs
            costs = costs + contact_costs
        if self._healthy_reward is None:
            return rewards - costs, np.zeros(self.num_envs, np.bool_), infos
        state = self._batch.physics[:, self._bounded]
        inside = self._inside(self._low, state) & self._inside(state, self._high)
        healthy: NDArray[np.bool_] = np.all(inside, axis=1)
        infos["reward_survive"] = healthy * self._healthy_reward
        terminations = ~healthy if self._terminates else np.zeros(self.num_envs, np.bool_)
        return rewards + infos["reward_survive"] - costs, terminations, infos

    def _reset_infos(self) -> dict[str, NDArray[np.float64]]:
        """What both a step and a reset report."""
        infos = {"x_position": self._batch.qpos[:, 0].copy()}
        if self._is_ant:
            infos["y_position"] = self._batch.qpos[:, 1].copy()
            # vecdot calls the dot product of the norm that Gymnasium takes; a sum of squares would round differently.
            infos["distance_from_origin"] = np.sqrt(np.vecdot(self._batch.qpos[:, :2], self._batch.qpos[:, :2]))
        elif self._healthy_reward is not None:
            infos["z_distance_from_origin"] = self._batch.qpos[:, 1] - self._init_qpos[1]
        return infos

    def _reset_now(self, infos: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Reset where ``mask``, renew ``infos`` and return the entries that hold the episodes' ends."""
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(mask):
            observations[i] = self._observations[i].copy()
        ends = _masked({key: value.copy() for key, value in infos.items()}, mask)
        self._batch.job.fill(SKIP)
        self._draw(mask)
        self._run()
        infos.update(self._reset_infos())
        return {"final_obs": observations, "_final_obs": mask.copy(), "final_info": ends, "_final_info": mask.copy()}

    def _batch_infos(self, infos: dict[str, NDArray[Any]], resets: NDArray[np.bool_]) -> dict[str, Any]:
        """Gymnasium's masks: an environment that was reset reports less, and what none reports is absent."""
        everywhere, stepped = np.ones(self.num_envs, np.bool_), ~resets
        if stepped.all():
            return _masked(infos, everywhere)
        common = {key: infos.pop(key) for key in RESET_KEYS & infos.keys()}
        return _masked(common, everywhere) | (_masked(infos, stepped) if stepped.any() else {})


def _masked(infos: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """``infos`` with a mask of their own beside each, and zeros where it is False."""
    batch: dict[str, Any] = {}
    everywhere = bool(mask.all())
    for key, value in infos.items():
        if not everywhere:
            value[~mask] = 0
        batch[key], batch[f"_{key}"] = value, mask.copy()
    return batch


def _pack(generator: np.random.Generator) -> list[int]:
    state: Any = generator.bit_generator.state
    numbers = (state["state"]["state"], state["state"]["inc"])  # 128 bits each
    return [*(half for x in numbers for half in (x >> 64, x & (2**64 - 1))), state["has_uint32"], state["uinteger"]]


def _unpack(row: NDArray[np.uint64]) -> np.random.Generator:
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(x) for x in row)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)


def _creator(task: str) -> Callable[..., MujocoVectorEnv]:
    return functools.partial(MujocoVectorEnv, task)


# What ``gymnasium.make_vec`` calls for the ids ``rlkit/...``.
hopper, half_cheetah, walker2d, ant = (_creator(task) for task in MUJOCO_TASKS)
