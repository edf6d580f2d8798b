# written by scripts/make_signatures.py
from collections.abc import Sequence
from pathlib import Path
from rlkit.agents.drrpo_features import Map
from rlkit.algorithms.hyperparameters import RunDefaults
from rlkit.algorithms.offline import DatasetLike
from stable_baselines3.common.type_aliases import GymEnv
from typing import Any
from typing import ClassVar
import torch
from rlkit.agents.a2pr import A2PR as _A2PR
from rlkit.agents.bc import BC as _BC
from rlkit.agents.beer import BEER as _BEER
from rlkit.agents.bq import BQ as _BQ
from rlkit.agents.drrpo import DRRPO as _DRRPO
from rlkit.agents.fdvl import FDVL as _FDVL
from rlkit.agents.drrpo_features import FeatureDRRPO as _FeatureDRRPO
from rlkit.agents.iql import IQL as _IQL
from rlkit.agents.iqlearn import IQLearn as _IQLearn
from rlkit.agents.mbtl import MBTL as _MBTL
from rlkit.agents.orpo import ORPO as _ORPO
from rlkit.agents.prdc import PRDC as _PRDC
from rlkit.agents.ptrnet import PtrNet as _PtrNet
from rlkit.agents.recoil import ReCOIL as _ReCOIL
from rlkit.agents.smodice import SMODICE as _SMODICE
from rlkit.agents.sql import SQL as _SQL
from rlkit.agents.td3bc import TD3BC as _TD3BC
from rlkit.agents.vagram import VaGraM as _VaGraM
from rlkit.agents.xql import XQL as _XQL
from rlkit.agents import a2pr as a2pr
from rlkit.agents import bc as bc
from rlkit.agents import beer as beer
from rlkit.agents import bq as bq
from rlkit.agents import common as common
from rlkit.agents import drrpo as drrpo
from rlkit.agents import drrpo_features as drrpo_features
from rlkit.agents import fdvl as fdvl
from rlkit.agents import iql as iql
from rlkit.agents import iqlearn as iqlearn
from rlkit.agents import mbtl as mbtl
from rlkit.agents import orpo as orpo
from rlkit.agents import prdc as prdc
from rlkit.agents import ptrnet as ptrnet
from rlkit.agents import recoil as recoil
from rlkit.agents import smodice as smodice
from rlkit.agents import sql as sql
from rlkit.agents import td3bc as td3bc
from rlkit.agents import vagram as vagram
from rlkit.agents import xql as xql

class A2PR(_A2PR):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        normalise_observations: bool = True,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        critic_hidden_sizes: Sequence[int] | None = None,
        alpha: float = 2.5,
        discount: float = 0.99,
        polyak: float = 0.005,
        target_noise: float = 0.2,
        target_clip: float = 0.5,
        actor_delay: int = 2,
        vae_hidden_sizes: Sequence[int] | None = None,
        mask: float = 1.0,
        vae_weight: float = 1.0,
        vae_learning_rate: float = 0.001,
        detach_target: bool = False,
        proposal: str = 'policy',
        q_scale: str = 'policy',
    ) -> None:
        """Offline TD3 held to the better one of the data's action and a VAE's.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of the actor's hidden layers; the other nets follow them
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            critic_hidden_sizes: of the critics and V; None: the actor's and one more
            alpha: weight of the value against imitation; larger: further from the data
            discount: larger: longer horizon, noisier targets
            polyak: how far the targets move at each actor step
            target_noise: smoothing of the target policy, for actions in [-1, 1]
            target_clip: bound on that smoothing, same units
            actor_delay: critic steps per actor step
            vae_hidden_sizes: of en- and decoder; None: two of 750 for an actor of 256
            mask: ε, weight of the pull where a gate is open; larger: nearer to ā.  alpha / mask is what counts
            vae_weight: w, reconstruction against KL; larger: ρ nearer to what it encodes
            vae_learning_rate: larger: ρ follows the gate faster and less stably
            detach_target: True: ρ is a fixed target (the paper's text), so the pull has its full strength
            proposal: ρ encodes (s, π(s)); "prior": ρ decodes z = clip(N(0, I), ±½) (the paper's text)
            q_scale: λ divides by mean |Q₁(s, π(s))|; "data": by mean |Q₁(s, a)|
        """


class BC(_BC):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = True,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        part: str = 'all',
    ) -> None:
        """A deterministic policy fitted to the data's actions.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            part: all: every row; expert: the labelled rows of imitation data
        """


