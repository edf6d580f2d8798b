"""``rlkit eval RUN|ARTEFACT [env=NAME] [episodes=100] [seed=0]``: play, and print scores with their interval."""

from __future__ import annotations

from pathlib import Path

from rlkit.errors import UserError, nearest

KEYS = ("env", "episodes", "seed")


def main(argv: list[str]) -> int:
    targets = [a for a in argv if "=" not in a]
    settings = dict(a.split("=", 1) for a in argv if "=" in a)
    for key in settings:
        if key not in KEYS:
            raise UserError(f"unknown key '{key}'{nearest(key, KEYS)}")
    if len(targets) != 1:
        raise UserError("usage: rlkit eval RUN|ARTEFACT [env=NAME] [episodes=100] [seed=0]")
    numbers = {}
    for key, default in (("episodes", "100"), ("seed", "0")):
        text = settings.get(key, default)
        least = 1 if key == "episodes" else 0
        if not text.isdigit() or int(text) < least:
            raise UserError(f"{key}={text} is out of range, expected a whole number of at least {least}")
        numbers[key] = int(text)

    from rlkit import registry
    from rlkit.checkpoint import read_artefact
    from rlkit.evaluate import Evaluator
    from rlkit.persistent import Persistent
    from rlkit.stats import bootstrap_interval

    path = Path(targets[0])
    path = path / "model.rlk" if path.is_dir() else path
    manifest, _, _ = read_artefact(path)
    agent = Persistent.load(path, device="cpu")
    if "env" in settings:
        record = registry.record(settings["env"])
        env_id, kwargs = record.env_id, dict(record.env_kwargs)
        reference = record.data.reference if record.data else None
    elif manifest.get("env") and manifest["env"]["id"]:
        env_id, kwargs, reference = manifest["env"]["id"], manifest["env"]["kwargs"], manifest["env"]["reference"]
    else:
        raise UserError(f"{path} names no environment; pass env=NAME")
    reference = (reference[0], reference[1]) if reference else None  # JSON knows lists only
    evaluator = Evaluator(
        env_id, episodes=numbers["episodes"], seed=numbers["seed"], env_kwargs=kwargs, reference=reference
    )
    found = evaluator(agent)
    evaluator.close()
    low, high = bootstrap_interval(found.returns)
    print(f"{agent.name} on {env_id}, {len(found.returns)} episodes, seed {numbers['seed']}")
    spread = f"{found.returns.mean():.1f} ± {found.returns.std():.1f}"
    print(f"return {spread} (95 % interval of the mean {low:.1f} to {high:.1f})")
    if found.scores is not None:
        low, high = bootstrap_interval(found.scores)
        print(f"normalised score {found.scores.mean():.1f} (95 % interval {low:.1f} to {high:.1f})")
    if data := manifest.get("dataset"):
        print(f"trained on {data['name']}: {data['source']} {data['locator']}")
    return 0
