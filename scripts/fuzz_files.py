"""Hostile files for ``scripts/fuzz.py``: valid ones with something replaced and every hash made right again."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**63, 10**12, -(2**70), 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        "os:system",
        "canary_module:run",
        "x" * 5000,
        "\x1b[2J\n\nlines",
        "../../etc/passwd",
        "${oc.env:HOME}",
        "true",
    ),
    *([], {}, [9000, 9000], [1] * 2000, [[1.0, 2.0], [3.0]], {"a": {"b": 1}}, [None], ["os", "system"]),
)
ENVIRONMENTS: tuple[Any, ...] = (
    {
        "id": "rlkit-robotics/AdroitHandPen-v1",
        "kwargs": {"home": "os:system", "command": "touch hit"},
        "reference": None,
    },
    {"id": "canary_module:Env-v0", "kwargs": {}, "reference": None},
    {"id": "rlkit/HopperDistractors-v0", "kwargs": {"base": "canary_module:Env-v0"}, "reference": None},
    {"id": "GymV26Environment-v0", "kwargs": {"env_id": "canary_module:x"}, "reference": None},
    {"id": "Hopper-v5", "kwargs": {"xml_file": "/etc/passwd"}, "reference": None},
    {"id": "rlkit/TSP-v0", "kwargs": {"num_nodes": 10**9}, "reference": None},
    {"id": "nobody/Knows-v3", "kwargs": {"anything": [1, 2]}, "reference": [0.0, 1.0]},
    {"id": "Pendulum-v1", "kwargs": {"g": "9"}, "reference": [1.0, 1.0]},
)


# ---- hostile values --------------------------------------------------------------------------------------------------


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value in nested mappings and lists."""
    found = [path] if path else []
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        found += places(value, (*path, key))
    return found


def spoilt(tree: Any, generator: np.random.Generator) -> Any:
    """A copy of ``tree`` in which one to three values are replaced, removed, repeated elsewhere or added."""
    tree = copy.deepcopy(tree)
    for _ in range(int(generator.integers(1, 4))):
        known = places(tree)
        if not known:
            return tree
        path = known[generator.integers(len(known))]
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        kind = generator.integers(10)
        if kind == 0 and isinstance(parent, dict):
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{path[-1]}_"] = hostile(generator)
        elif kind == 2:
            other, value = known[generator.integers(len(known))], tree
            for key in other:
                value = value[key]
            parent[path[-1]] = copy.deepcopy(value)
        else:
            parent[path[-1]] = hostile(generator)
    return tree


def hostile(generator: np.random.Generator) -> Any:
    return copy.deepcopy(HOSTILE[generator.integers(len(HOSTILE))])


def spoilt_tensors(tensors: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """A copy of NumPy arrays by name, one of them of another shape, dtype, name or content, or missing."""
    tensors = dict(tensors)
    if not tensors:
        return tensors
    name = sorted(tensors)[generator.integers(len(tensors))]
    array = tensors.pop(name)
    kind = generator.integers(9)
    dtypes = (np.float64, np.float32, np.int64, np.uint8, np.bool_, np.float16)
    if kind == 0:
        return tensors
    if kind == 1:
        name = f"{name}x"
    elif kind == 2:
        array = array.reshape(-1)[:1]
    elif kind == 3:
        array = np.zeros((0, *array.shape[1:]), array.dtype)
    elif kind == 4:
        array = array[None]
    elif kind == 5:
        array = array.astype(dtypes[generator.integers(len(dtypes))])
    elif kind == 6:
        array = np.full_like(array, np.nan if array.dtype.kind == "f" else 1)
    elif kind == 7 and array.dtype.kind in "iu":
        array = np.full_like(array, np.iinfo(array.dtype).max)
    else:
        array = np.concatenate([array, array]) if array.ndim else np.stack([array, array])
    tensors[name] = array
    return tensors


# ---- artefacts and checkpoints ---------------------------------------------------------------------------------------


def artefact_bytes(manifest: Any, members: dict[str, bytes], how: int = 0) -> bytes:
    """An artefact with right hashes; ``how`` picks a fault of the zip."""
    if isinstance(manifest, dict) and how != 1:
        manifest = {**manifest, "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}}
    text = json.dumps(manifest, indent=1) if not isinstance(manifest, str) else manifest
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if how == 2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json"), text)
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"../{name}" if how == 3 else name), data, kind)
    data = buffer.getvalue()
    if how == 4:  # every member is said to be encrypted
        data = data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    if how == 5:
        data = data[: len(data) * 2 // 3]
    return data


def artefacts(valid: list[Path], generator: np.random.Generator) -> Iterator[tuple[str, bytes, Path]]:
    """Spoilt copies of ``valid`` artefacts, and what each was made of."""
    from safetensors.numpy import load, save

    while True:
        source = valid[generator.integers(len(valid))]
        with zipfile.ZipFile(source) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        manifest: Any = json.loads(members.pop("manifest.json"))
        kind, how = generator.integers(12), 0
        if kind < 4:
            manifest = spoilt(manifest, generator)
        elif kind == 4:
            manifest["env"] = copy.deepcopy(ENVIRONMENTS[generator.integers(len(ENVIRONMENTS))])
        elif kind == 5:
            manifest["config"] = spoilt(manifest["config"], generator)
        elif kind == 6 and "training" in manifest:
            manifest["training"] = spoilt(manifest["training"], generator)
        elif kind == 7:
            how = int(generator.integers(1, 6))
        elif kind == 8:
            name = sorted(members)[generator.integers(len(members))]
            members[name] = spoilt_header(members[name], generator)
        elif kind == 9:
            manifest = ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\x00", "[]", '{"format": 1}'][
                generator.integers(5)
            ]
        else:
            name = sorted(members)[generator.integers(len(members))]
            members[name] = save(spoilt_tensors(load(members[name]), generator))
        yield source.stem, artefact_bytes(manifest, members, how), source