class BEER(_BEER):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='steps', total_timesteps=1000000, log_every=1000, eval_every=10000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        regulariser: str = 'beer',
        beta: float = 0.001,
        bound: str = 'mixed',
        infer_weight: float = 0.1,
        infer_scale: float = 100.0,
        infer_heads: int = 10,
        dr3_weight: float = 0.001,
        dr3_stop_gradient: bool = False,
        backbone: str = 'ddpg',
        learning_rate: float = 0.0003,
        batch_size: int = 256,
        hidden_sizes: Sequence[int] = (256, 256),
        discount: float = 0.99,
        polyak: float = 0.005,
        buffer_size: int = 1000000,
        learning_starts: int = 25000,
        exploration_noise: float = 0.1,
        rank_interval: int = 5000,
    ) -> None:
        """DDPG or TD3 whose critic's features keep within the bound of Bellman's equation.

        Args:
            regulariser: beer, infer, dr3 or none
            beta: weight of BEER's penalty; larger: features of successive pairs less alike
            bound: mixed (the authors' code), target or bias_correct
            infer_weight: InFeR's α; larger: features stay nearer to what they could express at first
            infer_scale: InFeR's β, by which the initial heads' outputs are multiplied
            infer_heads: linear heads kept in place
            dr3_weight: DR3's c₀; larger: smaller dot products of successive features
            dr3_stop_gradient: whether φ' is constant in DR3's term
            backbone: ddpg: one critic; td3: two, smoothed targets, delayed actor
            learning_rate: larger: faster and less stable
            batch_size: larger: smoother gradients, slower updates
            hidden_sizes: widths of actor and critic; the last is the number of features
            discount: larger: longer horizon, noisier targets
            polyak: how far the targets move at each update
            buffer_size: transitions remembered
            learning_starts: steps of uniformly random actions before the first update
            exploration_noise: standard deviation of the noise on actions in [-1, 1]
            rank_interval: updates between two measurements of the features' rank; 0: never
        """


class BQ(_BQ):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=10000, log_every=100, eval_every=500, checkpoint_every=500, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        labels: str | Path | None = None,
        seed: int = 0,
        device: torch.device | str = 'cpu',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        learning_rate: float = 0.0007,
        decay_steps: int | None = None,
        batch_size: int = 256,
        weight_decay: float = 0.01,
        clip: float = 1.0,
        ema: float = 0.999,
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 512,
        paper: bool = False,
        rescale: bool = True,
        two_ended: bool = True,
        distances: bool = False,
        symmetries: bool = True,
        min_size: int = 4,
        amp: bool = False,
        init: str | None = None,
        train_size: int = 10000,
        label_seed: int = 0,
        solver: str = 'auto',
        effort: float = 1.0,
        label_jobs: int = 1,
        improve_every: int = 10,
        improve_count: int = 128,
    ) -> None:
        """A transformer that learns the next step of good solutions.

        Args:
            policy: ``"MultiInputPolicy"``, the only one.
            env: a record's name (``tsp``, ``atsp``, ``cvrp``, ``op``, ``knapsack``), a Gymnasium id, or an environment.
            seed: decides the first weights and every batch.
            labels: file of a labelled set, or a folder of such files, whose instances may have several sizes; by default
                one is made when learning begins.
            hyperparameters: fields of :class:`BQConfig`.

        Raises:
            UserError: another environment, or hyperparameters out of range.

        Args:
            learning_rate: at the beginning
            decay_steps: updates until a cosine has taken it to 0; None: all of learn()'s; 0: it stays
            batch_size: sub-problems, over all processes
            weight_decay: AdamW's; larger: smaller weights
            clip: largest norm of the gradient
            ema: of the averaged weights; larger: a longer average; 0: none
            width: numbers per token, a multiple of heads
            layers: blocks; more: better, slower in proportion
            heads: of attention
            feedforward: units of the layer behind attention
            paper: ReZero, raw coordinates, one label and plain attention, as published
            rescale: every sub-problem to the unit square
            two_ended: tsp: also learn the node before the destination
            distances: attention falls with the squared distance; the presets of tsp, cvrp and op have it
            symmetries: see each sub-problem in one of the square's eight symmetries
            min_size: nodes of the smallest sub-problem of tsp, atsp and cvrp, its two ends counted
            amp: bfloat16 products; on a CPU attention stays in float32
            init: artefact whose weights are the first ones; None: drawn by the seed
            labels: a labelled set, or a folder of some; None: made as the next five say; self: no solver
            train_size: instances of it; more: less to learn by heart
            label_seed: of its instances
            solver: of its labels: the problem's best, or rlkit's own where that does; or a solver's name
            effort: of that solver; more: better labels, slower in proportion
            label_jobs: processes that solve
            improve_every: labels=self: updates between two rounds that better labels; less: better ones, slower
            improve_count: labels=self: instances of a round
        """


