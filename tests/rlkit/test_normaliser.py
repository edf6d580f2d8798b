"""SB3's VecNormalize and its siblings: agents learn from what they act on, resume exactly, or say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from rlkit.agents import BEER, ORPO, VaGraM
from rlkit.agents.beer import BEERConfig
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.vecenv import StatefulVecEnv
from rlkit.errors import ArtefactError, UserError

SMALL = {"hidden_sizes": (16,), "batch_size": 16, "buffer_size": 500, "learning_starts": 20, "device": "cpu"}
MODEL_FREE = {**SMALL, "model_loss": "none", "updates_per_step": 1}
DDPG_LIKE = {**SMALL, "regulariser": "none", "rank_interval": 0}


class Track(gym.Env):
    """Follow a number that is seen in units of a thousand: observation 5000 + 1000 x, reward -100 (a - x)²."""

    observation_space: Any = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    t, x, ill = 0, 0.0, -1

    def _see(self) -> Any:
        self.x = float(self.np_random.uniform(-1, 1))
        seen = np.nan if self.t == self.ill else 5000 + 1000 * self.x
        return np.array([seen], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        reward = -100 * float((action[0] - self.x) ** 2)
        self.t += 1
        return self._see(), reward, False, self.t >= 7, {}

    def get_state(self) -> dict[str, np.ndarray]:
        return {"t": np.array(self.t), "x": np.array(self.x)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.t, self.x = int(state["t"]), float(state["x"])


class Keyed(Track):
    observation_space = gym.spaces.Dict({"seen": Track.observation_space})

    def _see(self) -> Any:
        return {"seen": super()._see()}


class Ill(Track):
    ill = 5


def world(n: int = 1, **settings: Any) -> VecNormalize:
    return VecNormalize(StatefulVecEnv([Track] * n), gamma=0.5, **settings)


class PlainDDPG(OnlineAlgorithm, DDPG):
    name = "plain-ddpg"
    Config: ClassVar[type[AgentConfig]] = BEERConfig

    def arguments(self, config: Any) -> dict[str, Any]:
        found = BEER.arguments(self, config)  # type: ignore[arg-type]
        found["policy_kwargs"] |= {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"fused": True}}
        del found["policy_kwargs"]["n_critics"]
        return {k: v for k, v in found.items() if k not in ("policy_delay", "target_policy_noise", "target_noise_clip")}

    def _setup_model(self) -> None:
        super()._setup_model()
        self.action_noise = NormalActionNoise(np.zeros(1), np.full(1, self.config.exploration_noise))
        self.replay_buffer.generator.manual_seed(int(self.seed or 0) + 2)


@pytest.mark.parametrize("settings", [{}, {"norm_reward": False}, {"norm_obs": False}])
def test_under_a_normaliser_it_is_sb3s_ddpg_bit_for_bit(settings: dict[str, Any]) -> None:
    ours = BEER("MlpPolicy", world(**settings), seed=1, **DDPG_LIKE).learn(120)
    theirs = PlainDDPG("MlpPolicy", world(**settings), seed=1, **DDPG_LIKE).learn(120)
    left, right = list(ours.policy.parameters()), list(theirs.policy.parameters())
    assert len(left) == len(right) > 0 and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    raw = BEER("MlpPolicy", StatefulVecEnv([Track]), seed=1, **DDPG_LIKE).learn(120)
    assert not all(torch.equal(a, b) for a, b in zip(left, raw.policy.parameters(), strict=True))


@pytest.mark.parametrize("make", [BEER, VaGraM])
def test_what_is_learnt_from_is_what_is_acted_on(make: Any) -> None:
    agent = make("MlpPolicy", world(), **({**SMALL, "rank_interval": 30} if make is BEER else MODEL_FREE)).learn(60)
    drawn = agent.replay_buffer.batch(64)
    assert drawn.observations.min() > 3000  # kept as it came
    seen = agent.seen(drawn)
    assert seen.observations.abs().max() < 3 and seen.next_observations.abs().max() < 3
    assert seen.rewards.abs().max() <= 10 < drawn.rewards.abs().max()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("make", [BEER, VaGraM])
def test_statistics_are_in_the_checkpoint_and_resuming_is_exact(make: Any, n: int, tmp_path: Path) -> None:
    arguments = {"seed": 2, **(DDPG_LIKE if make is BEER else MODEL_FREE)}
    whole = make("MlpPolicy", world(n), **arguments).learn(90, log_interval=None)
    part = make("MlpPolicy", world(n), **arguments).learn(60, log_interval=None)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = make("MlpPolicy", world(n), **arguments)
    fresh.restore(tmp_path / "c.rlk")
    for name in ("mean", "var", "count"):
        assert np.array_equal(getattr(fresh.env.obs_rms, name), getattr(part.env.obs_rms, name))
    fresh.learn(30, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    assert left.keys() == right.keys() and [k for k in left if not torch.equal(left[k], right[k])] == []


def test_other_statistics_than_the_checkpoints_are_refused(tmp_path: Path) -> None:
    agent = BEER("MlpPolicy", world(), **DDPG_LIKE).learn(30)
    agent.save_checkpoint(tmp_path / "c.rlk")
    plain = BEER("MlpPolicy", StatefulVecEnv([Track]), **DDPG_LIKE).learn(30)
    plain.save_checkpoint(tmp_path / "plain.rlk")
    for file, env, sentence in (
        ("c", StatefulVecEnv([Track]), "a VecNormalize was around the environment, here is none"),
        ("plain", world(), "no VecNormalize was around the environment, here is one"),
        ("c", VecNormalize(StatefulVecEnv([Track]), gamma=0.9), "VecNormalize had gamma=0.5, here it has 0.9"),
        ("c", world(norm_obs=False), "VecNormalize had norm_obs=True, here it has False"),
        ("c", world(clip_obs=3.0), "VecNormalize had clip_obs=10.0, here it has 3.0"),
    ):
        with pytest.raises(ArtefactError, match=sentence) as caught:
            BEER("MlpPolicy", env, **DDPG_LIKE).restore(tmp_path / f"{file}.rlk")
        assert "\n" not in str(caught.value)


def test_an_artefact_predicts_as_sb3s_and_is_not_evaluated_without_its_statistics(tmp_path: Path) -> None:
    agent = BEER("MlpPolicy", world(), **DDPG_LIKE).learn(60)
    agent.save(tmp_path / "a.rlk")
    loaded = Persistent.load(tmp_path / "a.rlk", device="cpu")
    seen = agent.env.normalize_obs(np.array([[4500.0], [5500.0]], np.float32))
    assert np.array_equal(loaded.predict(seen)[0], agent.predict(seen)[0])
    loaded.save(tmp_path / "again.rlk")
    for one in (agent, loaded, Persistent.load(tmp_path / "again.rlk", device="cpu")):
        with pytest.raises(UserError, match="VecNormalize has normalised; expected SB3's evaluate_policy"):
            one.evaluator(2, 0)
    BEER("MlpPolicy", Track(), **DDPG_LIKE).evaluator(2, 0)


def test_where_it_cannot_be_right_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"VecNormalize moves as it goes; .* without it, or agent\.model_loss=none"):
        VaGraM("MlpPolicy", world(), termination="never", **SMALL)
    with pytest.raises(UserError, match=r"orpo needs observations of one scale, .* without it$"):
        ORPO("MlpPolicy", world(), ref_env=world(), device="cpu")


def wrapped(kind: str) -> VecEnv:
    return {
        "VecMonitor outside": lambda: VecMonitor(world()),
        "VecMonitor inside": lambda: VecNormalize(VecMonitor(DummyVecEnv([Track]))),
        "VecFrameStack": lambda: VecFrameStack(DummyVecEnv([Track]), 3),
        "VecExtractDictObs": lambda: VecExtractDictObs(DummyVecEnv([Keyed]), "seen"),
        "VecCheckNan": lambda: VecCheckNan(DummyVecEnv([Track])),
        "twice": lambda: VecNormalize(VecNormalize(DummyVecEnv([Track]))),
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["VecMonitor outside", "VecMonitor inside", "VecFrameStack", "VecExtractDictObs", "VecCheckNan", "twice"]
)
def test_sb3s_other_wrappers_work_and_what_cannot_be_resumed_exactly_says_so(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = BEER("MlpPolicy", wrapped(kind), **DDPG_LIKE).learn(40)
    assert agent._n_updates > 0 and all(t.isfinite().all() for t in agent.model_tensors().values())
    agent.save_checkpoint(tmp_path / "c.rlk")
    fresh = BEER("MlpPolicy", wrapped(kind), **DDPG_LIKE)
    fresh.restore(tmp_path / "c.rlk")
    assert "starts a new episode and is not exact" in capsys.readouterr().out
    fresh.learn(10, reset_num_timesteps=False)
    assert fresh.num_timesteps == 50


def test_dict_observations_are_refused_in_a_sentence() -> None:
    for make, more in ((BEER, DDPG_LIKE), (VaGraM, MODEL_FREE)):
        for env in (Keyed(), VecNormalize(DummyVecEnv([Keyed]))):
            with pytest.raises(UserError, match="one-dimensional Box") as caught:
                make("MlpPolicy", env, **more)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [BEER, VaGraM])
@pytest.mark.parametrize("how", ["alone", "DummyVecEnv", "VecNormalize"])
def test_what_is_not_finite_ends_training_in_a_sentence(make: Any, how: str) -> None:
    env = {
        "alone": Ill,
        "DummyVecEnv": lambda: DummyVecEnv([Ill]),
        "VecNormalize": lambda: VecNormalize(DummyVecEnv([Ill])),
    }
    with pytest.raises(UserError, match="not finite; training stopped, checkpoints kept"):
        make("MlpPolicy", env[how](), **(DDPG_LIKE if make is BEER else MODEL_FREE)).learn(60)


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_on_policy_too(what: str) -> None:
    class Failing(Track):
        ill = 5 if what == "observation" else -1
        action_space = gym.spaces.Discrete(2)  # type: ignore[assignment]

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            observation, _, *ends = super().step(np.array([action]))
            return observation, np.nan if what == "reward" else 0.0, *ends

    class Other(Failing):
        ill = -1

    envs = DummyVecEnv([Failing]), DummyVecEnv([Other])
    agent = ORPO("MlpPolicy", envs[0], ref_env=envs[1], device="cpu", n_steps=16, batch_size=16, divergence="none")
    with pytest.raises(UserError, match=r"no longer finite by step .*; training stopped, checkpoints kept") as caught:
        agent.learn(200)
    assert "\n" not in str(caught.value)
