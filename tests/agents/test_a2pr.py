"""A2PR against its specification: the gates, the auto-encoder, the pull on the actor, a plain reference."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import toy
from gymnasium import spaces
from torch import Tensor, nn

from rlkit import registry
from rlkit.agents import a2pr
from rlkit.agents.a2pr import A2PR, VAE, A2PRConfig, actor_loss, anchor_and_weight, vae_loss, value_loss
from rlkit.agents.td3bc import TD3BC, td_target
from rlkit.algorithms.hyperparameters import presets
from rlkit.algorithms.nets import Adam
from rlkit.algorithms.replay import Batch
from rlkit.config import compose_config
from rlkit.errors import UserError

SMALL: dict[str, Any] = {"batch_size": 32, "hidden_sizes": (32, 32), "device": "cpu"}


@pytest.fixture(scope="module")
def dataset() -> Any:
    return toy.generate(size=600)


@pytest.fixture
def agent(dataset: Any) -> A2PR:
    return A2PR("MlpPolicy", dataset, **SMALL)


@pytest.fixture(scope="module")
def trained(dataset: Any) -> dict[str, Tensor]:
    """Weights with every gate open in part and a VAE that transmits its input, so that no option is without effect."""
    warm = A2PR("MlpPolicy", dataset, learning_rate=1e-3, vae_weight=20.0, **SMALL).learn(600)
    warm._n_updates += 1
    warm.value[-1].bias.data += 0.5  # of 600 updates on a problem this easy the actor's gate is open everywhere
    metrics = warm.update(warm.replay.batch(256))
    assert all(0.1 < metrics[key] < 0.99 for key in ("vae_gate", "actor_gate", "proposal_chosen")), metrics
    return {key: tensor.clone() for key, tensor in warm.model_tensors().items()}


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


# ---- the gates -----------------------------------------------------------------------------------------------------


def test_the_anchor_is_the_better_action_and_its_weight_is_all_or_nothing() -> None:
    proposal, actions = torch.ones(6, 2), -torch.ones(6, 2)
    #            both open, ρ | both, a | ρ alone | a alone | ρ on v | a on v: closed
    q_proposal = column(3.0, 2.0, 2.0, 0.0, 1.0, 0.0)
    q_data = column(2.0, 3.0, 0.0, 2.0, 0.0, 1.0)
    anchor, weight = anchor_and_weight(proposal, actions, q_proposal, q_data, torch.ones(6, 1), 0.4)
    assert anchor[:, 0].tolist() == [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    assert torch.equal(weight, column(0.4, 0.4, 0.4, 0.4, 0.4, 0.0))  # never 0.8, however many gates are open


def test_equal_values_choose_the_proposal() -> None:
    anchor, _ = anchor_and_weight(torch.ones(1, 2), torch.zeros(1, 2), column(1.0), column(1.0), column(0.0), 1.0)
    assert torch.equal(anchor, torch.ones(1, 2))


@pytest.mark.parametrize("mask", [0.0, 0.4, 15.0])
def test_weights_take_two_values_only(mask: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q_proposal, q_data, v = torch.randn(3, 512, 1, generator=generator)
    proposal, actions = torch.randn(2, 512, 3, generator=generator)
    _, weight = anchor_and_weight(proposal, actions, q_proposal, q_data, v, mask)
    assert set(weight.unique().tolist()) == {0.0, torch.tensor(mask).item()}


def test_with_the_data_as_proposal_and_open_gates_the_pull_is_weighted_imitation() -> None:
    generator = torch.Generator().manual_seed(0)
    proposed, actions = torch.randn(2, 16, 3, generator=generator)
    q, q_data = torch.randn(2, 16, 1, generator=generator)
    anchor, weight = anchor_and_weight(actions, actions, q_data, q_data, q_data - 1.0, 4.0)
    pull = actor_loss(q, q, proposed, anchor, weight, 2.5) + 2.5 / q.abs().mean() * q.mean()
    torch.testing.assert_close(pull, 4.0 * F.mse_loss(proposed, actions))


def test_closed_gates_leave_the_value_term_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    proposed, actions = torch.randn(2, 16, 3, generator=generator)
    q = torch.randn(16, 1, generator=generator)
    anchor, weight = anchor_and_weight(actions, actions, q, q, q + 1.0, 4.0)
    torch.testing.assert_close(actor_loss(q, q, proposed, anchor, weight, 2.5), -2.5 / q.abs().mean() * q.mean())


def test_every_gate_sees_the_value_from_before_its_step(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = A2PR("MlpPolicy", dataset, **SMALL, learning_rate=0.01).learn(1)
    seen: dict[str, Tensor] = {}

    def spy_weight(*args: Any) -> Any:
        seen["v"] = args[4]
        return anchor_and_weight(*args)

    def spy_vae(vae: Any, batch: Batch, gate: Tensor, noise: Tensor) -> Any:
        seen["gate"] = gate
        return vae_loss(vae, batch, gate, noise)

    monkeypatch.setattr(a2pr, "anchor_and_weight", spy_weight)
    monkeypatch.setattr(a2pr, "vae_loss", spy_vae)
    batch = agent.replay.batch(256)
    before = agent.value(batch.observations).detach()
    agent.update(batch)  # the second update: the actor moves too
    after = agent.value(batch.observations).detach()
    q_data = agent.critic.first(batch.observations, batch.actions).detach()
    assert torch.equal(seen["v"], before) and torch.equal(seen["gate"], q_data > before)
    assert not torch.equal(q_data > after, q_data > before), "the step was too small to tell the two apart"


# ---- the auto-encoder and the value --------------------------------------------------------------------------------


def test_closed_gates_show_the_autoencoder_the_kl_alone(agent: A2PR) -> None:
    batch = agent.replay.batch(32)
    noise = agent.latent_noise(batch)
    error, kl = vae_loss(agent.vae, batch, torch.zeros(32, 1, dtype=torch.bool), noise)
    assert error == 0.0 and kl > 0.0
    decoder = list(agent.vae.decoder.parameters())
    gradients = torch.autograd.grad(error + 0.5 * kl, decoder, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)
    for _ in range(800):
        agent.vae_optimiser.minimise(
            sum(vae_loss(agent.vae, batch, torch.zeros(32, 1, dtype=torch.bool), noise), torch.zeros(()))
        )
    assert vae_loss(agent.vae, batch, torch.zeros(32, 1, dtype=torch.bool), noise)[1] < 0.05 * kl


def test_the_reconstruction_keeps_gated_rows_in_its_mean(agent: A2PR) -> None:
    batch = agent.replay.batch(32)
    noise = agent.latent_noise(batch)
    half = (torch.arange(32) % 2 == 0)[:, None]
    error, kl = vae_loss(agent.vae, batch, half, noise)
    reconstruction, mean, log_std = agent.vae(batch.observations, batch.actions, noise)
    squares = (reconstruction - batch.actions).square()  # [32, 2]
    torch.testing.assert_close(error, squares[::2].sum() / (32 * 2))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl, reference.mean())


def test_the_latents_scale_is_clamped_and_reconstructions_stay_in_the_box(agent: A2PR) -> None:
    batch = agent.replay.batch(32)
    last = [m for m in agent.vae.encoder if isinstance(m, nn.Linear)][-1]
    for bias, expected in ((1e3, 15.0), (-1e3, -4.0)):
        nn.init.constant_(last.bias, bias)
        reconstruction, mean, log_std = agent.vae(batch.observations, batch.actions, agent.latent_noise(batch))
        assert mean.shape == log_std.shape == (32, 4)  # twice the action's dimensions
        assert (log_std == expected).all() and reconstruction.abs().max() <= 1.0


@pytest.mark.parametrize(("deviation", "weight"), [(0.3, 1.0), (0.5, 3.0)])
def test_the_proposals_error_is_the_smaller_of_the_variance_and_an_eighth_of_the_weight(
    deviation: float, weight: float
) -> None:
    """min(σ², 1 / 8w) per dimension: below that variance the KL costs more than reconstructing gains."""
    generator = torch.Generator().manual_seed(0)
    vae = VAE(1, spaces.Box(-1.0, 1.0, (2,)), (48, 48), generator)
    optimiser, gate, errors = Adam(vae.parameters(), 2e-3), torch.ones(256, 1, dtype=torch.bool), []
    state, indices = torch.zeros(256, 1), torch.arange(256)
    for _ in range(2000):
        actions = (deviation * torch.randn(256, 2, generator=generator)).clamp(-0.99, 0.99)
        batch = Batch(state, actions, state, state, state, indices)
        error, kl = vae_loss(vae, batch, gate, torch.randn(256, 4, generator=generator))
        optimiser.minimise(weight * error + 0.5 * kl)
        errors.append(error.item())
    expected = min(deviation**2, 1 / (8 * weight))
    assert sum(errors[-300:]) / 300 == pytest.approx(expected, rel=0.15)


def test_the_value_regresses_on_the_smaller_target() -> None:
    assert value_loss(column(1.0, 1.0), column(0.0, 5.0), column(3.0, 2.0)) == (1.0 + 1.0) / 2


# ---- the pull on the actor -----------------------------------------------------------------------------------------


def pull(agent: A2PR, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the mean squared distance to the proposal, with respect to the proposed action."""
    agent.vae_noise.manual_seed(7)
    proposed = agent.policy.actor(batch.observations).detach().requires_grad_()
    proposal = agent.propose(batch, proposed)
    (gradient,) = torch.autograd.grad((proposed - proposal).square().mean(), proposed)
    return gradient, proposed, proposal.detach()


