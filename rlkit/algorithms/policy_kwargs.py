"""SB3's ``policy_kwargs`` as hyperparameters: what has one is used, what has none is refused by its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlkit.errors import UserError, nearest, shown

# SB3's keys, each with the hyperparameters that say the same where an agent has them.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "net_arch": ("hidden_sizes", "hidden_size", "width"),
    "activation_fn": (),
    "optimizer_class": (),
    "optimizer_kwargs": ("learning_rate", "actor_learning_rate", "critic_learning_rate", "weight_decay", "value_decay"),
    "n_critics": ("backbone",),
    "log_std_init": ("log_std_init",),
    "features_extractor_class": (),
    "features_extractor_kwargs": (),
    "share_features_extractor": (),
    "normalize_images": (),
    "squash_output": (),
    "ortho_init": (),
    "use_sde": (),
    "use_expln": (),
    "full_std": (),
    "clip_mean": (),
}


def with_policy_kwargs(cls: type[Any], policy_kwargs: Any, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """``hyperparameters`` of the agent ``cls`` and those that ``policy_kwargs`` stands for.

    Raises :class:`UserError` for keys that SB3 does not know, for those that the agent has no use for, and for what is
    given twice.
    """
    if policy_kwargs is None:
        return dict(hyperparameters)
    if not isinstance(policy_kwargs, Mapping):
        raise UserError(f"policy_kwargs={shown(policy_kwargs)} is not allowed, expected SB3's keys with values")
    has = {f.name for f in fields(cls.Config)}
    found: dict[str, Any] = {}
    for key, value in policy_kwargs.items():
        if key not in KNOWN:
            raise UserError(f"unknown key {shown(key)} of policy_kwargs{nearest(str(key), KNOWN)}")
        if key == "net_arch" and "hidden_sizes" in has:
            found |= _widths(cls, value, has)
        elif key in has:
            found[key] = value
        else:
            others = " or ".join(f"agent.{name}" for name in KNOWN[key] if name in has)
            expected = f"expected {others} instead" if others else "expected it left out"
            raise UserError(f"{cls.name} does not take {key}={shown(value)} of policy_kwargs, {expected}")
    for name in found.keys() & hyperparameters.keys():
        raise UserError(f"agent.{name} is given twice, by policy_kwargs too, expected one of them")
    return {**hyperparameters, **found}


def _widths(cls: type[Any], value: Any, has: Collection[str]) -> dict[str, Any]:
    """``net_arch``: widths of all networks, or those of actor and critics by SB3's names."""
    if not isinstance(value, Mapping):
        if not isinstance(value, Sequence) or any(isinstance(entry, (str, Mapping)) for entry in value):
            raise UserError(f"net_arch={shown(value)} of policy_kwargs is not allowed, expected widths like [256, 256]")
        return {"hidden_sizes": value}
    critic = "vf" if issubclass(cls, OnPolicyAlgorithm) else "qf"
    if set(value) != {"pi", critic}:
        raise UserError(f"net_arch={shown(value)} of policy_kwargs is not allowed, expected 'pi' and '{critic}' in it")
    if "critic_hidden_sizes" in has:
        return {"hidden_sizes": value["pi"], "critic_hidden_sizes": value[critic]}
    if value["pi"] != value[critic]:
        raise UserError(
            f"net_arch={shown(value)} of policy_kwargs differs between networks, {cls.name} has one agent.hidden_sizes "
            "for all"
        )
    return {"hidden_sizes": value["pi"]}
