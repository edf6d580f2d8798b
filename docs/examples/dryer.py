"""A drying tunnel with a fan in percent and a heater in kilowatts: it writes a log of its operators, or tries a policy.

    python dryer.py record dryer.csv        200 shifts of 60 minutes, one row a minute
    python dryer.py try policy.onnx         the policy in place of the operators, on shifts that nobody recorded

Air above 95 degrees trips the heater and ends the shift.  A minute is worth most where the goods leave at 12 %
moisture, less what the two actuators draw.
"""

import csv
import sys
from pathlib import Path

import numpy as np

COLUMNS = ["run", "t", "moisture", "air", "feed", "fan", "heater", "profit", "done"]
BOUNDS = np.array([[0.0, 100.0], [0.0, 12.0]])  # of fan, %, and heater, kW
MINUTES = 60


def begin(random):
    """Moisture in %, air in degrees C, moisture of what is fed in."""
    return np.array([random.uniform(14, 26), random.uniform(40, 70), random.uniform(24, 36)])


def step(state, action, random):
    """The state a minute later, what the minute was worth, and whether the heater tripped."""
    moisture, air, feed = state
    fan, heater = action[0] / 100, action[1]
    dried = 0.08 * (0.2 + fan) * max(air - 25, 0) * moisture / 20
    moisture = np.clip(moisture + 0.12 * (feed - moisture) - dried, 0, 40)
    air = air + 1.4 * heater - 0.15 * (0.4 + fan) * (air - 20) + 0.3 * random.normal()
    feed = np.clip(feed + 0.15 * (30 - feed) + 1.2 * random.normal(), 20, 40)
    tripped = air > 95
    profit = 1 - ((moisture - 12) / 4) ** 2 - 0.04 * heater - 0.2 * fan - 20 * tripped
    return np.array([moisture, air, feed]), profit, tripped


def operators(random):
    """One shift's operator: a rule of thumb with habits of their own, and an unsteady hand."""
    habit = random.normal(size=2) * [12, 1.2]
    care = random.uniform(0.2, 1.2)

    def act(state):
        wet = state[0] - 12
        wanted = [55 + 3 * care * wet, 4.5 + 0.6 * care * wet] + habit + random.normal(size=2) * [8, 0.8]
        return np.clip(wanted, *BOUNDS.T)

    return act


def shift(act, random):
    """The rows of a shift: state, action, profit, tripped."""
    state, rows = begin(random), []
    for _ in range(MINUTES):
        action = act(state)
        following, profit, tripped = step(state, action, random)
        rows.append([*state, *action, profit, int(tripped)])
        state = following
        if tripped:
            break
    return rows


def record(path, shifts=200):
    random = np.random.default_rng(0)
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(shifts):
            for minute, row in enumerate(shift(operators(random), random)):
                writer.writerow([number, minute, *(f"{value:.6g}" for value in row)])


def try_out(path, shifts=200):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)

    def act(state):
        return session.run(None, {"observations": state[None].astype(np.float32)})[0][0]

    for name, policy in (("operators", None), (path, act)):
        random = np.random.default_rng(1)
        rows = [np.array(shift(policy or operators(random), random)) for _ in range(shifts)]
        actions = np.concatenate(rows)[:, 3:5]
        assert (actions >= BOUNDS[:, 0]).all() and (actions <= BOUNDS[:, 1]).all(), "an actuator was asked too much"
        worth, trips = np.mean([found[:, 5].sum() for found in rows]), sum(int(found[-1, 6]) for found in rows)
        low, high = actions.min(axis=0), actions.max(axis=0)
        used = f"fan {low[0]:.0f} to {high[0]:.0f} %, heater {low[1]:.1f} to {high[1]:.1f} kW"
        print(f"{name}: {worth:.1f} a shift, {trips} of {shifts} tripped, {used}")


if __name__ == "__main__":
    {"record": record, "try": try_out}[sys.argv[1]](sys.argv[2])
