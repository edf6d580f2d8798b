"""Agents evaluated in one batch of environments get what each would have got alone, in every bit."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy

import rlkit.registry
from rlkit.algorithms.evaluate import MAX_ENVS, Evaluation, Evaluator, evaluate_together
from rlkit.errors import UserError


class Net:
    """A network whose products round by the number of their rows, with noise of its own where it is asked for."""

    def __init__(self, inputs: int, actions: int, seed: int, source: str = "global"):
        generator = torch.Generator().manual_seed(seed)
        self.hidden = torch.randn(inputs, 300, generator=generator) / inputs**0.5
        self.out = torch.randn(300, actions, generator=generator) / 300**0.5
        self.source, self.noise = source, {"torch": generator, "numpy": np.random.default_rng(seed)}.get(source)
        self.seen: list[int] = []

    def _drawn(self, shape: torch.Size) -> torch.Tensor:
        if isinstance(self.noise, np.random.Generator):
            return torch.from_numpy(self.noise.standard_normal(tuple(shape), np.float32))
        return torch.randn(shape, generator=self.noise)

    def predict(self, observation: Any, *, deterministic: bool = True) -> tuple[np.ndarray, None]:
        self.seen.append(len(observation))
        action = torch.tanh(torch.from_numpy(observation).float() @ self.hidden) @ self.out
        if not deterministic:
            action = action + 0.3 * self._drawn(action.shape)
        return torch.tanh(action).numpy(), None


def equal(left: Evaluation, right: Evaluation) -> bool:
    arrays = [{**one.samples(), "lengths": one.lengths} for one in (left, right)]
    return arrays[0].keys() == arrays[1].keys() and all(
        value.tobytes() == arrays[1][name].tobytes() for name, value in arrays[0].items()
    )


def evaluators(count: int, env_id: str, **kwargs: Any) -> list[Evaluator]:
    return [Evaluator(env_id, seed=seed, **kwargs) for seed in range(count)]


def both(agents: list[Any], make: Any, index: int = 3) -> tuple[list[Evaluation], list[Evaluation], Evaluator]:
    """Together, alone, and the evaluator that holds the batch."""
    ours, theirs = make(), make()
    together = evaluate_together(ours, agents, index)
    alone = [evaluator(agent, index) for evaluator, agent in zip(theirs, agents, strict=True)]
    for evaluator in (*ours[1:], *theirs):
        evaluator.close()
    assert all(evaluator.env is None for evaluator in ours[1:])
    return together, alone, ours[0]


@pytest.mark.parametrize(("env_id", "sizes"), [("Hopper-v5", (11, 3)), ("HalfCheetah-v5", (17, 6))])
def test_mujoco(env_id: str, sizes: tuple[int, int]) -> None:
    limit = {"max_episode_steps": 40} if env_id == "HalfCheetah-v5" else {}
    agents = [Net(*sizes, seed) for seed in range(3)]
    together, alone, first = both(
        agents, lambda: evaluators(3, env_id, episodes=5, env_kwargs=limit, reference=(-20.0, 3234.0))
    )
    assert all(map(equal, together, alone)) and first.env.num_envs == 15
    assert not equal(together[0], together[1]) and together[0].scores is not None
    assert all(set(agent.seen) == {5} for agent in agents)  # the products had the shapes that they have alone
    first.close()


def test_a_toy_in_rounds_with_other_judgements() -> None:
    """Episodes end at different times, agents draw from every kind of generator, one agent acts twice."""
    agents: list[Any] = [Net(3, 2, 0), Net(3, 2, 1), Net(3, 2, 2, "torch"), Net(3, 2, 3, "numpy")]
    agents.append(agents[2])
    progress: dict[int, list[int]] = {}

    def make() -> list[Evaluator]:
        found = evaluators(5, toy.ENV_ID, episodes=MAX_ENVS + 7)
        for number, evaluator in enumerate(found):
            evaluator.judged = "sampled" if number else "greedy"
            evaluator.on_progress = progress.setdefault(number, []).append
        return found

    torch.manual_seed(9)
    before = torch.get_rng_state(), agents[2].noise.get_state(), agents[3].noise.bit_generator.state
    together, alone, first = both(agents, make)
    first.close()
    assert all(map(equal, together, alone))
    assert not equal(together[2], together[4])  # of other seeds
    after = torch.get_rng_state(), agents[2].noise.get_state(), agents[3].noise.bit_generator.state
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1]) and before[2] == after[2]
    for told in progress.values():
        half = told.index(MAX_ENVS + 7) + 1
        assert told[:half] == sorted(told[:half]) and told[-1] == MAX_ENVS + 7
    again = evaluate_together(make(), agents, 3)
    assert all(map(equal, together, again)) and not equal(evaluate_together(make(), agents, 4)[1], again[1])


class Pair(gym.Env):
    """Observations of two parts; the reward is what the action hits of them."""

    observation_space = gym.spaces.Dict({"at": gym.spaces.Box(-1, 1, (2,)), "side": gym.spaces.Discrete(3)})
    action_space = gym.spaces.Discrete(3)

    def _see(self) -> dict[str, Any]:
        return {"at": self.np_random.uniform(-1, 1, 2).astype(np.float32), "side": self.np_random.integers(3)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.seen = self._see()
        return self.seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        told = {"true_reward": float(action == self.seen["side"]), "proxy_reward": float(self.seen["at"][0])}
        self.seen = self._see()
        return self.seen, told["proxy_reward"], bool(self.np_random.random() < 0.1), False, told


gym.register("rlkit-test/Pair-v0", Pair, max_episode_steps=30)


class Sided:
    def __init__(self, shift: int):
        self.shift = shift

    def predict(self, observation: Any, *, deterministic: bool = True) -> tuple[np.ndarray, None]:
        return (observation["side"] + self.shift + (observation["at"][:, 0] > 0.9)) % 3, None


def test_observations_of_parts_and_two_rewards() -> None:
    together, alone, first = both([Sided(0), Sided(1)], lambda: evaluators(2, "rlkit-test/Pair-v0", episodes=6))
    first.close()
    assert all(map(equal, together, alone)) and set(together[0].by_reward) == {"true", "proxy"}
    assert together[0].by_reward["true"].mean() > together[1].by_reward["true"].mean()


class Special(Evaluator):
    def measure(self, agent: Any, index: int) -> Evaluation:
        return Evaluation(np.array([float(index)]), np.array([1]), None)


def test_what_differs_is_evaluated_one_after_another() -> None:
    agents = [Net(3, 2, 0), Net(3, 2, 1)]
    for other in (
        Evaluator(toy.ENV_ID, episodes=3),
        Evaluator(toy.ENV_ID, episodes=4, env_kwargs={"render_mode": "rgb_array"}),
        Special(toy.ENV_ID, episodes=4),
    ):
        pair = [Evaluator(toy.ENV_ID, episodes=4), other]
        found = evaluate_together(pair, agents, 2)
        assert all(map(equal, found, [one(agent, 2) for one, agent in zip(pair, agents, strict=True)]))
        assert pair[0].env.num_envs == 4
        for one in pair:
            one.close()
    assert evaluate_together([], [], 0) == []
    with pytest.raises(ValueError, match="shorter"):
        evaluate_together(pair, agents[:1], 0)


class Failing(Pair):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        seen, reward, *rest = super().step(action)
        return seen, float("nan") if action == 2 else reward, *rest  # type: ignore[return-value]


gym.register("rlkit-test/Failing-v0", Failing, max_episode_steps=30, disable_env_checker=True)


class Always(Sided):
    def predict(self, observation: Any, *, deterministic: bool = True) -> tuple[np.ndarray, None]:
        return np.full(len(observation["side"]), self.shift), None


def test_errors_name_the_episode_of_the_agent() -> None:
    agents = [Always(0), Always(2)]
    pair = evaluators(2, "rlkit-test/Failing-v0", episodes=4)
    with pytest.raises(UserError) as alone:
        pair[1](agents[1], 0)
    with pytest.raises(UserError) as together:
        evaluate_together(pair, agents, 0)
    assert str(together.value) == str(alone.value)
    assert "episode 0 of the evaluation, step 1" in str(alone.value)
    other = rlkit.registry.record("hopper").env_id
    with pytest.raises(UserError, match="the agent has the observation space"):
        agent = Net(3, 2, 0)
        agent.observation_space = toy.Point.observation_space  # type: ignore[attr-defined]
        evaluate_together(evaluators(2, other, episodes=2), [agent, agent], 0)
    for one in pair:
        one.close()
