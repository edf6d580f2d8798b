"""DeepMind Control tasks as Gymnasium environments, ``rlkit/dmc-<domain>-<task>-v0``, straight over ``dm_control``.

Needs the ``dmc`` extra: ``pip install 'rlkit-papers[dmc]'``.  Tassa et al. 2018, "DeepMind Control Suite".
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlkit.envs.records.dmc import TASKS
from rlkit.errors import UserError, install_extra, nearest, one_line

UNLIMITED = 1e10  # what dm_control says of an actuator without bounds
WIDE, STEPS = 10.0, 1000  # bounds and time limit of tasks that set none


def names() -> list[str]:
    return [f"{domain}-{task}" for domain, tasks in TASKS.items() for task in tasks]


class DMControl(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One task of the suite.

    Observations are float32 ``[n]``: dm_control's arrays in dm_control's order, flattened.  Actions are float32 ``[m]``
    in [-1, 1], stretched to the task's own bounds.  Rewards are in [0, 1].  An episode is truncated after the task's
    time limit (1000 steps) and terminates only where dm_control gives a discount of 0.  ``reset(seed=)`` reseeds the
    task's generator.

    dm_control's LQR has neither bounds nor a time limit: here actions are stretched to [-10, 10], twice what its
    optimal controller asks for, and an episode has 1000 steps.  Its rewards are 1 minus a cost, often negative.

    Args:
        domain: such as ``"walker"``.
        task: such as ``"run"``.

    Raises:
        UserError: a task the suite does not have, or without dm_control.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  # Gymnasium declares it so

    def __init__(self, domain: str, task: str, render_mode: str | None = None, size: int = 240):
        if task not in TASKS.get(domain, ()):
            raise UserError(f"no DeepMind Control task '{domain}-{task}'{nearest(f'{domain}-{task}', names())}")
        try:
            from dm_control import suite
        except ImportError as error:
            raise UserError(
                f"'{domain}-{task}' needs dm_control ({error}); install it with: {install_extra('dmc', before=(3, 13))}"
            ) from error
        self.render_mode, self.size = render_mode, size
        self.env: Any = suite.load(domain, task, task_kwargs={"random": 0})
        spec = self.env.action_spec()
        bounds = np.stack([spec.minimum, spec.maximum]).astype(np.float64)
        self.low, self.high = np.where(np.abs(bounds) < UNLIMITED, bounds, np.array([[-WIDE], [WIDE]]))
        self.limit = self.env._step_limit if np.isfinite(self.env._step_limit) else STEPS
        self.action_space = gym.spaces.Box(-1.0, 1.0, spec.shape, np.float32)
        n = sum(int(np.prod(part.shape)) for part in self.env.observation_spec().values())
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (n,), np.float32)
        self.pristine = self._model_arrays()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.env.task._random = np.random.RandomState(seed)  # the generator dm_control draws from
        try:
            return _flat(self.env.reset().observation), {}
        except Exception as error:
            if type(error).__name__ != "FatalError":  # MuJoCo's own, of a terrain that it cannot draw up
                raise
            raise UserError(
                f"this DeepMind Control task needs OpenGL for its terrain ({one_line(error, 80)}); expected a "
                "display, or MUJOCO_GL=egl or osmesa with its library"
            ) from None

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        unit = (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2  # [m] in [0, 1]
        found = self.env.step(self.low + unit * (self.high - self.low))
        terminated = found.last() and found.discount == 0
        truncated = (found.last() or self.env._step_count >= self.limit) and not terminated
        return _flat(found.observation), float(found.reward), bool(terminated), bool(truncated), {}

    def render(self) -> NDArray[np.uint8]:
        return self.env.physics.render(self.size, self.size, camera_id=0)

    def close(self) -> None:
        self.env.close()

    # ---- state, for exact resume -----------------------------------------------------------------------------------

    def _model_arrays(self) -> dict[str, np.ndarray]:
        """Every array of the model: a task may move a target by moving a site or a geom of it."""
        model = self.env.physics.model.ptr
        found = {name: getattr(model, name, None) for name in sorted(dir(model)) if not name.startswith("_")}
        return {name: array.copy() for name, array in found.items() if isinstance(array, np.ndarray)}

    def get_state(self) -> dict[str, np.ndarray]:
        """Physics (warm start included), what the task changed in the model, its generator and the step count."""
        import mujoco

        physics, kind = self.env.physics, mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(physics.model.ptr, kind))
        mujoco.mj_getState(physics.model.ptr, physics.data.ptr, state, kind)
        _, keys, position, has_gauss, gauss = self.env.task.random.get_state()
        changed = {
            f"model.{name}": array
            for name, array in self._model_arrays().items()
            if not np.array_equal(array, self.pristine[name])
        }
        return {
            "integration": state,
            "random": keys,
            "random_place": np.array([position, has_gauss, gauss]),
            "steps": np.array([self.env._step_count, int(self.env._reset_next_step)]),
            **changed,
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Undo :meth:`get_state`."""
        import mujoco

        physics, kind = self.env.physics, mujoco.mjtState.mjSTATE_INTEGRATION
        model, data = physics.model.ptr, physics.data.ptr
        for name, array in self.pristine.items():
            if getattr(model, name).flags.writeable:
                getattr(model, name)[...] = state.get(f"model.{name}", array)
        integration = np.ascontiguousarray(state["integration"])
        mujoco.mj_setState(model, data, integration, kind)
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(model, data, integration, kind)  # again: mj_forward moved the warm start
        position, has_gauss, gauss = state["random_place"]
        generator = np.random.RandomState()
        generator.set_state(("MT19937", state["random"], int(position), int(has_gauss), float(gauss)))
        self.env.task._random = generator
        self.env._step_count, self.env._reset_next_step = int(state["steps"][0]), bool(state["steps"][1])


def _flat(parts: dict[str, Any]) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(part) for part in parts.values()]).astype(np.float32)
