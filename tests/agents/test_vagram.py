"""VaGraM and its world model: losses by hand, value gradients by finite differences, fits, roll-outs, exact resume."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import configure
from torch import Tensor

from rlkit.agents.vagram.vagram import VaGraM
from rlkit.agents.vagram.world_model import (
    TERMINATIONS,
    Ensemble,
    calibrated_rows,
    fit,
    imagine,
    itervaml_rows,
    mle_rows,
    mse_rows,
    taylor_rows,
    truncated_linear,
    vagram_rows,
    value_gradients,
)
from rlkit.errors import UserError

SMALL: dict[str, Any] = {
    "device": "cpu",
    "hidden_sizes": (16, 16),
    "model_hidden_sizes": (16,),
    "batch_size": 16,
    "buffer_size": 1000,
    "learning_starts": 50,
    "refit_every": 40,
    "rollout_batch": 60,
    "model_batch_size": 32,
    "patience": 2,
    "max_epochs": 3,
    "updates_per_step": 1,
    "model_share_schedule": (0.0, 0.0, 0.5, 0.5),
}
E_, B, D, H = 3, 64, 4, 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# ---- losses (specification, C5) ------------------------------------------------------------------------------------


def test_vagram_is_the_diagonal_quadratic_form() -> None:
    y, target, g = random(E_, B, D + 1), random(E_, B, D + 1, seed=1), random(E_, B, D, seed=2)
    delta, rho = (y - target)[..., :D], (y - target)[..., D]
    form = torch.einsum("ebd,ebd,ebd->eb", delta, g.square(), delta) / D + rho.square()
    torch.testing.assert_close(vagram_rows(y, target, g.square()), form)
    constant = torch.full((E_, B, D), 3.0, dtype=torch.float64)
    expected = 9 * delta.square().mean(-1) + rho.square()
    torch.testing.assert_close(vagram_rows(y, target, constant.square()), expected)
    vector = random(D, seed=3).expand(E_, B, D)
    weighted = (vector.square() * delta.square()).mean(-1) + rho.square()
    torch.testing.assert_close(vagram_rows(y, target, vector.square()), weighted)


def test_taylor_is_below_the_diagonal_bound() -> None:
    y, target, g = random(E_, B, D + 1), random(E_, B, D + 1, seed=1), random(E_, B, H, D, seed=2)
    rho = (y - target)[..., D].square()
    taylor = taylor_rows(y, target, g) - rho
    diagonal = (vagram_rows(y, target, g.square().mean(2)) - rho) * D  # Σ_d W_d δ_d²
    assert (taylor <= D * diagonal + 1e-9).all()
    one = taylor_rows(y, target, g[:, :, :1]) - rho
    torch.testing.assert_close(one, ((y - target)[..., :D] * g[:, :, 0]).sum(-1).square())


def test_mle_by_hand_and_its_variance_is_bounded() -> None:
    mean, log_variance, target = random(E_, B, 2), random(E_, B, 2, seed=1), random(E_, B, 2, seed=2)
    by_hand = ((mean - target) ** 2 / log_variance.exp() + log_variance).mean(-1)
    torch.testing.assert_close(mle_rows(mean, log_variance, target), by_hand)
    torch.testing.assert_close(mse_rows(mean, target), ((mean - target) ** 2).mean(-1))
    model = Ensemble(3, 2, (8,), 2, True, generator())
    _, bounded = model.split(torch.cat([torch.zeros(2, 5, 2), torch.tensor([-1e3, 1e3]).expand(2, 5, 2)], -1))
    assert bounded.min() >= -10 - 1e-4 and bounded.max() <= 0.5 + 1e-4


def test_itervaml_compares_values_of_states() -> None:
    states, y, target = random(E_, B, D), random(E_, B, D + 1, seed=1), random(E_, B, D + 1, seed=2)
    w = random(D, 1, seed=3)
    found = itervaml_rows(y, target, states, lambda s: s @ w)
    gap = ((y - target)[..., :D] @ w).squeeze(-1)  # V is linear
    torch.testing.assert_close(found, gap.square() + (y - target)[..., D].square())


def test_calibrated_is_the_squared_error_of_an_expectation() -> None:
    """Over all pairs of samples of a discrete model it has exactly the square of the expected error, whose minimum is
    the truth; the mean of squares, as published, has the model's variance besides."""
    states, target = random(1, 1, D), random(1, 1, D + 1, seed=1)
    points = random(7, 1, 1, D + 1, seed=2)
    curve = random(D, H, seed=3)

    def values(s: Tensor) -> Tensor:
        return (s @ curve).square()

    def errors(y: Tensor) -> Tensor:
        reached = values((states + y[..., :D]).flatten(0, -2)) - values((states + target[..., :D]).flatten(0, -2))
        return torch.cat([reached, (y - target)[..., D:].flatten(0, -2)], dim=1)  # [n, H + 1]

    def mixed(each: Tensor) -> Tensor:
        return each[..., :H].mean(-1) + each[..., H]

    pairs = [torch.stack([a, b]) for a in points for b in points]  # both drawn from the seven, independently
    found = torch.stack([calibrated_rows(pair, target, states, values) for pair in pairs]).mean()
    expected = mixed(errors(points).mean(0).square())
    torch.testing.assert_close(found, expected)
    plain = mixed(errors(points).square().mean(0))
    torch.testing.assert_close(plain - expected, mixed(errors(points).var(dim=0, correction=0)))
    # of all seven at once: every ordered pair of different ones
    whole = calibrated_rows(points, target, states, values).squeeze()
    different = torch.stack([calibrated_rows(p, target, states, values) for p in pairs if not torch.equal(*p)]).mean()
    torch.testing.assert_close(whole, different)