class DRRPO(_DRRPO):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='episodes', total_timesteps=200, log_every=10, eval_every=20, checkpoint_every=50, final_episodes=100, judged='sampled')
    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = 'cpu',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        method: str = 'drrpo',
        rho: float = 0.5,
        eta: float = 100.0,
        beta: float = 1.0,
        ridge: float | None = None,
        bonus: str | None = None,
        refresh: str | None = None,
        cap: str = 'remaining',
        known_rewards: bool = True,
        deploy_bonus: bool = False,
        pool: bool = True,
        reference: Sequence[float] | None = None,
    ) -> None:
        """DR-RPO over the features that the environment states.

        Args:
            policy: ``"MlpPolicy"``, the only one.
            env: a record's name (``linear-mdp``, ``american-put``), a Gymnasium id, or an environment.
            seed: decides every episode.

        Raises:
            UserError: an environment that does not say what is known of it.

        Args:
            method: a key of METHODS
            rho: ρ, radius of total variation of the uncertain factors; larger: more cautious
            eta: η; larger: greedier, further from the reference; counts in units of 1/reward
            beta: β; larger: explores longer; too small: may stay with a first, wrong choice
            ridge: λ; larger: bonus smaller and estimates nearer 0; None: 0.1, We-DRIVE-U 1/H²
            bonus: sum, diag2 (smaller) or elliptic (smallest); None: the method's
            refresh: episode, or doubling of a determinant: far fewer plans; None: the method's
            cap: bound of Q: remaining steps; horizon: looser; tight: uses that ρ loses value
            known_rewards: False: rewards are estimated by ridge regression
            deploy_bonus: True: keep the optimism in the policy that is handed over
            pool: False: one row per sample instead of per distinct next state; slower, the same
            reference: π_ref in every state, one probability per action; None: uniform
        """


class FDVL(_FDVL):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'chi2_monotone',
        lam: float | None = None,
        temperature: float = 1.0,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'exp',
        weight_clip: float = 100.0,
        value_clip: float = 0.0,
        rescale: bool = False,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 20.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = True,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
        lam_tv: float = 0.8,
        lam_chi2: float = 0.8,
    ) -> None:
        """Implicit value learning by a dual of total variation or χ².

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: λ, see above; larger: V nearer the best recorded action, less certain
            temperature: α in units of value; kl and chi2_exact at λ = ½: larger, V nearer the mean (docs)
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
            lam_tv: λ of total variation where `lam` is not given: V is the quantile of level 2 - 1/λ
            lam_chi2: λ of the three forms of χ² where `lam` is not given; larger: more optimistic
        """


class FeatureDRRPO(_FeatureDRRPO):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='episodes', total_timesteps=150, log_every=10, eval_every=10, checkpoint_every=30, final_episodes=100, judged='sampled')
    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        ref_policy: Map | None = None,
        feature_map: Map | None = None,
        seed: int = 0,
        device: torch.device | str = 'cpu',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        rho: float = 0.002,
        eta: float = 100.0,
        beta: float = 0.1,
        discount: float = 0.99,
        ridge: float = 0.1,
        reference: str = 'average',
        polyak: float = 0.1,
        centres: int = 100,
        width: float = 1.0,
        warmup: int = 10,
        refit_every: int = 5,
        backups: int = 30,
        capacity: int = 20000,
    ) -> None:
        """DR-RPO over features of its own, or a map that is given.

        Args:
            policy: ``"MlpPolicy"``, the only one.
            env: a record's name, a Gymnasium id, or an environment with flat observations and discrete actions.
            seed: decides every episode.
            ref_policy: π_ref as a function of observations [n, k] to probabilities [n, A], instead of ``reference``.
            feature_map: ψ as a function of observations [n, k] to [n, m], instead of bumps.

        Artefacts hold arrays only; an agent made with functions has to be loaded with the same ones.

        Args:
            rho: ρ, radius of total variation of every factor, at every step; larger: more cautious, 0: not
            eta: η; larger: greedier, further from the reference; counts in units of 1/reward
            beta: β; larger: explores longer
            discount: γ; larger: longer horizon, slower to settle
            ridge: λ; larger: estimates nearer 0, smaller bonus
            reference: π_ref: average: softmax of an average of the weights so far; or uniform
            polyak: how far the average moves at each refit
            centres: bumps; more: finer, slower, fewer samples of each
            width: of a bump, in units of the distance to its nearest centres; larger: smoother
            warmup: first episodes, played by the reference
            refit_every: episodes between refits; larger: faster, older policies
            backups: per refit; more: nearer the fixed point
            capacity: transitions kept, the oldest leave first
        """