def test_the_gradient_passes_through_the_proposal_unless_detached(dataset: Any) -> None:
    through, detached = (A2PR("MlpPolicy", dataset, detach_target=d, **SMALL) for d in (False, True))
    batch = through.replay.batch(32)
    gradient, proposed, proposal = pull(through, batch)
    distance = proposed.detach() - proposal
    through.vae_noise.manual_seed(7)
    rho = through.propose(batch, proposed)
    (pulled_back,) = torch.autograd.grad(rho, proposed, distance)  # Jᵀ(p - ρ)
    torch.testing.assert_close(gradient, 2 * (distance - pulled_back) / (32 * 2))
    fixed, _, same = pull(detached, batch)
    assert torch.equal(same, proposal)
    torch.testing.assert_close(fixed, 2 * distance / (32 * 2))
    assert (gradient - fixed).abs().max() > 1e-5


def test_a_prior_proposal_knows_nothing_of_the_actor(dataset: Any) -> None:
    agent = A2PR("MlpPolicy", dataset, proposal="prior", **SMALL)
    batch = agent.replay.batch(32)
    gradient, proposed, proposal = pull(agent, batch)
    noise = torch.randn(32, 4, generator=torch.Generator().manual_seed(7)).clamp(-0.5, 0.5)
    assert torch.equal(proposal, agent.vae.decode(batch.observations, noise))
    torch.testing.assert_close(gradient, 2 * (proposed.detach() - proposal) / (32 * 2))