@pytest.mark.slow
def test_calibration_pays_in_a_stochastic_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """``scripts/calibration_figure.py``'s experiment: values expected of a random next state, a model of 12 units."""
    scripts = Path(__file__).parents[2] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    error = runpy.run_path(str(scripts / "calibration_figure.py"))["value_error"]
    found = {loss: error(loss, 12, 0) for loss in ("vagram", "itervaml", "samples", "calibrated")}
    assert found["calibrated"] < 0.8 * min(found[loss] for loss in ("vagram", "itervaml", "samples")), found


def critics(seed: int = 0, d: int = D) -> list[Any]:
    nets = []
    for k in range(H):
        torch.manual_seed(seed + k)
        nets.append(torch.nn.Sequential(torch.nn.Linear(d + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double())
    return nets


def act(states: Tensor) -> Tensor:
    return torch.tanh(states[:, :1])


def on_pairs(net: Any) -> Any:
    return lambda states, actions: net(torch.cat([states, actions], dim=1))


def test_value_gradients_are_derivatives_at_a_fixed_action() -> None:
    states, nets = random(50, D, seed=4), critics()
    found = value_gradients([on_pairs(net) for net in nets], act, states, quantile=1.0)
    assert found.shape == (50, H, D)
    actions = act(states)
    for h, net in enumerate(nets):
        for d in range(D):
            step = torch.zeros(D, dtype=torch.float64)
            step[d] = 1e-6
            up, down = (on_pairs(net)(states + sign * step, actions) for sign in (1, -1))
            torch.testing.assert_close(found[:, h, d], (up - down).squeeze(1).detach() / 2e-6, atol=1e-6, rtol=1e-4)


def test_at_least_95_percent_of_gradients_keep_their_length() -> None:
    states, functions = random(2000, D, seed=5), [on_pairs(net) for net in critics(3)]
    whole, clipped = (value_gradients(functions, act, states, quantile=q) for q in (1.0, 0.95))
    same = torch.isclose(whole.norm(dim=-1), clipped.norm(dim=-1))
    assert (same.double().mean(0) >= 0.95).all() and not same.all()
    assert (clipped.norm(dim=-1) <= whole.norm(dim=-1) + 1e-12).all()
    cosine = torch.nn.functional.cosine_similarity(whole, clipped, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))  # the direction stays


def test_rescaling_a_coordinate_changes_nothing() -> None:
    """C6: with s'_d and δ_d times c and V(s'/c), g_d δ_d is what it was."""
    states, delta, scale = random(30, D, seed=6), random(30, D, seed=7), 7.0
    stretch = torch.ones(D, dtype=torch.float64)
    stretch[2] = scale
    net = critics(5)[0]
    plain = value_gradients([on_pairs(net)], act, states, 1.0)[:, 0] * delta
    stretched = lambda s, a: on_pairs(net)(s / stretch, a)  # noqa: E731
    other = value_gradients([stretched], lambda s: act(s / stretch), states * stretch, 1.0)[:, 0] * (delta * stretch)
    torch.testing.assert_close(plain, other)


def test_a_coordinate_the_critic_ignores_is_not_fitted() -> None:
    """C7: zero weights there give W = 0 and no gradient of the output layer's columns; the Gaussian loss has one."""
    nets = critics(8)
    for net in nets:
        net[0].weight.data[:, 2:D] = 0
    states = random(64, D, seed=9)
    weight = value_gradients([on_pairs(net) for net in nets], act, states).square().mean(1).float()
    assert weight[:, 2:].abs().max() == 0 and weight[:, :2].abs().min() >= 0
    inputs, target = torch.randn(1, 64, D + 1, generator=generator()), torch.randn(1, 64, D + 1, generator=generator(1))
    for gaussian in (False, True):
        model = Ensemble(D + 1, D + 1, (8,), 1, gaussian, generator())
        outputs = model(inputs)
        if gaussian:
            loss = mle_rows(*model.split(outputs), target).mean()
        else:
            loss = vagram_rows(outputs, target, weight.unsqueeze(0)).mean()
        gradient = torch.autograd.grad(loss, model.weights[-1])[0][0]  # [hidden, outputs]
        assert (gradient[:, 2:D].abs().max() > 0) == gaussian
        assert gradient[:, :2].abs().max() > 0 and gradient[:, D].abs().max() > 0


# ---- fits (C8) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "vagram", "taylor", "itervaml", "mle"])
def test_every_loss_overfits_linear_dynamics(loss: str) -> None:
    n = 400
    inputs = torch.randn(n, D + 1, generator=generator(1))
    targets = inputs @ (0.3 * torch.randn(D + 1, D + 1, generator=generator(2)))
    value = torch.randn(D, 1, generator=generator(3))
    gradients = value.T.expand(n, 1, D)
    model = Ensemble(D + 1, D + 1, (32,), 7, loss == "mle", generator())
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)

    def rows(index: Tensor, outputs: Tensor) -> Tensor:
        wanted = targets[index]
        if loss == "mle":
            return mle_rows(*model.split(outputs), wanted)
        if loss == "mse":
            return mse_rows(outputs, wanted)
        if loss == "taylor":
            return taylor_rows(outputs, wanted, gradients[index])
        if loss == "itervaml":
            return itervaml_rows(outputs, wanted, inputs[index][..., :D], lambda s: s @ value)
        return vagram_rows(outputs, wanted, gradients[index].square().mean(2))

    options: dict[str, Any] = {"batch_size": 64, "patience": 20, "elites": 5, "max_epochs": 150}
    report = fit(model, optimiser, inputs, rows, generator(), sum_members=loss == "mle", **options)
    assert len(report.elites) == 5 and len(set(report.elites.tolist())) == 5
    assert (report.scores[report.elites].diff() >= 0).all()
    everything = torch.arange(n).expand(7, -1)
    with torch.no_grad():
        left = rows(everything, model(inputs.expand(7, -1, -1))).mean(1)
    assert (left < (-3.0 if loss == "mle" else 0.02)).all()