class IQL(_IQL):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'expectile',
        lam: float | None = 0.7,
        temperature: float = 1.0,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'exp',
        weight_clip: float = 100.0,
        value_clip: float = 0.0,
        rescale: bool = False,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 0.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = False,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
    ) -> None:
        """Implicit value learning by expectile regression.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: the expectile, IQL's τ; ½ is the mean, larger nearer the best action
            temperature: α in units of value; kl and chi2_exact at λ = ½: larger, V nearer the mean (docs)
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
        """


class IQLearn(_IQLearn):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'expectile',
        lam: float | None = 0.5,
        temperature: float = 0.01,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'exp',
        weight_clip: float = 100.0,
        value_clip: float = 0.0,
        rescale: bool = False,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 0.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = False,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
        regulariser: float = 0.5,
    ) -> None:
        """Imitation by soft values that make the expert's the best.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: λ, see above; larger: V nearer the best recorded action, less certain
            temperature: α of the policy's entropy; larger: V counts a policy's spread for more
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
            regulariser: a of χ²; larger: recovered rewards larger, Q steeper
        """


class MBTL(_MBTL):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='steps', total_timesteps=3000000, log_every=1, eval_every=1, checkpoint_every=1, final_episodes=100, judged='greedy')
    def __init__(
        self,
        env: Any,
        learner: Any = 'ppo',
        *,
        seed: int = 0,
        device: torch.device | str = 'cpu',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        learner_kwargs: Any = None,
        strategy: str = 'mbtl',
        features: Any = None,
        n_contexts: int = 25,
        low_scale: float = 0.1,
        high_scale: float = 10.0,
        budget: int = 10,
        task_timesteps: int = 300000,
        episodes: int = 30,
        return_low: float | None = None,
        return_high: float | None = None,
        gap: str | None = None,
        theta: float = 0.005,
        compat: str | None = None,
        enough: float = 0.0,
        batch: int = 1,
        trials: int = 1,
        jobs: int = 1,
        train_envs: int = 8,
        select_every: int = 10000,
        select_episodes: int = 5,
    ) -> None:
        """Chooses source contexts, trains an agent in each, serves every context.

        Args:
            env: the name of an environment with a context, such as ``"contextual-cartpole"``, or a record.
            learner: what trains a source, a class or its name; ``"ppo"`` is SB3's.
            seed: seeds choices, every source task and every evaluation.
            hyperparameters: fields of :class:`MBTLConfig`.

        Raises:
            UserError: an environment without a context or options that do not fit it.

        Args:
            learner: what trains a source: a2c, ddpg, dqn, ppo, sac, td3, or an online agent of rlkit
            learner_kwargs: its own options, such as {gamma: 0.9}; what is not named is the learner's default
            strategy: how sources are chosen: mbtl, random, equidistant, greedy
            features: names of the context's features that vary; None: the environment's first
            n_contexts: grid points per feature; more: finer service, longer measuring
            low_scale: the grid's first point, times the feature's base
            high_scale: its last
            budget: sources trained at most
            task_timesteps: environment steps of training a source
            episodes: by which each entry of V is measured; more: less noise in whom a context is served by
            return_low: a return that counts as 0
            return_high: a return that counts as 1
            gap: fixed, estimated or directional; None: fixed, or directional where several features vary
            theta: normalised return lost per step of a grid of 100; larger: sources are spread evenly
            compat: official: the released code's Gaussian process
            enough: stop when no source promises to raise the mean normalised return by more
            batch: sources chosen at once, by a constant liar; more: to be trained side by side, chosen less well
            trials: policies trained per source with other seeds; the one with the best row is kept
            jobs: processes that train; the results do not depend on it
            train_envs: environments that SB3's ppo and a2c are trained in at once; others have one
            select_every: steps between evaluations whose best policy is kept; 0: the last policy
            select_episodes: of such an evaluation
        """


