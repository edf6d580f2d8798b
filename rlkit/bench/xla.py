"""TD3+BC in JAX, as fast as one writes it: many updates in one ``lax.scan``, compiled by XLA, batches drawn inside.

The same method, networks and batch as :mod:`rlkit.agents.td3bc`, from weights of its own: what an update takes does not
depend on them.  A pair of updates is the body of the scan, so that the actor's step needs no branch.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
from typing import Any

import numpy as np

from rlkit.bench.measure import PeerMissing, Settings
from rlkit.errors import install_extra

DISCOUNT, TAU, RATE, BETA1, BETA2, EPS = 0.99, 0.005, 3e-4, 0.9, 0.999, 1e-8
NOISE, CLIP = 0.2, 0.5


def import_jax(threads: int, platform: str) -> Any:
    """JAX on ``platform``, cpu or cuda; with one thread XLA's products on the processor are kept to it too.

    Raises :class:`PeerMissing` where it is not installed, or without that platform.
    """
    if threads == 1 and "xla_cpu_multi_thread_eigen" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    try:
        jax = importlib.import_module("jax")
    except ModuleNotFoundError as error:
        if error.name != "jax":
            raise
        raise PeerMissing(f"peer not installed: {install_extra('bench')}") from None
    try:
        jax.config.update("jax_default_device", jax.devices(platform)[0])
    except RuntimeError:
        raise PeerMissing(f"not measured: JAX is installed without {platform}") from None
    return jax


class JaxTD3BC:
    """:meth:`updates` of TD3+BC over packed ``rows [N, width]`` with ``ds`` observations and ``da`` actions."""

    def __init__(self, rows: np.ndarray, ds: int, da: int, alpha: float, settings: Settings, platform: str = "cpu"):
        self.jax = import_jax(settings.threads, platform)
        self.ds, self.da, self.alpha, self.batch_size = ds, da, alpha, settings.batch_size
        self.rows = self.jax.numpy.asarray(rows)
        generator = np.random.default_rng(0)
        actor = _network(generator, [ds, 256, 256, da])
        critics = [_network(generator, [ds + da, 256, 256, 1]) for _ in range(2)]
        tree = self.jax.tree_util.tree_map
        fresh = {"actor": actor, "critics": critics}
        self.state = tree(
            self.jax.numpy.array,
            {
                "online": fresh,
                "target": fresh,
                "means": tree(np.zeros_like, fresh),
                "squares": tree(np.zeros_like, fresh),
                "steps": np.float32(0),
            },
        )
        self.state["key"] = self.jax.random.key(0)
        self.run = self.jax.jit(self._run, static_argnums=1, donate_argnums=0)

    def updates(self, n: int) -> None:
        """``n`` updates, an even number; returns when they are done."""
        self.state, losses = self.run(self.state, n)
        losses.block_until_ready()

    def _run(self, state: Any, n: int) -> Any:
        def pair(state: Any, _: Any) -> Any:
            state, first = self._update(state, actor=False)
            state, second = self._update(state, actor=True)
            return state, first + second

        state, losses = self.jax.lax.scan(pair, state, None, length=n // 2)
        return state, losses.mean()

    def _act(self, layers: Any, s: Any) -> Any:
        return self.jax.numpy.tanh(self._forward(layers, s))

    def _forward(self, layers: Any, x: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = self.jax.nn.relu(x @ weight + bias)
        return x @ layers[-1][0] + layers[-1][1]

    def _values(self, critics: Any, s: Any, a: Any) -> list[Any]:
        x = self.jax.numpy.concatenate([s, a], axis=1)
        return [self._forward(layers, x) for layers in critics]

    def _update(self, state: Any, actor: bool) -> Any:
        jnp, random, ds, da = self.jax.numpy, self.jax.random, self.ds, self.da
        key, for_rows, for_noise = random.split(state["key"], 3)
        drawn = self.rows[random.randint(for_rows, (self.batch_size,), 0, len(self.rows))]  # [batch, width]
        s, a, r, alive, s2 = jnp.split(drawn, [ds, ds + da, ds + da + 1, ds + da + 2], axis=1)
        online, target = dict(state["online"]), state["target"]
        noise = jnp.clip(NOISE * random.normal(for_noise, a.shape), -CLIP, CLIP)
        a2 = jnp.clip(self._act(target["actor"], s2) + noise, -1, 1)
        y = r + DISCOUNT * alive * jnp.minimum(*self._values(target["critics"], s2, a2))

        def critic_loss(critics: Any) -> Any:
            return sum(((q - y) ** 2).mean() for q in self._values(critics, s, a))

        steps = state["steps"] + 1
        state = {**state, "key": key, "steps": steps, "means": dict(state["means"]), "squares": dict(state["squares"])}
        loss, gradients = self.jax.value_and_grad(critic_loss)(online["critics"])
        self._adam(state, online, "critics", gradients, steps)
        if actor:

            def actor_loss(layers: Any) -> Any:
                proposed = self._act(layers, s)
                q = self._forward(online["critics"][0], jnp.concatenate([s, proposed], axis=1))
                weight = self.alpha / self.jax.lax.stop_gradient(jnp.abs(q).mean())
                return -weight * q.mean() + ((proposed - a) ** 2).mean()

            self._adam(state, online, "actor", self.jax.grad(actor_loss)(online["actor"]), steps / 2)
            state["target"] = self.jax.tree_util.tree_map(lambda t, o: t + TAU * (o - t), target, online)
        return {**state, "online": online}, loss

    def _adam(self, state: Any, online: Any, name: str, gradients: Any, steps: Any) -> None:
        tree, sqrt = self.jax.tree_util.tree_map, self.jax.numpy.sqrt
        m = state["means"][name] = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, state["means"][name], gradients)
        v = state["squares"][name] = tree(
            lambda v, g: BETA2 * v + (1 - BETA2) * g * g, state["squares"][name], gradients
        )
        one, two = 1 - BETA1**steps, 1 - BETA2**steps
        online[name] = tree(lambda p, m, v: p - RATE * (m / one) / (sqrt(v / two) + EPS), online[name], m, v)


def _network(generator: np.random.Generator, sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        bound = 1 / math.sqrt(inputs)
        weight, bias = (generator.uniform(-bound, bound, shape) for shape in ((inputs, outputs), (outputs,)))
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
    return layers