def test_the_best_snapshot_comes_back() -> None:
    inputs = torch.randn(100, 3, generator=generator(1))
    model = Ensemble(3, 2, (8,), 2, False, generator())
    calls = 0

    def worse_and_worse(index: Tensor, outputs: Tensor) -> Tensor:
        nonlocal calls
        calls += not outputs.requires_grad
        return outputs.square().mean(-1) * 0 + (float(calls) if not outputs.requires_grad else outputs.mean())

    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    report = fit(model, optimiser, inputs, worse_and_worse, generator(), batch_size=32, patience=3, elites=1)
    assert report.epochs == 3
    for name, value in model.state_dict().items():
        if name not in ("mean", "std"):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("n", [3, 10, 103, 100_000])
def test_rows_are_dealt_to_the_elites_alone(n: int) -> None:
    model = Ensemble(2, 1, (), 7, False, generator())
    for k in range(7):
        model.weights[0].data[k] = 0
        model.biases[0].data[k] = float(k)
    elites = torch.tensor([1, 2, 4, 5, 6])
    found = imagine(model, elites, torch.zeros(n, 2), generator())[:, 0]
    counts = torch.bincount(found.long(), minlength=7)
    assert counts.sum() == n and counts[0] == counts[3] == 0
    if n % 5 == 0:
        assert set(counts[elites].tolist()) == {n // 5}
    again = imagine(model, elites, torch.zeros(n, 2), generator(1))[:, 0]
    assert n < 10 or not torch.equal(found, again)


@pytest.mark.slow
def test_distractors_are_ignored_where_the_value_ignores_them() -> None:
    """C7's experiment, which ``scripts/distractor_figure.py`` draws: three coordinates that matter, fifteen chaotic
    ones, and a model of six units."""
    figure = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "distractor_figure.py"))
    error = figure["relevant_error"]
    ratios = [error("mse", 6, seed) / error("vagram", 6, seed) for seed in range(3)]
    assert min(ratios) >= 3, ratios


# ---- the loop ------------------------------------------------------------------------------------------------------


def test_schedules_are_linear_between_their_epochs() -> None:
    assert [truncated_linear((20.0, 150.0, 1.0, 5.0), e) for e in (1, 20, 85, 150, 400)] == [1, 1, 3, 5, 5]
    assert truncated_linear((0.0, 20.0, 0.0, 0.95), 1) == pytest.approx(0.95 / 20)