class ORPO(_ORPO):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='steps', total_timesteps=240000, log_every=6000, eval_every=12000, checkpoint_every=50000, final_episodes=100, judged='sampled')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        env: Any = None,
        ref_policy: Any = 'uniform',
        *,
        ref_env: Any = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        ref_steps: int = 9000,
        start: str = 'random',
        ref_epsilon: float = 0.0,
        divergence: str = 'sqrt_chi2',
        measure: str = 'state_action',
        coef: float = 1.0,
        scale: str = 'sigma',
        clip: float = 1000.0,
        trim: float = 0.01,
        center: bool = True,
        gamma_weighting: bool = False,
        action_side: str = 'loss',
        disc_features: Sequence[int] | None = None,
        disc_hidden_sizes: Sequence[int] = (256, 256),
        disc_epochs: int = 0,
        calibration_steps: int = 10000,
        target_kl_coef: float = 0.2,
        target_kl: float = 0.01,
        learning_rate: float = 0.0003,
        n_envs: int = 8,
        n_steps: int = 256,
        batch_size: int = 128,
        n_epochs: int = 8,
        hidden_sizes: Sequence[int] = (64, 64),
        log_std_init: float = 0.0,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        entropy_coef: float = 0.0,
        entropy_end: float = 1.0,
        value_coef: float = 0.5,
        max_grad_norm: float = 0.5,
    ) -> None:
        """PPO with a penalty for leaving the occupancy of a base policy.

        Args:
            ref_policy: π_ref: what ``agent.ref_policy`` takes, an agent of PPO's kind, or a :class:`BasePolicy`.
            ref_env: a ``VecEnv`` for π_ref, as many environments as ``env`` has; made where ``env`` is a name.

        Other parameters and errors as :class:`~rlkit.algorithms.online.OnlineAlgorithm`; also :class:`UserError` for a base
        policy of other spaces.

        Args:
            ref_policy: π_ref: uniform, scripted, true-reward (PPO for ref_steps), or an artefact
            ref_steps: steps of true-reward; more: a better base policy
            start: the policy's first actor: random, or base: π_ref itself
            ref_epsilon: probability that π_ref acts at random; larger: wider support, worse base policy
            divergence: sqrt_chi2, chi2, kl, tv, or none for PPO on the proxy
            measure: state_action, state, or action for divergences of action distributions
            coef: λ in units of scale; larger: nearer to π_ref, negative: away from it
            scale: λ is coef times the proxy's deviation under π_ref (sigma), its mean size (mean), or 1 (none)
            clip: B, bound of what is added to a reward
            trim: share of each tail left out of χ²
            center: subtract 1 from e^d; False: the paper's form, a bonus for dying where episodes end early
            gamma_weighting: weight the discriminator's samples by γ^t, as occupancies are defined
            action_side: where measure=action acts: loss or reward
            disc_features: entries of the flat observation that d sees; all where None
            disc_hidden_sizes: widths of d
            disc_epochs: passes of d over a batch, 0: as many as PPO's; more: d fits sooner and overfits
            calibration_steps: steps of π_ref from which σ is measured
            target_kl_coef: first weight of KL(π_old ‖ π), adapted to target_kl; 0: none
            target_kl: KL of an update above twice (below half) of which that weight grows (shrinks)
            learning_rate: of policy and discriminator; larger: faster and less stable
            n_envs: environments, and as many of π_ref
            n_steps: steps of each per iteration; more: better estimates, rarer updates
            batch_size: of a minibatch
            n_epochs: passes over a batch; more: further from the policy that made it
            hidden_sizes: widths of the policy and, apart, of its value
            log_std_init: logarithm of the first deviation of continuous actions
            discount: larger: longer horizon
            gae_lambda: larger: less biased, noisier advantages
            clip_range: PPO's; larger: longer steps
            entropy_coef: larger: more random policy
            entropy_end: entropy_coef goes linearly to this share of itself; smaller: less random at the end
            value_coef: weight of the value loss
            max_grad_norm: of policy and discriminator
        """