def spoilt_header(data: bytes, generator: np.random.Generator) -> bytes:
    """A safetensors file whose header was altered."""
    size = struct.unpack("<Q", data[:8])[0]
    header = spoilt(json.loads(data[8 : 8 + size]), generator)
    text = json.dumps(header).encode()
    declared = len(text) if generator.integers(4) else int(generator.integers(2**40))
    return struct.pack("<Q", declared) + text + data[8 + size :]


def toy_dataset(parts: bool = False, ds: int = 3, da: int = 2) -> Any:
    """A dataset without an environment, for agents that learn from one."""
    import gymnasium as gym

    from rlkit.data.dataset import OfflineDataset, Provenance

    g, rows = np.random.default_rng(0), 60
    states = g.normal(size=(rows + 1, ds)).astype(np.float32)
    ends = np.zeros(rows, bool)
    ends[9::10] = True
    return OfflineDataset(
        states[:-1],
        g.uniform(-1, 1, (rows, da)).astype(np.float32),
        np.zeros(rows, np.float32) if parts else g.normal(size=rows).astype(np.float32),
        states[1:],
        np.zeros(rows, bool),
        ends,
        gym.spaces.Box(-np.inf, np.inf, (ds,), np.float32),
        gym.spaces.Box(-1, 1, (da,), np.float32),
        Provenance("memory", "toy"),
        parts=(("expert", 10), ("hidden", 10), ("suboptimal", rows - 20)) if parts else (),
    )


def makers() -> dict[str, Callable[[], Any]]:
    """A small agent of every name, as it is before it learns."""
    from dataclasses import replace

    from rlkit import registry

    def offline(name: str, **settings: Any) -> Callable[[], Any]:
        cls = registry.agent_class(name)
        small = {"hidden_sizes": (8,), "batch_size": 8, **settings}
        return lambda: cls("MlpPolicy", toy_dataset(parts=not cls.uses_rewards), device="cpu", seed=0, **small)

    def online(name: str, env: str, kwargs: dict[str, Any], **settings: Any) -> Callable[[], Any]:
        record = registry.record(env)
        record = replace(record, env_kwargs={**record.env_kwargs, **kwargs})
        cls = registry.agent_class(name)
        return lambda: cls(env=record, device="cpu", seed=0, **settings)

    names = [n for n in registry.agent_names() if hasattr(registry.agent_class(n), "uses_rewards")]
    extra = {"a2pr": {"critic_hidden_sizes": (8,), "vae_hidden_sizes": (8,)}}
    known = {n: set(registry.agent_class(n).Config.__dataclass_fields__) for n in names}
    found = {n: offline(n, **{k: v for k, v in extra.get(n, {}).items() if k in known[n]}) for n in names}
    small = {"learning_starts": 4, "batch_size": 4, "hidden_sizes": (8,), "buffer_size": 50}
    found |= {
        "beer": online("beer", "contextual-pendulum", {}, **small, rank_interval=0),
        "vagram": online(
            "vagram",
            "contextual-pendulum",
            {},
            **small,
            termination="never",
            model_hidden_sizes=(8,),
            members=2,
            elites=1,
            rollout_batch=10,
            refit_every=5,
            updates_per_step=1,
            max_epochs=1,
        ),
        "orpo": online(
            "orpo",
            "tomato",
            {"level": "toy", "horizon": 20},
            hidden_sizes=(8,),
            disc_hidden_sizes=(8,),
            n_envs=2,
            n_steps=50,
            batch_size=20,
            n_epochs=1,
            calibration_steps=40,
        ),
        "drrpo": online("drrpo", "linear-mdp", {}),
        "drrpo-features": online("drrpo-features", "american-put", {}, warmup=1, centres=5),
        "ptrnet": online("ptrnet", "convex-hull", {"num_nodes": 6}, hidden_size=8, batch_size=4),
        "bq": online(
            "bq", "tsp", {"num_nodes": 6}, width=8, heads=2, layers=1, feedforward=8, batch_size=4, train_size=8
        ),
        "mbtl": online(
            "mbtl",
            "contextual-cartpole",
            {},
            n_contexts=3,
            budget=1,
            task_timesteps=64,
            episodes=1,
            train_envs=1,
            select_every=0,
            return_low=0.0,
            return_high=500.0,
            learner_kwargs={"n_steps": 32, "batch_size": 16},
        ),
    }
    return {name: found[name] for name in sorted(found)}


