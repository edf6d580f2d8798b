"""BEER: its bound and penalty against their identities, its ranks, and DDPG as its limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.logger import configure
from torch import Tensor

from rlkit.agents.beer import (
    BEER,
    BEERConfig,
    beer_penalty,
    cosine_bound,
    dr3_loss,
    effective_rank,
    gradient_share,
    infer_loss,
    numerical_rank,
)
from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.errors import UserError

SMALL: dict[str, Any] = {
    "device": "cpu",
    "hidden_sizes": (16, 16),
    "batch_size": 16,
    "buffer_size": 1000,
    "learning_starts": 40,
    "rank_interval": 0,
}
ENV = "InvertedPendulum-v5"


def random_features(seed: int, batch: int = 512, m: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    phi, later = torch.randn(2, batch, m, generator=generator, dtype=torch.float64)
    return phi, later, torch.randn(m, generator=generator, dtype=torch.float64)


def cosines(phi: Tensor, later: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(phi, later, dim=1).unsqueeze(1)


ALL = torch.ones(512, 1, dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_rank_of_a_product_is_its_inner_width(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    phi = torch.randn(2048, rank, generator=generator) @ torch.randn(rank, 256, generator=generator)
    singular = torch.linalg.svdvals(phi / 2048**0.5)
    assert numerical_rank(singular, 0.01) == rank
    assert effective_rank(singular) <= rank
    assert effective_rank(torch.ones(100)) == 99


@pytest.mark.parametrize("seed", range(3))
def test_no_penalty_where_bellmans_equation_holds(seed: int) -> None:
    phi, later, w = random_features(seed)
    rewards = (phi - 0.99 * later) @ w.unsqueeze(1)  # [512, 1]
    bound = cosine_bound(phi, later, later, rewards, w, 0.99)
    assert (cosines(phi, later) <= bound + 1e-6).all()
    assert beer_penalty(phi, later, bound, ALL)[0].max() <= 1e-12
    bias = 3.0
    shifted = rewards + (1 - 0.99) * bias  # r = Q - γQ' with Q = φw + b
    corrected = cosine_bound(phi, later, later, shifted - (1 - 0.99) * bias, w, 0.99)
    assert beer_penalty(phi, later, corrected, ALL)[0].max() <= 1e-12
    # in one dimension Cauchy-Schwarz is an equality, so any bias breaks it
    one, two, v = phi[:, :1].abs(), later[:, :1].abs(), w[:1].abs()
    exact = (one - 0.99 * two) * v
    assert beer_penalty(one, two, cosine_bound(one, two, two, exact, v, 0.99), ALL)[0].max() < 1e-9
    biased = cosine_bound(one, two, two, exact + (1 - 0.99) * 30.0 * exact.sign(), v, 0.99)
    assert (beer_penalty(one, two, biased, ALL)[0] > 0).any()


def test_the_gap_between_cosine_and_bound_is_bellmans_slack() -> None:
    phi, later, w = random_features(5)
    rewards = torch.randn(512, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20
    bound = cosine_bound(phi, later, later, rewards, w, 0.99)
    norms = phi.norm(dim=1, keepdim=True) * later.norm(dim=1, keepdim=True)
    slack = rewards.square() / w.square().sum() - (phi - 0.99 * later).square().sum(1, keepdim=True)
    torch.testing.assert_close(cosines(phi, later) - bound, slack / (2 * 0.99 * norms), atol=1e-5, rtol=0)
    assert (cosine_bound(phi, later, later, torch.zeros_like(rewards), w, 0.99) >= 1).all()
    large = cosine_bound(phi, later, later, torch.full_like(rewards, 1e3), w, 0.99)
    assert (beer_penalty(phi, later, large, ALL)[0] > 0).all()


def test_the_penalty_moves_the_features_of_the_present_alone() -> None:
    phi, later, w = (t.requires_grad_() for t in random_features(7))
    bound = cosine_bound(phi, later, later, torch.full((512, 1), 50.0, dtype=torch.float64), w, 0.99)
    loss = beer_penalty(phi, later, bound, ALL)[0].mean()
    gradients = torch.autograd.grad(loss, [phi, later, w], allow_unused=True)
    assert gradients[0] is not None and gradients[0].abs().sum() > 0
    assert gradients[1] is None and gradients[2] is None
    masked = beer_penalty(phi, later, bound, 0 * ALL)[0]
    assert masked.abs().max() == 0


def test_features_of_zero_do_not_divide_by_zero() -> None:
    phi = torch.zeros(4, 8)
    bound = cosine_bound(phi, phi, phi, torch.ones(4, 1), torch.zeros(8), 0.99)
    assert torch.isfinite(bound).all()
    assert torch.isfinite(beer_penalty(phi, phi, bound, torch.ones(4, 1))[0]).all()


def test_losses_of_the_baselines_by_hand() -> None:
    heads, first = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.1], [0.2, 0.3]])
    expected = ((1 - 0) ** 2 + (3 - 2) ** 2) / 2 + ((2 - 1) ** 2 + (4 - 3) ** 2) / 2
    assert infer_loss(heads, first, 10.0).item() == pytest.approx(expected)
    assert dr3_loss(heads, first).item() == pytest.approx((0.2 + (0.6 + 1.2)) / 2)


class Plain(OnlineAlgorithm):
    Config: ClassVar[type[AgentConfig]] = BEERConfig
    arguments = BEER.arguments


class PlainDDPG(Plain, DDPG):
    name = "plain-ddpg"

    def arguments(self, config: Any) -> dict[str, Any]:
        found = BEER.arguments(self, config)  # type: ignore[arg-type]
        found["policy_kwargs"]["optimizer_class"] = torch.optim.Adam
        found["policy_kwargs"]["optimizer_kwargs"] = {"fused": True}
        for key in ("policy_delay", "target_policy_noise", "target_noise_clip"):
            del found[key]
        del found["policy_kwargs"]["n_critics"]
        return found

    def _setup_model(self) -> None:
        super()._setup_model()
        self.action_noise = BEER("MlpPolicy", ENV, **SMALL).action_noise
        self.replay_buffer.generator.manual_seed(int(self.seed or 0) + 2)


def weights(agent: Any) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in agent.policy.parameters()]


def test_without_a_weight_it_is_ddpg_bit_for_bit() -> None:
    ours = BEER("MlpPolicy", ENV, seed=1, beta=0.0, **SMALL).learn(160)
    theirs = PlainDDPG("MlpPolicy", ENV, seed=1, **SMALL).learn(160)
    assert isinstance(theirs, TD3) and theirs._n_updates == ours._n_updates == 120
    assert weights(ours) == weights(theirs)


def test_while_nothing_fires_it_is_ddpg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = BEER("MlpPolicy", ENV, seed=1, beta=0.0, **SMALL).learn(120)
    agent = BEER("MlpPolicy", ENV, seed=1, bound="target", **SMALL)
    agent.set_logger(configure(str(tmp_path), ["json"]))
    agent.learn(120, log_interval=None)
    agent.dump_logs()
    agent.logger.close()
    line = json.loads((tmp_path / "progress.json").read_text().splitlines()[-1])
    fired = line["beer/active_frac"] > 0
    assert (weights(agent) == weights(plain)) != fired
    monkeypatch.setattr("rlkit.agents.beer.cosine_bound", lambda phi, *_: torch.full((len(phi), 1), 2.0))
    silent = BEER("MlpPolicy", ENV, seed=1, beta=10.0, **SMALL).learn(120)
    for left, right in zip(silent.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(left, right)
    monkeypatch.setattr("rlkit.agents.beer.cosine_bound", lambda phi, *_: torch.full((len(phi), 1), -2.0))
    firing = BEER("MlpPolicy", ENV, seed=1, beta=10.0, **SMALL).learn(120)
    assert weights(firing) != weights(plain)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bound": "bias_correct"},
        {"regulariser": "infer"},
        {"regulariser": "dr3"},
        {"regulariser": "none"},
        {"backbone": "td3"},
        {"backbone": "td3", "regulariser": "infer"},
    ],
)
def test_every_variant_learns_and_resumes_exactly(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlkit.agents.beer.SHARE_EVERY", 20)
    arguments = {**SMALL, **settings, "rank_interval": 30, "seed": 2}
    whole = BEER("MlpPolicy", ENV, **arguments).learn(150, log_interval=None)
    part = BEER("MlpPolicy", ENV, **arguments).learn(90, log_interval=None)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = BEER("MlpPolicy", ENV, **arguments)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(60, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    assert left.keys() == right.keys()
    assert [k for k in left if not torch.equal(left[k], right[k])] == []
    assert {"rank/nrr_0.01", "rank/nrr_0.1", "rank/nrr_1.0", "rank/srank_0.01"} <= set(whole.tally.counts)
    kind = settings.get("regulariser", "beer")
    assert whole.tally.counts.get(f"{kind}/gradient_share", 0) == (0 if kind == "none" else 5)  # 110 updates
    whole.save(tmp_path / "a.rlk")
    loaded = BEER.load(tmp_path / "a.rlk", device="cpu")
    observations = np.random.default_rng(0).normal(size=(6, 4))
    assert np.array_equal(whole.predict(observations)[0], loaded.predict(observations)[0])


def test_the_share_of_a_gradient_by_hand_and_that_it_changes_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    part, whole = 3 * x[0], x.square().sum() + y.square().sum()  # gradients (3, 0) and (2, 4, 6)
    assert gradient_share(part, whole, [x, y]).item() == pytest.approx(3 / 56**0.5)
    assert gradient_share(0 * x.sum(), whole, [x, y]).item() == 0
    (part + whole).backward()  # the graph is still there
    assert x.grad is not None and x.grad.tolist() == [5.0, 4.0]
    unmeasured = BEER("MlpPolicy", ENV, seed=1, beta=1.0, **SMALL).learn(120)
    monkeypatch.setattr("rlkit.agents.beer.SHARE_EVERY", 1)
    measured = BEER("MlpPolicy", ENV, seed=1, beta=1.0, **SMALL)
    measured.learn(120, log_interval=None)
    assert weights(measured) == weights(unmeasured)
    share = measured.tally.sums["beer/gradient_share"] / measured.tally.counts["beer/gradient_share"]
    assert share > 0


def test_the_replay_is_drawn_from_by_the_runs_seed() -> None:
    agents = [BEER("MlpPolicy", ENV, seed=seed, **SMALL) for seed in (0, 7, 7)]
    assert [a.replay_buffer.generator.initial_seed() for a in agents] == [2, 9, 9]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"regulariser": "bear"}, "regulariser=bear is unknown, expected one of beer"),
        ({"bound": "loose"}, "expected one of mixed, target, bias_correct"),
        ({"discount": 0.0}, "discount=0.0 is out of range"),
        ({"beta": -1.0}, "beta=-1.0 is out of range"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        BEER("MlpPolicy", ENV, **{**SMALL, **settings})


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(UserError, match="beer needs a Box action space, got Discrete"):
        BEER("MlpPolicy", gym.make("CartPole-v1"), **SMALL)