class PRDC(_PRDC):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = True,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        critic_hidden_sizes: Sequence[int] | None = None,
        alpha: float = 2.5,
        discount: float = 0.99,
        polyak: float = 0.005,
        target_noise: float = 0.2,
        target_clip: float = 0.5,
        actor_delay: int = 2,
        beta: float = 2.0,
        max_list: int = 1024,
        memory_gb: float = 2.0,
        search: str = 'auto',
    ) -> None:
        """Offline TD3 whose actions are held to those of the nearest rows of the data.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            critic_hidden_sizes: None: hidden_sizes; A2PR's control needs deeper critics
            alpha: weight of the value against imitation; larger: further from the data
            discount: larger: longer horizon, noisier targets
            polyak: how far the targets move at each actor step
            target_noise: smoothing of the target policy, for actions in [-1, 1]
            target_clip: bound on that smoothing, same units
            actor_delay: critic steps per actor step
            beta: weight of the state in the distance; larger: nearer to TD3+BC
            max_list: neighbours remembered per row; larger: more memory, fewer tree searches
            memory_gb: bound on all remembered neighbours together
            search: lists on a processor, products on a GPU; auto: as the device is.  The answers are the same
        """


class PtrNet(_PtrNet):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=30000, log_every=500, eval_every=1000, checkpoint_every=5000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = 'cpu',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        training: str = 'supervised',
        network: str = 'lstm',
        order: str = 'given',
        sizes: Sequence[int] = (0, 0),
        curriculum: int = 0,
        batch_size: int = 128,
        hidden_size: int = 0,
        init_range: float = 0.0,
        layers: int = 3,
        heads: int = 8,
        optimiser: str = 'adam',
        learning_rate: float = 0.0,
        decay: float = 0.96,
        decay_steps: int = 5000,
        max_grad_norm: float = 0.0,
        labels: str = '',
        train_size: int = 100000,
        augment: bool = True,
        baseline: str = 'critic',
        samples: int = 4,
        ema_decay: float = 0.99,
        glimpses: int = 0,
        logit_clip: float = 10.0,
        epoch: int = 2500,
        challenge_size: int = 10000,
        beam: int = 1,
    ) -> None:
        """A pointer network, taught by labels or by its own returns.

        Args:
            policy: ``"MultiInputPolicy"``, the only one.
            env: a record's name (``tsp``, ``convex-hull``, ``delaunay``), a Gymnasium id, or an environment; one of tsp
                must have been made with ``observe_sequence=True``.
            seed: decides weights, instances and samples.

        Raises:
            UserError: another environment, labels that do not fit, or values out of range.

        Args:
            training: supervised, or reinforce (tsp only)
            network: lstm, or attention (tsp only): the attention model of Kool et al.
            order: in which LSTMs read points: as given, by angle around their mean, or lexicographic
            sizes: fewest and most nodes of a batch, uniformly; 0, 0: the environment's number
            curriculum: updates over which the fewest nodes rise to the most; 0: they stay
            batch_size: instances per update (tours with baseline=samples); higher: steadier and slower
            hidden_size: units of the LSTMs, or width of attention; 0: 256, or 128 for reinforce and for attention
            init_range: LSTMs' first weights are uniform on ± this; 0: 0.08, or 0.25 for reinforce (see below)
            layers: of network=attention; more: better, slower in proportion
            heads: of network=attention
            optimiser: adam, or sgd as Vinyals et al.
            learning_rate: 0: 1e-3, or 1.0 for sgd; Bello et al. have 1e-4 for 100 cities
            decay: the learning rate is multiplied by this ...
            decay_steps: ... every so many updates; lower for short runs
            max_grad_norm: gradients are cut to this norm; 0: 2.0, or 1.0 for reinforce
            labels: supervised tsp: files of rlkit.envs.combinatorial.labels with commas between, one for each size
            train_size: supervised tsp without labels, up to 12 cities: instances solved exactly beforehand
            augment: supervised tsp: solved instances are turned, reflected and reordered at random
            baseline: of reinforce: critic, ema, rollout or samples
            samples: of baseline=samples: tours of an instance, of which there are batch_size / samples
            ema_decay: of baseline=ema; higher: remembers longer
            glimpses: of reinforce with network=lstm: looks before each pointer; Bello et al. have 1 (see below)
            logit_clip: of reinforce: C tanh(u); lower explores more, 0 does not clip
            epoch: of baseline=rollout: updates between two challenges
            challenge_size: of baseline=rollout: instances that decide one
            beam: walks that evaluations keep; more: more probable answers, more slowly
        """