STEPS = {"orpo": 100, "vagram": 12, "beer": 12, "mbtl": 64}


def valid_artefacts(folder: Path) -> tuple[list[Path], list[Path], dict[str, Callable[[], Any]]]:
    """An artefact and a checkpoint of every agent, and their makers."""
    made = makers()
    saved, checkpoints = [], []
    for name, make in made.items():
        agent = make()
        agent.learn(STEPS.get(name, 3))
        saved.append(folder / f"{name}.rlk")
        agent.save(saved[-1])
        checkpoints.append(folder / f"{name}.ckpt.rlk")
        agent.save_checkpoint(checkpoints[-1])
    return saved, checkpoints, made


# ---- the doors: each yields, for ever, an input's name and what reads it -------------------------------------------

Door = Iterator[tuple[str, Callable[[], None]]]


def artefact_door(folder: Path, valid: list[Path], generator: np.random.Generator) -> Door:
    """Load, predict, and ask for the environment."""
    from rlkit.algorithms.base import Persistent

    def read() -> None:
        agent = Persistent.load(path, device="cpu")
        sample = agent.observation_space.sample()
        with contextlib.suppress(ValueError, RuntimeError, KeyError, IndexError, AssertionError, AttributeError):
            agent.predict(sample, deterministic=True)  # other spaces and weights may not fit; no file is read here
        _ = agent.environment

    path = folder / "input.rlk"
    for name, data, _ in artefacts(valid, generator):
        path.write_bytes(data)
        yield name, read


def checkpoint_door(
    folder: Path, valid: list[Path], made: dict[str, Callable[[], Any]], generator: np.random.Generator
) -> Door:
    """Continue from it in the agent that wrote it, and make a step."""
    from stable_baselines3.common.logger import Logger

    path = folder / "input.rlk"
    agents: dict[str, Any] = {}
    for name, data, source in artefacts(valid, generator):
        path.write_bytes(data)
        who = name.removesuffix(".ckpt")
        if who not in agents:
            agents[who] = made[who]()
            agents[who].set_logger(Logger(None, []))
        agent = agents[who]

        def read(agent: Any = agent, who: str = who, source: Path = source) -> None:
            try:
                agent.restore(path)
                if who != "mbtl":
                    agent.learn(STEPS.get(who, 1), reset_num_timesteps=False)
            finally:
                agent.restore(source)  # as it was, for the next one

        yield name, read


def hdf5_door(folder: Path, generator: np.random.Generator) -> Door:
    """Read, check and load a D4RL file."""
    import h5py

    from rlkit.data import check_dataset, load_dataset, read_d4rl, write_d4rl

    source, path = folder / "valid.hdf5", folder / "input.hdf5"
    write_d4rl(toy_dataset(), source, overwrite=True)

    def read() -> None:
        check_dataset(path)
        read_d4rl(path)
        load_dataset(path)

    while True:
        shutil.copyfile(source, path)
        kind = int(generator.integers(9))
        with h5py.File(path, "r+") as file:
            arrays = {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}
            meta = json.loads(file["metadata/rlkit"][()])
            if kind < 4:
                del file["metadata/rlkit"]
                if kind == 0:
                    meta.update(
                        {f"env_{k}": v for k, v in ENVIRONMENTS[generator.integers(8)].items() if k != "reference"}
                    )
                file["metadata/rlkit"] = json.dumps(spoilt(meta, generator) if kind else meta)
            elif kind == 4:
                for name in arrays:
                    del file[name]
                for name, array in spoilt_tensors(arrays, generator).items():
                    file[name] = array
            else:
                name = sorted(arrays)[generator.integers(len(arrays))]
                del file[name]
                if kind == 5:
                    file.create_dataset(name, shape=(10**9, 11), dtype="f4", chunks=(1000, 11))
                elif kind == 6:
                    file[name] = h5py.ExternalLink("/etc/passwd", "/x")
                elif kind == 7:
                    file.create_dataset(name, shape=(60, 3), dtype="f4", external=[("/etc/passwd", 0, 720)])
                else:
                    file[name] = np.array([b"text"] * 60)
        if not generator.integers(10):
            data = bytearray(path.read_bytes())
            for at in generator.integers(len(data), size=8):
                data[at] = generator.integers(256)
            path.write_bytes(bytes(data[: int(generator.integers(1, len(data) + 1))]))
        yield "hdf5", read