def test_terminations_are_gymnasiums() -> None:
    import gymnasium as gym

    for env_id, name in (
        ("Hopper-v5", "hopper"),
        ("Walker2d-v5", "walker2d"),
        ("InvertedPendulum-v5", "inverted-pendulum"),
    ):
        env = gym.make(env_id)
        env.action_space.seed(0)
        env.reset(seed=0)
        seen = 0
        for _ in range(300):
            state, _, terminated, truncated, _ = env.step(env.action_space.sample())
            rows = torch.as_tensor(np.append(state, [np.nan, 1e9])).unsqueeze(0)  # distractors have no say
            assert bool(TERMINATIONS[name](rows)) == terminated
            seen += terminated
            if terminated or truncated:
                env.reset()
        assert seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_loss": "mle", "real_ratio": 0.25, "behaviour": "mean"},
        {"model_loss": "itervaml", "feature_l2norm": True},
        {"model_loss": "taylor", "rollout_schedule": (0.0, 0.0, 2.0, 2.0)},
        {"model_loss": "calibrated", "rollout_schedule": (0.0, 0.0, 2.0, 2.0)},
        {"model_loss": "none"},
    ],
)
def test_variants_learn_and_resume_exactly(settings: dict[str, Any], tmp_path: Path) -> None:
    arguments = {**SMALL, **settings, "seed": 2}
    whole = VaGraM("MlpPolicy", "hopper", **arguments)
    whole.set_logger(configure(str(tmp_path), ["json"]))
    whole.learn(150, log_interval=None)
    whole.dump_logs()
    whole.logger.close()
    line = json.loads((tmp_path / "progress.json").read_text().splitlines()[-1])
    assert ("model/score" in line) == (settings.get("model_loss") != "none")
    part = VaGraM("MlpPolicy", "hopper", **arguments).learn(110, log_interval=None)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = VaGraM("MlpPolicy", "hopper", **arguments)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(40, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    changed = [k for k in left if not k.startswith("metric.") and not torch.equal(left[k], right[k])]
    assert changed == [] and {k for k in left.keys() ^ right.keys() if not k.startswith("metric.")} == set()
    whole.save(tmp_path / "a.rlk")
    loaded = VaGraM.load(tmp_path / "a.rlk", device="cpu")
    observations = np.random.default_rng(0).normal(size=(6, 11))
    expected = whole.predict(observations, deterministic=True)[0]
    assert np.array_equal(expected, loaded.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize("loss", ["vagram", "mle", "none"])
def test_nothing_is_learnt_before_the_first_model(loss: str) -> None:
    agent = VaGraM("MlpPolicy", "hopper", **{**SMALL, "model_loss": loss, "updates_per_step": 3})
    agent.learn(89, log_interval=None)  # one step before the first fit
    assert agent._n_updates == (0 if loss != "none" else 3 * 39)
    agent.learn(1, log_interval=None, reset_num_timesteps=False)
    assert agent._n_updates == (3 if loss != "none" else 3 * 40)
    if loss != "none":
        assert agent.model_buffer is not None and agent.model_buffer.size() == 60


def test_the_replay_is_drawn_from_by_the_runs_seed() -> None:
    agents = [VaGraM("MlpPolicy", "hopper", **SMALL, seed=seed) for seed in (0, 7, 7)]
    assert [a.replay_buffer.generator.initial_seed() for a in agents] == [2, 9, 9]


def test_roll_outs_start_from_real_states_and_drop_ended_ones() -> None:
    agent = VaGraM("MlpPolicy", "hopper", **{**SMALL, "rollout_schedule": (0.0, 0.0, 3.0, 3.0)}).learn(
        130, log_interval=None
    )
    buffer = agent.model_buffer
    assert buffer is not None and buffer.size() > 0
    states, _, _, not_terminal, following = buffer.rows[: buffer.size()].split(buffer.widths, dim=1)
    real = agent.replay_buffer.rows[: agent.replay_buffer.size(), :11]
    assert (states[:60].unsqueeze(1) == real).all(-1).any(1).all()
    ended = TERMINATIONS["hopper"](following)
    assert torch.equal(not_terminal[:, 0] == 0, ended)
    continued = states[60:120]
    reached = following[:60][~ended[:60]]
    assert torch.equal(reached[: len(continued)], continued[: len(reached)])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"elites": 8}, "elites=8 is out of range, expected at most agent.members=7"),
        ({"rollout_schedule": (1.0, 2.0, 3.0)}, "rollout_schedule=.* is out of range, expected four numbers"),
        ({"model_loss": "vaml"}, "expected one of vagram, mle, mse, taylor, itervaml, calibrated, none"),
        ({"real_ratio": 1.5}, "real_ratio=1.5 is out of range"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        VaGraM("MlpPolicy", "hopper", **{**SMALL, **settings})


def test_an_environment_of_unknown_ends_is_refused() -> None:
    with pytest.raises(UserError, match="no analytic termination is known for"):
        VaGraM("MlpPolicy", "Swimmer-v5", **SMALL)
    VaGraM("MlpPolicy", "Swimmer-v5", **SMALL, termination="never")