class ReCOIL(_ReCOIL):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 1024,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'kl',
        lam: float | None = 0.5,
        temperature: float = 1.0,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'exp',
        weight_clip: float = 100.0,
        value_clip: float = 7.0,
        rescale: bool = True,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 0.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = False,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
        q_loss: str = 'lsiq',
        bound_values: bool = False,
        mixture: float = 0.5,
    ) -> None:
        """Imitation of a few demonstrations among much other data, without a discriminator.

        Args:
            batch_size: of the pool, and as many of the expert
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: λ, see above; larger: V nearer the best recorded action, less certain
            temperature: α of V's loss; raise through 2.5, 5, 10, 20 until Q stops diverging; larger: V lower
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
            q_loss: lsiq: the code's, Q within ± 2/(1-γ); contrastive: the paper's, Q on no fixed scale
            bound_values: lsiq: δ and y take V within ± V_max, where it belongs; false as the authors' code
            mixture: β, contrastive alone: weight of the expert in both mixtures; larger: trusts the few more
        """


class SMODICE(_SMODICE):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 512,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = True,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'kl',
        discount: float = 0.99,
        gradient_penalty: float = 10.0,
        bootstrap_absorbing: bool = False,
        value_decay: float = 0.0001,
        weight_clip: float = 100.0,
        decay_steps: int = 0,
    ) -> None:
        """Imitation of a few demonstrations among much other data, by a discriminator's rewards.

        Args:
            batch_size: of the pool, and as many of the expert and of first states
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl: sharp weights; chi2: weights of 0 for what is unlike the expert, steadier
            discount: larger: longer horizon
            gradient_penalty: larger: smoother rewards, which tell the parts apart less
            bootstrap_absorbing: true: V of the absorbing state counts behind terminal states and behind itself
            value_decay: L2 on V; larger: V nearer 0
            weight_clip: largest weight of one sample
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
        """


class SQL(_SQL):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'chi2_exact',
        lam: float | None = 0.5,
        temperature: float = 1.0,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'relu',
        weight_clip: float = 100.0,
        value_clip: float = 0.0,
        rescale: bool = False,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 0.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = True,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
    ) -> None:
        """Implicit value learning whose policy leaves out poor actions.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: ½ is SQL: weights of mean 1
            temperature: α; larger: V nearer the data's mean, fewer weights at 0
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: relu: max(δ, 0); ratio: the paper's max(1 + δ/(2α), 0); exp: e^(κδ)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
        """


class TD3BC(_TD3BC):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = True,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        critic_hidden_sizes: Sequence[int] | None = None,
        alpha: float = 2.5,
        discount: float = 0.99,
        polyak: float = 0.005,
        target_noise: float = 0.2,
        target_clip: float = 0.5,
        actor_delay: int = 2,
    ) -> None:
        """Offline TD3 with a term that clones the data's actions.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            critic_hidden_sizes: None: hidden_sizes; A2PR's control needs deeper critics
            alpha: weight of the value against imitation; larger: further from the data
            discount: larger: longer horizon, noisier targets
            polyak: how far the targets move at each actor step
            target_noise: smoothing of the target policy, for actions in [-1, 1]
            target_clip: bound on that smoothing, same units
            actor_delay: critic steps per actor step
        """