def minari_door(folder: Path, generator: np.random.Generator) -> Door:
    """Load a local Minari dataset."""
    from rlkit.data import load_dataset, to_minari

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    to_minari(toy_dataset(), "toy/plain-v0", overwrite=True)
    meta = folder / "toy" / "plain-v0" / "data" / "metadata.json"
    valid = json.loads(meta.read_text())

    def read() -> None:
        load_dataset("toy/plain-v0")

    while True:
        tree = copy.deepcopy(valid)
        if not generator.integers(3):
            entry = ENVIRONMENTS[generator.integers(len(ENVIRONMENTS))]
            tree["rlkit"] |= {"env_id": entry["id"], "env_kwargs": entry["kwargs"]}
        else:
            tree = spoilt(tree, generator)
            for key in ("observation_space", "action_space"):
                if isinstance(tree.get(key), str) and generator.integers(2):
                    with contextlib.suppress(ValueError):
                        tree[key] = json.dumps(spoilt(json.loads(tree[key]), generator))
        meta.write_text(json.dumps(tree))
        yield "minari", read


def run_door(folder: Path, generator: np.random.Generator) -> Door:
    """Resume, evaluate and plot a run whose config, log or checkpoint was altered."""
    import yaml

    from rlkit.cli import main as command

    data = folder / "toy.hdf5"
    from rlkit.data import write_d4rl

    write_d4rl(toy_dataset(ds=11, da=3), data, overwrite=True)
    source, out = folder / "valid", folder / "input"
    settings = ["agent=bc", "env=hopper-medium", f"env.path={data}", "agent.hidden_sizes=[8]", "agent.batch_size=8"]
    quiet = ["total_timesteps=4", "log_every=1", "checkpoint_every=2", "eval_every=0", "final_episodes=1"]
    shutil.rmtree(source, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = command(["train", *settings, *quiet, "tensorboard=false", "progress_bar=false", f"out={source}"])
    assert code == 0, "the valid run did not end well"

    def read() -> None:
        for words in (["resume", str(out), "progress_bar=false"], ["plot", str(out), "--out", str(folder / "p.png")]):
            told = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
                code = command(words)
            if code not in (0, 2) or (code == 2 and told.getvalue().count("\n") != 1):
                raise AssertionError(f"{words[0]} exits with {code} and says {told.getvalue()!r:.300}")

    while True:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out)
        (out / "result.json").unlink()
        config = yaml.safe_load((out / "config.yaml").read_text())
        kind = int(generator.integers(6))
        if kind < 3:
            config = spoilt(config, generator)
            for key in ("total_timesteps", "final_episodes", "eval_episodes"):  # as many as asked for is no fault
                if type(config.get(key)) is int:
                    config[key] = min(config[key], 6)
            (out / "config.yaml").write_text(yaml.safe_dump(config))
        elif kind == 3:
            texts = ("[" * 5000, "a: !!python/object/apply:os.system [touch hit]", "\x00", "- 1", "a: &a [*a]", "")
            (out / "config.yaml").write_text(texts[generator.integers(len(texts))])
        elif kind == 4:
            log = (out / "metrics.jsonl").read_bytes()
            (out / "metrics.jsonl").write_bytes(
                (log[: generator.integers(len(log))], b"{}\n" * 9, b"\xff\n")[generator.integers(3)]
            )
        else:
            newest = sorted((out / "checkpoints").glob("*.rlk"))[-1]
            newest.write_bytes(next(artefacts([newest], generator))[1])
        yield "run", read


def routing_door(folder: Path, generator: np.random.Generator) -> Door:
    """Read routing files and label sets."""
    from rlkit.errors import UserError

    home = Path(__file__).resolve().parent.parent / "tests" / "envs" / "fuzz_routing.py"
    spec = importlib.util.spec_from_file_location("fuzz_routing", home)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, data in module.cases(generator):
        path = folder / f"input{Path(name).suffix}"
        path.write_bytes(data)

        def read(path: Path = path) -> None:
            module.READERS[path.suffix](path)

        yield path.suffix[1:], read
    raise UserError("no more cases")
