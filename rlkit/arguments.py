"""What the keywords of an environment may be: the gate for settings that come from files and command lines.

An environment's record declares its keywords, each an :class:`Argument`.  A file can choose among the values declared;
it can name no other keyword, and so no module, callable, file or id to load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlkit.errors import UserError, nearest, shown

INF = math.inf
MOST_FEATURES = 64  # entries of a sequence or mapping


@dataclass(frozen=True)
class Argument:
    """One keyword; ``kind`` is bool, int, float, str (one of ``choices``), or dict (numbers by names of ``choices``).

    Numbers lie in [``low``, ``high``] and are finite unless a bound is infinite and they are that bound.  With
    ``length``, the fewest and most entries, the value is a sequence of ``kind``.  ``optional`` allows None.
    """

    kind: type
    low: int | float = -1e12
    high: int | float = 1e12
    choices: tuple[str, ...] = ()
    length: tuple[int, int] | None = None
    optional: bool = False

    def check(self, value: Any, where: str) -> Any:
        """``value`` if it is one of those declared (a YAML ``true`` where "true" is a choice becomes that word).

        Raises :class:`UserError` with ``where`` for any other.
        """
        if value is None and self.optional:
            return None
        if self.length is not None:
            low, high = self.length
            if isinstance(value, (list, tuple)) and low <= len(value) <= high:
                return type(value)(self._one(entry, where) for entry in value)
            raise self._refusal(value, where)
        if self.kind is dict:
            if isinstance(value, Mapping) and len(value) <= MOST_FEATURES:
                return {self._name(name, where): self._number(number, where) for name, number in value.items()}
            raise self._refusal(value, where)
        return self._one(value, where)

    def _one(self, value: Any, where: str) -> Any:
        if self.kind is bool:
            if isinstance(value, bool):
                return value
        elif self.kind is str:
            word = str(value).lower() if isinstance(value, bool) else value
            if isinstance(word, str) and word in self.choices:
                return word
        else:
            return self._number(value, where)
        raise self._refusal(value, where)

    def _number(self, value: Any, where: str) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if (whole or (self.kind is not int and isinstance(value, float))) and self.low <= value <= self.high:
            return value
        raise self._refusal(value, where)

    def _name(self, name: Any, where: str) -> str:
        if name not in self.choices:
            raise UserError(f"{where}: unknown name {shown(name)}{nearest(str(name), self.choices)}")
        return name

    def _refusal(self, value: Any, where: str) -> UserError:
        return UserError(f"{where}={shown(value)} is not allowed, expected {self._expected()}")

    def _expected(self) -> str:
        words = {bool: "true or false", int: "a whole number", float: "a number", dict: "numbers by name"}
        text = " or ".join(self.choices) if self.kind is str else words[self.kind]
        if self.kind is dict:
            text += f" ({', '.join(self.choices)})"
        elif self.kind in (int, float) and (self.low > -1e12 or self.high < 1e12):
            text += f" from {self.low:g} to {self.high:g}" if self.high < 1e12 else f" of at least {self.low:g}"
        if self.length is not None:
            fewest, most = self.length
            text = f"{fewest if fewest == most else f'{fewest} to {most}'} values, each {text}"
        return f"{text} or null" if self.optional else text


REWARD = Argument(str, choices=("proxy", "true"))
_PAIR = Argument(float, -INF, INF, length=(2, 2))
_WEIGHT = Argument(float)
# Gymnasium's MuJoCo tasks: what changes rewards, ends and observations.  Keywords that name files are not among them.
MUJOCO: Mapping[str, Argument] = {
    "frame_skip": Argument(int, 1, 100),
    "reset_noise_scale": Argument(float, 0, 100),
    "healthy_reward": _WEIGHT,
    "terminate_when_unhealthy": Argument(bool),
    **{f"healthy_{what}_range": _PAIR for what in ("z", "angle", "state")},
    **{f"contact_{what}_range": _PAIR for what in ("force", "cost")},
    "impact_cost_range": _PAIR,
    **{
        f"{what}_weight": _WEIGHT for what in ("forward_reward", "ctrl_cost", "contact_cost", "uph_cost", "impact_cost")
    },
    **{f"reward_{what}_weight": _WEIGHT for what in ("near", "dist", "control")},
    "exclude_current_positions_from_observation": Argument(bool),
    **{f"include_{what}_in_observation": Argument(bool) for what in ("cfrc_ext", "cinert", "cvel", "qfrc_actuator")},
}
# Gymnasium's own ids without a record here, by the start of their entry points.
GYMNASIUM: Mapping[str, Mapping[str, Argument]] = {
    "gymnasium.envs.mujoco": MUJOCO,
    "gymnasium.envs.classic_control.pendulum": {"g": Argument(float, 0, 1000)},
    "gymnasium.envs.classic_control.cartpole": {"sutton_barto_reward": Argument(bool)},
    "gymnasium.envs.classic_control": {"goal_velocity": Argument(float, -10, 10)},
    "gymnasium.envs.box2d.bipedal_walker": {"hardcore": Argument(bool)},
    "gymnasium.envs.box2d.lunar_lander": {
        "continuous": Argument(bool),
        "gravity": Argument(float, -12, 0),
        "enable_wind": Argument(bool),
        "wind_power": Argument(float, 0, 100),
        "turbulence_power": Argument(float, 0, 100),
    },
    "gymnasium.envs.toy_text.frozen_lake": {
        "map_name": Argument(str, choices=("4x4", "8x8")),
        "is_slippery": Argument(bool),
    },
}


def checked(settings: Any, known: Mapping[str, Argument], where: str) -> dict[str, Any]:
    """``settings`` as a dict once each is a keyword of ``known`` with a value that it declares.

    Raises :class:`UserError` that begins with ``where``.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}={shown(settings)} is not allowed, expected keywords with values")
    found = {}
    for name, value in settings.items():
        if name not in known:
            hint = nearest(str(name), known) or ("" if known else " (it takes none)")
            raise UserError(f"{where}: the environment takes no keyword {shown(name)}{hint}")
        found[name] = known[name].check(value, f"{where}.{name}")
    return found