class VaGraM(_VaGraM):
    learns_from: ClassVar[str] = 'environment'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='steps', total_timesteps=125000, log_every=1000, eval_every=2500, checkpoint_every=5000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        model_loss: str = 'vagram',
        members: int = 7,
        elites: int = 5,
        model_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        model_learning_rate: float = 0.001,
        model_l2: float = 5e-05,
        model_batch_size: int = 1024,
        patience: int = 10,
        max_epochs: int | None = None,
        gradient_quantile: float = 0.95,
        refit_every: int = 250,
        rollout_batch: int = 100000,
        rollout_schedule: Sequence[float] = (20.0, 150.0, 1.0, 5.0),
        model_share_schedule: Sequence[float] = (0.0, 20.0, 0.0, 0.95),
        epochs_retained: int = 1,
        real_ratio: float | None = None,
        termination: str = 'auto',
        behaviour: str = 'sample',
        updates_per_step: int = 20,
        learning_starts: int = 10000,
        batch_size: int = 256,
        buffer_size: int = 1000000,
        hidden_sizes: Sequence[int] = (256, 256),
        discount: float = 0.99,
        polyak: float = 0.005,
        actor_learning_rate: float = 3e-05,
        critic_learning_rate: float = 0.0003,
        entropy_learning_rate: float = 0.0003,
        initial_entropy: float = 0.1,
        target_entropy: float = -1.0,
        actor_every: int = 1,
        target_every: int = 4,
        feature_l2norm: bool = False,
    ) -> None:
        """SAC on short roll-outs of a model that is fitted where the value function is steep.

        Args:
            model_loss: vagram, mle (MBPO), mse, taylor, itervaml, calibrated, or none: SAC alone
            members: networks of the ensemble
            elites: of which this many roll out
            model_hidden_sizes: smaller: a model that must choose what to be right about
            model_learning_rate: larger: faster and less stable fits
            model_l2: weight decay of the model, as an L2 term
            model_batch_size: rows of one step of a fit, per member
            patience: epochs without an improvement of 1 % before a fit ends
            max_epochs: of one fit; None: as long as it improves
            gradient_quantile: norms of value gradients are clipped at this quantile; larger: less clipping
            refit_every: steps between fits
            rollout_batch: real states rolled out after a fit
            rollout_schedule: model steps k: epochs x0, x1 and lengths y0, y1 between them
            model_share_schedule: probability p of a model batch, likewise
            epochs_retained: epochs of model rows remembered
            real_ratio: share of real rows within every batch (Janner's MBPO), instead of p
            termination: auto: the task's; hopper, walker2d, ant, inverted-pendulum or never
            behaviour: sample, or mean: actions while exploring
            updates_per_step: SAC updates per environment step
            learning_starts: first steps, acted by the untrained policy
            batch_size: larger: smoother gradients, slower updates
            buffer_size: real transitions remembered
            hidden_sizes: widths of actor and critics; the authors' are 1024
            discount: larger: longer horizon, noisier targets
            polyak: how far the targets move
            actor_learning_rate: larger: faster and less stable
            critic_learning_rate: likewise
            entropy_learning_rate: likewise, of α
            initial_entropy: α at the start
            target_entropy: entropy that α steers to; larger: noisier actions
            actor_every: updates per actor update
            target_every: updates per movement of the targets
            feature_l2norm: scale the last hidden layers to length 1, as the authors' newest code does
        """


class XQL(_XQL):
    learns_from: ClassVar[str] = 'data'
    defaults: ClassVar[RunDefaults] = RunDefaults(unit='updates', total_timesteps=1000000, log_every=1000, eval_every=5000, checkpoint_every=50000, final_episodes=100, judged='greedy')
    def __init__(
        self,
        policy: str = 'MlpPolicy',
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = 'auto',
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.0003,
        hidden_sizes: Sequence[int] = (256, 256),
        normalise_observations: bool = False,
        reward_scale: float | None = None,
        reward_shift: float | None = None,
        compile: bool = False,
        divergence: str = 'kl',
        lam: float | None = 0.5,
        temperature: float = 2.0,
        inverse_temperature: float = 3.0,
        actor_weight: str = 'exp',
        weight_clip: float = 100.0,
        value_clip: float = 7.0,
        rescale: bool = True,
        value_updates: int = 1,
        uniform_actions: bool = False,
        huber: float = 20.0,
        discount: float = 0.99,
        polyak: float = 0.005,
        value_layer_norm: bool = True,
        critic_layer_norm: bool = False,
        actor_dropout: float = 0.0,
        decay_steps: int = 1000000,
        reward_scaling: str = 'none',
    ) -> None:
        """Implicit value learning by Gumbel regression.

        Args:
            batch_size: larger: smoother gradients, slower updates
            learning_rate: larger: faster and less stable
            hidden_sizes: widths of every network's hidden layers
            normalise_observations: (s - mean) / (std + 1e-3) over the dataset, also at evaluation
            reward_scale: what the learner sees is scale * reward + shift; None: the data's convention
            reward_shift: likewise; scores are always of the rewards as they are
            compile: on a processor: updates as one compiled program, seconds at the start, faster after
            divergence: kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
            lam: ½ is XQL: weights e^(δ/α) of mean 1
            temperature: α, XQL's β; larger: V nearer the data's mean, steadier
            inverse_temperature: κ; larger: the policy keeps to the best actions, of fewer samples
            actor_weight: exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
            weight_clip: largest weight of one sample
            value_clip: bound on δ/α; smaller: steadier, V biased low; 0: none
            rescale: kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
            value_updates: value steps per update, on the same batch
            uniform_actions: V over the data's actions and as many uniform ones: lower, smoother
            huber: errors of Q beyond count linearly; 0: squared error throughout
            discount: larger: longer horizon, noisier targets
            polyak: how far the target critics move at each update
            value_layer_norm: layer normalisation in V: slower, smoother
            critic_layer_norm: the same in Q
            actor_dropout: share of the actor's hidden units dropped in training
            decay_steps: updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
            reward_scaling: return_range: rewards x 1000 / (largest - smallest return of an episode)
        """