# ---- the whole update ----------------------------------------------------------------------------------------------


def test_targets_move_on_even_steps_only(agent: A2PR) -> None:
    for step in range(1, 7):
        before = copy.deepcopy((agent.target_actor.state_dict(), agent.target_critic.state_dict()))
        agent.learn(1, reset_num_timesteps=False)
        after = agent.target_actor.state_dict(), agent.target_critic.state_dict()
        for old, new in zip(before, after, strict=True):
            moved = any(not torch.equal(old[k], new[k]) for k in old)
            assert moved == (step % 2 == 0), step


def reference(nets: dict[str, Any], batches: list[Batch], noises: list[Tensor], latents: Any, cfg: Any) -> None:
    """The specification's steps with plain Adam, plain losses and a loop for the targets."""
    actor, critic, value, vae, target_actor, target_critic = nets.values()
    rates = {"actor": 3e-4, "critic": 3e-4, "value": 3e-4, "vae": 1e-3}
    adam = {name: torch.optim.Adam(nets[name].parameters(), rate) for name, rate in rates.items()}

    def step(which: str, loss: Tensor) -> None:
        adam[which].zero_grad()
        loss.backward()
        adam[which].step()

    def autoencode(s: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = vae.encoder(torch.cat([s, action], 1)).chunk(2, 1)
        std = log_std.clamp(-4, 15).exp()
        return torch.tanh(vae.decoder.net(torch.cat([s, mean + std * next(latents)], 1))), mean, std

    for t, (b, noise) in enumerate(zip(batches, noises, strict=True), start=1):
        s, a = b.observations, b.actions
        with torch.no_grad():
            a2 = (target_actor(b.next_observations) + noise.clamp(-0.5, 0.5)).clamp(-1, 1)
            y = b.rewards + 0.99 * b.not_terminal * torch.min(*target_critic(b.next_observations, a2))
        q1, q2 = critic(s, a)
        step("critic", F.mse_loss(q1, y) + F.mse_loss(q2, y))
        with torch.no_grad():
            y2 = b.rewards + 0.99 * b.not_terminal * torch.min(*critic(b.next_observations, a2))
            qa = critic(s, a)[0]
        v = value(s)
        step("value", F.mse_loss(v, torch.min(y, y2)))
        v = v.detach()
        rebuilt, mean, std = autoencode(s, a)
        kl = -0.5 * (1 + std.square().log() - mean.square() - std.square()).mean()
        step("vae", (cfg.vae_weight * (qa > v) * (rebuilt - a).square()).mean() + 0.5 * kl)
        if t % 2 == 0:
            p = actor(s)
            q = critic(s, p)[0]
            if cfg.proposal == "prior":
                rho = torch.tanh(vae.decoder.net(torch.cat([s, next(latents).clamp(-0.5, 0.5)], 1))).detach()
            else:
                rho = autoencode(s, p)[0]
            rho = rho.detach() if cfg.detach_target else rho
            qr = critic(s, rho)[0].detach()
            better = qr - v >= qa - v
            target = rho * better + a * ~better
            m = cfg.mask * (((qr >= v) | (qa > v)) * 1.0)
            scale = q if cfg.q_scale == "policy" else qa
            step("actor", -(cfg.alpha / scale.abs().mean().detach()) * q.mean() + (m * (p - target).square()).mean())
            for net, follower in ((actor, target_actor), (critic, target_critic)):
                for w, u in zip(net.parameters(), follower.parameters(), strict=True):
                    u.data.copy_(0.005 * w.data + 0.995 * u.data)


def parts(agent: A2PR) -> dict[str, nn.Module]:
    names = ("critic", "value", "vae", "target_actor", "target_critic")
    return {"actor": agent.policy.actor, **{name: getattr(agent, name) for name in names}}


OPTIONS: list[dict[str, Any]] = [{}, {"detach_target": True}, {"proposal": "prior"}, {"q_scale": "data"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_twenty_updates_equal_a_plain_reference(
    options: dict[str, Any], dataset: Any, trained: dict[str, Tensor]
) -> None:
    chosen = {**SMALL, "mask": 1.5, "vae_weight": 1.5}
    agent, twin = A2PR("MlpPolicy", dataset, **chosen, **options), A2PR("MlpPolicy", dataset, **chosen, **options)
    agent.load_model(trained)
    nets = copy.deepcopy(parts(agent))
    batches = [twin.replay.batch(32) for _ in range(20)]
    noises = [torch.empty(32, 2).normal_(0, 0.2, generator=twin.noise) for _ in range(20)]
    latents = iter([torch.randn(32, 4, generator=twin.vae_noise) for _ in range(30)])  # 20 of the VAE's, 10 proposals
    reference(nets, batches, noises, latents, agent.config)
    agent.learn(20)
    assert next(latents, None) is None
    for name, net in parts(agent).items():
        for left, right in zip(net.parameters(), nets[name].parameters(), strict=True):
            assert (left - right).abs().max() < 1e-5, name


def test_each_option_changes_what_the_actor_learns(dataset: Any, trained: dict[str, Tensor]) -> None:
    learned = []
    for options in OPTIONS:
        agent = A2PR("MlpPolicy", dataset, **{**SMALL, "mask": 1.5, "vae_weight": 1.5, **options})
        agent.load_model(trained)
        learned.append(torch.cat([p.detach().flatten() for p in agent.learn(20).policy.actor.parameters()]))
    for first, second in itertools.combinations(learned, 2):
        assert (first - second).abs().max() > 1e-4  # ten times what the comparison with the reference tolerates


def test_what_is_logged_stays_on_the_device_without_a_graph(agent: A2PR) -> None:
    odd = agent.update(agent.replay.batch(32))
    agent._n_updates += 1
    even = agent.update(agent.replay.batch(32))
    every = {"critic_loss", "target_q", "value_loss", "v", "vae_loss", "vae_error", "vae_kl", "vae_gate"}
    assert odd.keys() == every
    assert even.keys() == {*every, "actor_loss", "q", "bc", "actor_gate", "proposal_chosen", "proposal_gap"}
    for key, value in even.items():
        assert value.shape == () and not value.requires_grad and torch.isfinite(value), key
    assert all(0 <= even[key] <= 1 for key in ("vae_gate", "actor_gate", "proposal_chosen"))


def test_td3bc_as_a_control_starts_from_the_same_networks_and_draws_the_same(agent: A2PR, dataset: Any) -> None:
    plain = TD3BC("MlpPolicy", dataset, critic_hidden_sizes=(32, 32, 32), **SMALL)
    for ours, theirs in ((agent.policy, plain.policy), (agent.critic, plain.critic)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    plain.learn(6)
    agent.learn(6)
    assert torch.equal(agent.noise.get_state(), plain.noise.get_state())
    assert torch.equal(agent.replay.generator.get_state(), plain.replay.generator.get_state())


def test_values_stay_within_the_datas_returns(dataset: Any) -> None:
    agent = A2PR("MlpPolicy", dataset, learning_rate=1e-3, **SMALL).learn(1000)
    batch = agent.replay.batch(256)
    lowest = dataset.rewards.min() / (1 - 0.99)
    for value in (agent.critic.first(batch.observations, batch.actions), agent.value(batch.observations)):
        assert 1.2 * lowest <= value.mean().item() <= 0.0
    assert td_target(agent.target_critic, batch, batch.actions, 0.99).mean() <= 0.0


# ---- configuration -------------------------------------------------------------------------------------------------


def test_one_width_sets_every_network_and_each_can_be_set_apart(dataset: Any) -> None:
    default = A2PRConfig()
    assert default.hidden_sizes == (256,) * 3
    assert default.critic_hidden_sizes == (256,) * 4 and default.vae_hidden_sizes == (750, 750)
    small = A2PRConfig(hidden_sizes=[32, 32])
    assert small.critic_hidden_sizes == (32, 32, 32) and small.vae_hidden_sizes == (93, 93)
    apart = {"critic_hidden_sizes": [8], "vae_hidden_sizes": [16, 16, 16]}
    agent = A2PR("MlpPolicy", dataset, **{**SMALL, **apart})
    widths = {
        "actor": [m.out_features for m in agent.policy.actor.net if isinstance(m, nn.Linear)],
        "critic": [m.out_features for m in agent.critic.nets[1] if isinstance(m, nn.Linear)],
        "value": [m.out_features for m in agent.value if isinstance(m, nn.Linear)],
        "encoder": [m.out_features for m in agent.vae.encoder if isinstance(m, nn.Linear)],
    }
    assert widths == {"actor": [32, 32, 2], "critic": [8, 1], "value": [8, 1], "encoder": [16, 16, 16, 8]}


PUBLISHED = {  # α, w, ε, γ
    "hopper-random": (2.5, 1.5, 1.5, 0.995),
    "hopper-medium": (2.5, 1.0, 0.4, 0.995),
    "hopper-medium-replay": (2.5, 1.5, 0.5, 0.99),
    "hopper-medium-expert": (2.5, 1.0, 4.0, 0.99),
    "halfcheetah-medium": (40.0, 1.0, 1.0, 0.99),
    "halfcheetah-medium-replay": (40.0, 1.5, 0.8, 0.995),
    "halfcheetah-medium-expert": (40.0, 1.0, 15.0, 0.99),
    "walker2d-medium": (2.5, 1.5, 1.0, 0.99),
    "walker2d-medium-replay": (2.5, 1.5, 1.2, 0.995),
    "walker2d-medium-expert": (2.5, 1.0, 0.8, 0.99),
    "halfcheetah-random": (40.0, 1.0, 1.0, 0.99),  # unpublished: α of the published halfcheetah levels
    "ant-medium": (2.5, 1.0, 1.0, 0.99),  # unpublished: the defaults
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_ones(name: str) -> None:
    record = registry.record(name)
    config = A2PRConfig(**presets(A2PR, record.name, record.task, record.family))
    assert (config.alpha, config.vae_weight, config.mask, config.discount) == PUBLISHED[name]


def test_the_command_line_applies_presets_and_lets_an_explicit_value_win() -> None:
    chosen = compose_config(
        ["agent=a2pr", "env=hopper-medium", "agent.discount=0.9", "agent.critic_hidden_sizes=[8,8]"]
    )
    assert (chosen.agent.mask, chosen.agent.discount, chosen.agent.critic_hidden_sizes) == (0.4, 0.9, [8, 8])
    assert chosen.agent.detach_target is False and list(chosen.agent.hidden_sizes) == [256, 256, 256]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mask": -1.0}, "agent.mask=-1.0 is out of range, expected a number of at least 0"),
        ({"vae_weight": -0.5}, "agent.vae_weight=-0.5 is out of range, expected a number of at least 0"),
        ({"vae_learning_rate": 0.0}, "agent.vae_learning_rate=0.0 is out of range, expected a number above 0"),
        ({"discount": 1.5}, "agent.discount=1.5 is out of range, expected a number from 0 to 1"),
        ({"proposal": "data"}, "agent.proposal=data is unknown, expected one of policy, prior"),
        ({"q_scale": "none"}, "agent.q_scale=none is unknown, expected one of policy, data"),
        ({"hidden_sizes": ()}, r"agent.hidden_sizes=\(\) is out of range, expected at least one width"),
        (
            {"critic_hidden_sizes": (32, 0)},
            r"agent.critic_hidden_sizes=\(32, 0\) is out of range, expected widths above",
        ),
        ({"vae_hidden_sizes": (-1,)}, r"agent.vae_hidden_sizes=\(-1,\) is out of range, expected widths above 0"),
        ({"detach": True}, "unknown hyperparameter 'detach' of a2pr"),
        ({"mask": "all"}, "agent.mask='all' is not a number"),
    ],
)
def test_bad_values_get_a_sentence(arguments: dict[str, Any], sentence: str, dataset: Any) -> None:
    with pytest.raises(UserError, match=sentence):
        A2PR("MlpPolicy", dataset, **{**SMALL, **arguments})
