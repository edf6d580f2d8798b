"""DR-RPO's bad input: hyperparameters, references and features, each refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from rlkit.agents.drrpo.core import DRRPOConfig, Planner
from rlkit.envs.robust import american_put as put
from rlkit.envs.robust.linear_mdp import LinearMDP, LinearMDPEnv
from rlkit.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rho": -0.1}, r"agent\.rho=-0\.1 is out of range, expected a number from 0 to 1"),
        ({"rho": 1.2}, r"agent\.rho=1\.2 is out of range, expected a number from 0 to 1"),
        ({"eta": 0.0}, r"agent\.eta=0\.0 is out of range, expected a number above 0"),
        ({"eta": -3.0}, r"agent\.eta=-3\.0 is out of range"),
        ({"beta": -1.0}, r"agent\.beta=-1\.0 is out of range, expected a number of at least 0"),
        ({"ridge": 0.0}, r"agent\.ridge=0\.0 is out of range"),
        ({"method": "dr-lsvi"}, "agent.method=dr-lsvi is unknown, expected one of .*; did you mean 'dr-lsvi-ucb'"),
        ({"bonus": "ellipse"}, "agent.bonus=ellipse is unknown"),
        ({"refresh": "never"}, "agent.refresh=never is unknown"),
        ({"cap": "none"}, "agent.cap=none is unknown"),
        ({"reference": [0.5, 0.5, 0.0]}, "lacks full support, expected positive probabilities that sum to 1"),
        ({"reference": [0.5, 0.6]}, "lacks full support"),
    ],
)
def test_bad_hyperparameters_get_a_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DRRPOConfig(**options)


def test_configurations_that_do_not_fit_the_problem_get_a_sentence() -> None:
    with pytest.raises(UserError, match=r"agent\.reference has 2 entries, expected 16"):
        Planner(LinearMDP(), DRRPOConfig(reference=[0.5, 0.5]))
    with pytest.raises(UserError, match=r"agent\.cap=tight needs rewards bounded step by step"):
        Planner(put.AmericanPut(), DRRPOConfig(cap="tight"))
    deterministic = np.eye(16)[3]
    planner = Planner(LinearMDP(), DRRPOConfig(), lambda observations: np.tile(deterministic, (len(observations), 1)))
    with pytest.raises(UserError, match=r"reference policy=.* lacks full support"):
        planner.run_episode(planner.initial(0), LinearMDPEnv())


def test_bad_features_get_a_sentence() -> None:
    class Bad(LinearMDP):
        change = np.zeros(4)

        def describe(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            phi, known = super().describe(observations)
            return phi + self.change, known

    problem = Bad()
    for change, sentence in (
        (np.array([0.0, 0.0, -0.1, 0.1]), "features: the smallest is -0.1, expected none below 0"),
        (np.full(4, 0.1), "features: those of one action sum to 1.4, expected 1"),
    ):
        Bad.change = change
        planner = Planner(problem, DRRPOConfig())
        with pytest.raises(UserError, match=sentence):
            planner.run_episode(planner.initial(0), LinearMDPEnv())
