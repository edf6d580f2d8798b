"""The typed configuration of a run.  Hydra's groups ``agent`` and ``env`` are filled from the registry.

Defaults live in each agent's ``Config`` dataclass; what differs per dataset comes from its presets; what the command
line says wins over both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import gymnasium
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlkit import registry
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.finetune import FineTuned, FineTuneSettings, fine_tuning
from rlkit.algorithms.hyperparameters import own_name, presets
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.data.minari_store import MINARI_ID, has_local
from rlkit.data.records import find_record, generated_id
from rlkit.data.resolve import is_file
from rlkit.errors import UserError, nearest, one_line, refusing, require_choice, shown
from rlkit.registry import EnvRecord
from rlkit.system.plain import read_plain


@dataclass
class ColumnsConfig:
    """``env.columns``: which columns of a log are what; None: guessed (see ``rlkit.data.logs``)."""

    observations: Any = None
    actions: Any = None
    next_observations: Any = None
    reward: str | None = None
    episode: str | None = None
    end: str | None = None  # 1 where an episode ended by itself
    time_limit: str | None = None  # 1 where it was cut off
    step: str | None = None


@dataclass
class EnvConfig:
    """``env=``: a record's name, and where its data comes from (see ``rlkit.data.load_dataset``).

    A file, a Minari id or a Gymnasium id typed there instead is in ``path`` or ``id``, and ``name`` is its short form.
    """

    name: str = "???"
    path: str | None = None  # a file to use instead of the record's own data
    id: str | None = None  # of Minari or Gymnasium, where no record is named
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    bounds: Any = None  # of a log's actions, by column or in order; None: those of the data
    n_actions: int | None = None  # of a log: how many to choose from; 0: they are numbers; None: told by the values
    source: str = "auto"  # auto | minari-local | minari-remote | generated
    size: int | None = None  # transitions to generate; None: the record's own number
    data_seed: int = 0  # seed of generated data
    kwargs: dict[str, Any] = field(default_factory=dict)  # arguments of the environment, those of its record


@dataclass
class FineTuneConfig(FineTuneSettings):
    """``finetune``: how acting and data are mixed where ``init=RUN`` goes on in an environment, and which data."""

    data: Any = None  # a record, file or Minari id; None: what the run of init= learnt from


@dataclass
class TrainConfig:
    """Everything a run is determined by."""

    agent: Any = field(default_factory=dict)
    env: EnvConfig = field(default_factory=EnvConfig)
    total_timesteps: int | None = None  # None, here and below: the agent's own (``Agent.defaults``)
    init: str | None = None  # a run or artefact whose networks are the first ones; None: drawn by the seed
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)
    seed: int = 0
    device: str = "cpu"  # small networks are faster there; cuda where there is one
    engine: str = "auto"  # eager: updates line by line; graph: recorded, on a GPU; stacked: runs of a sweep together
    precision: str = "float32"  # tf32: faster products on a GPU, of 10 bits of mantissa
    threads: int = 1  # torch threads of this process; several seeds beat several threads
    out: str = "runs/${agent.name}_${env.name}_s${seed}"
    overwrite: bool = False
    resume: bool = False  # a run of these settings that lies in out goes on, one that has ended is left
    log_every: int | None = None
    eval_every: int | None = None
    eval_episodes: int | None = None  # None: what evaluations of this family have
    final_episodes: int | None = None  # episodes of the one evaluation after the last step
    checkpoint_every: int | None = None
    verdict: bool | None = None  # judge the policy by its data alone; None: where there is nothing to evaluate in
    tensorboard: bool = True
    track: str | None = None  # wandb, mlflow or trackio, beside the log
    progress_bar: bool = True


POSITIVE = ("total_timesteps", "threads", "log_every", "eval_episodes", "final_episodes")
NON_NEGATIVE = ("eval_every", "checkpoint_every", "seed")
WORDS = {"engine": ("auto", "eager", "graph", "stacked"), "precision": ("float32", "tf32")}
TRACKERS = ("wandb", "mlflow", "trackio")
MAX_THREADS = 4096
HINT = ", expected a record (rlkit list envs), a file, or an id of Minari or Gymnasium"


def fill_store(names: list[str]) -> None:
    """Put the schema and the agents called ``names`` into Hydra's store; an env is put there when it is chosen."""
    store = ConfigStore.instance()
    defaults: list[Any] = ["_self_", {"agent": "???"}, {"env": "???"}]
    store.store(name="train", node={"defaults": defaults, **_plain(TrainConfig())})
    for name in names:
        store.store(group="agent", name=name, node=_schema(name))


def _plain(config: TrainConfig) -> dict[str, Any]:
    # A typed node per scalar keeps Hydra's type checks; the two groups come from their own schemas.
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("agent", "env")}


def _schema(name: str) -> Any:
    """The agent's ``Config`` as an unfrozen dataclass with a ``name``: OmegaConf makes frozen ones read-only."""
    entries: list[Any] = [("name", str, field(default=name))]
    for f in fields(registry.agent_class(name).Config):
        value = list(f.default) if isinstance(f.default, tuple) else f.default
        if f.default is MISSING:
            entries.append((f.name, Any, field(default="???")))
        elif isinstance(value, list):
            entries.append((f.name, list[type(value[0])], field(default_factory=lambda v=value: list(v))))  # type: ignore[misc]
        else:
            entries.append((f.name, Any if value is None else type(value), field(default=value)))
    return make_dataclass(f"{name}Schema", entries)()


def parse(overrides: list[str]) -> list[Override]:
    """Hydra's overrides, each known to name an existing key; :class:`UserError` with the nearest one otherwise."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(f"cannot read '{error.override}', expected key=value") from error
    return parsed


def is_sweep(words: list[str]) -> bool:
    """Whether any of ``words``, as typed, has several values."""
    return any(o.is_sweep_override() for o in parse(storable(words)) if not o.key_or_group.startswith("hydra"))


def _choice(parsed: list[Override], group: str, known: list[str]) -> str:
    for override in parsed:
        if override.key_or_group == group:
            value = str(override.value())
            if value not in known and group == "agent":
                hint = nearest(value, known) or " (see rlkit list agents)"
                raise UserError(f"unknown agent '{value}'{hint}")
            return value
    raise UserError(f"{group}= is missing, expected one of: {', '.join(known[:12])} (see rlkit list {group}s)")


def storable(overrides: list[str]) -> list[str]:
    """``overrides`` as Hydra's grammar takes them: paths and ids stand for themselves, whatever characters they have.

    What ``env=`` names is kept without slashes, as Hydra has it for the name of a group.
    """
    return [_storable(override) for override in overrides]


def _storable(override: str) -> str:
    key, equals, value = override.partition("=")
    if key == "env" and value:
        whole = is_file(value) and Path(value).expanduser().exists()
        return f"env={quote(value, safe='_.-' if whole else ',_.-')}"
    if key == "out" or (key in ("env.path", "init") and value != "null"):
        whole = key == "out" or "," not in value or Path(value).expanduser().exists()
        return f"{key}={','.join(map(_literal, [value] if whole else value.split(',')))}"
    if equals and value and not key.startswith("hydra"):
        try:
            OverridesParser.create().parse_override(override)
        except OverrideParseException:
            return f"{key}={quoted(value)}"  # such as a name with spaces
    return override


def _literal(text: str) -> str:
    as_typed = len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]
    return text if as_typed or not text else quoted(text)


def quoted(text: str) -> str:
    """``text`` as a string of Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def compose_config(overrides: list[str], stored: bool = False) -> DictConfig:
    """The whole configuration of ``agent=NAME env=NAME key=value ...`` with presets applied.

    ``env=`` may also be what :func:`typed_env` takes; ``stored``: as :func:`storable` has it already.  Raises
    :class:`UserError` for an unknown agent, env or key, or a value of the wrong type or range.
    """
    overrides = overrides if stored else storable(overrides)
    agent = _choice(parse(overrides), "agent", registry.agent_names())
    parsed = parse([_own_key(registry.agent_class(agent), override) for override in overrides])
    env = _choice(parsed, "env", sorted(registry.records()))
    fill_store([agent])
    cls = registry.agent_class(agent)
    init = _init_of(cls, parsed)
    if init is not None and cls.learns_from == "data" and _is_environment(unquote(env)):
        cls = fine_tuning(cls)
    node = typed_env(unquote(env), cls.learns_from)
    ConfigStore.instance().store(group="env", name=env, node=node)
    record = env_record(node, cls.learns_from)
    chosen = presets(cls, record.name, record.task, record.family)
    preset_overrides = [f"{key}={value}" for key, value in cls.defaults.settings().items()]
    preset_overrides += [f"agent.{key}={value}" for key, value in chosen.items()]
    if init is not None:
        preset_overrides += [f"agent.{key}={json.dumps(value)}" for key, value in _first_settings(cls, init).items()]
    declared = [f"env.kwargs.{key}" for key in record.arguments if key not in record.env_kwargs]
    if GlobalHydra.instance().is_initialized():
        config = _compose(parsed, preset_overrides, declared)
    else:
        with initialize(config_path=None, version_base="1.3"):
            config = _compose(parsed, preset_overrides, declared)
    if init is not None and issubclass(cls, FineTuned):
        config.finetune.data = OmegaConf.structured(_first_data(init, config.finetune.data))
    return config


def agent_of(config: Any) -> Any:
    """The class of a run's agent: the registered one or, where it goes on by acting, that of :func:`fine_tuning`."""
    cls = registry.agent_class(config.agent.name)
    acts = config.init is not None and config.finetune.data is not None and cls.learns_from == "data"
    return fine_tuning(cls) if acts else cls


def _is_environment(value: str) -> bool:
    """Whether what ``env=`` names is an environment without data, for agents that can learn from either."""
    found = registry.records().get(value)
    if found is not None:
        return found.data is None
    return not is_file(value) and (":" in value or value in gymnasium.registry)


def _init_of(cls: type[Any], parsed: list[Override]) -> str | None:
    """What ``init=`` names; :class:`UserError` for agents that cannot begin with the networks of a file."""
    init = next((override.value() for override in parsed if override.key_or_group == "init"), None)
    old = next((override for override in parsed if override.key_or_group == "agent.init"), None)
    if old is not None:
        raise UserError(f"agent.init= is init= for every agent now, type init={one_line(old.value(), 200)}")
    if init is None:
        return None
    if not issubclass(cls, OfflineAlgorithm) and not any(f.name == "init" for f in fields(cls.Config)):
        raise UserError(f"agent={cls.name} cannot begin with networks of a file, expected no init=")
    return str(init)


def _first_settings(cls: type[Any], init: str) -> dict[str, Any]:
    """The hyperparameters of the artefact that ``init=`` names, which a run has where nothing else is typed."""
    path = first_weights(init)
    if not issubclass(cls, OfflineAlgorithm):
        return {"init": str(path)}
    manifest = read_artefact(path)[0]
    if manifest["agent"] != cls.name:
        raise UserError(f"init={init} is of agent {shown(manifest['agent'])}, expected {cls.name}")
    found, known = manifest["config"], {f.name for f in fields(cls.Config)} - set(cls.Config.OWN)
    return {key: value for key, value in found.items() if key in known} if isinstance(found, Mapping) else {}


def first_weights(init: str) -> Path:
    """The artefact that ``init=`` names: a file, or of a run's folder ``model.rlk``, else its newest checkpoint."""
    path = Path(init).expanduser()
    if not path.is_dir():
        return path
    newest = sorted(path.glob("checkpoints/step_*.rlk"))
    found = [path / "model.rlk"] if (path / "model.rlk").is_file() else newest
    if not found:
        raise UserError(f"init={init} has no model.rlk and no checkpoint, expected a run that has learnt something")
    return found[-1]


def _first_data(init: str, typed: Any) -> EnvConfig:
    """The data that is mixed in: what ``finetune.data=`` names, else what the run of ``init=`` learnt from."""
    if typed is not None:
        return typed_env(str(typed), "data")
    path = first_weights(init)
    homes = [path.parent, path.parent.parent]  # of a model, of a checkpoint
    home = next((folder for folder in homes if (folder / "config.yaml").is_file()), None)
    if home is None:
        raise UserError(f"init={init} lies in no run that says what it learnt from, expected finetune.data=NAME too")
    config = read_config(home / "config.yaml")
    found: Any = OmegaConf.to_object(config.env if config.finetune.data is None else _as_env(config.finetune.data))
    return found if isinstance(found, EnvConfig) else EnvConfig(**found)


def _as_env(settings: Any) -> DictConfig:
    """``settings`` of data as the ``env`` group; :class:`UserError` for what is none."""
    try:
        return OmegaConf.merge(OmegaConf.structured(EnvConfig), settings)  # type: ignore[return-value]
    except (OmegaConfBaseException, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"finetune.data={shown(settings)} names no data ({_sentence(error)})") from error


def data_of(config: DictConfig) -> tuple[DictConfig, EnvRecord]:
    """The data that a run mixes into what it acts, as its ``env`` group would name it, and its record."""
    env = _as_env(config.finetune.data)
    return env, env_record(env, "data")


def require_tracker(name: str | None) -> None:
    """Raise :class:`UserError` for a tracker that is unknown or not installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise UserError(f"track={one_line(name, 40)} is unknown, expected {', '.join(TRACKERS)} or null")
    if find_spec(name) is None:
        raise UserError(f"track={name} needs a package that is not here, expected pip install 'rlkit-papers[{name}]'")


def typed_env(value: str, learns_from: str) -> EnvConfig:
    """What ``env=`` names on a command line, for agents that learn from ``"data"`` or from an ``"environment"``.

    A record; for agents of data also the path of a file (see ``rlkit.data.logs``) or a Minari id; for those that act a
    Gymnasium id, before which a colon may name the package that registers it: what a user types is the one place where
    a module is named.  Raises :class:`UserError` for anything else, naming the nearest record.
    """
    found = registry.records().get(value)
    if found is not None:
        return EnvConfig(name=value, kwargs=dict(found.env_kwargs))
    if is_file(value):
        if learns_from != "data":
            raise UserError(f"env={shown(value)} is a file, expected an environment: the agent learns by acting in one")
        known = find_record(Path(value).name)
        if known is not None:
            return EnvConfig(name=known.name, path=value, kwargs=dict(known.env_kwargs))
        return EnvConfig(name=Path(value).name, path=str(Path(value).expanduser().absolute()))
    if learns_from == "data" and MINARI_ID.fullmatch(value) and ("/" in value or has_local(value)):
        known = find_record(value)
        if known is not None and known.data is not None and value in (known.data.minari_id, generated_id(known)):
            here = "minari-local" if has_local(value) else "minari-remote"
            source = "generated" if value == generated_id(known) else here
            return EnvConfig(name=known.name, source=source, kwargs=dict(known.env_kwargs))
        return EnvConfig(name=value.replace("/", "-"), id=value)
    env_id = typed_id(value)
    if learns_from == "data":
        raise UserError(
            f"env={shown(value)} is an environment, expected data: the agent learns from a file or a record"
        )
    return EnvConfig(name=env_id.replace("/", "-"), id=env_id)


def typed_id(value: str) -> str:
    """The Gymnasium id that a user typed, the package before its colon imported; :class:`UserError` for an unknown one.

    Nothing that was read from a file may be given here.
    """
    package, colon, env_id = value.rpartition(":")
    if colon and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", package):
        raise UserError(f"env={shown(value)} names no package before its colon, expected one like package:Id-v0")
    if colon:
        with refusing(f"env={value}", f"its package '{package}' cannot be imported", UserError):
            import_module(package)
    elif env_id not in gymnasium.registry:
        raise UserError(f"unknown env '{one_line(value, 60)}'{nearest(value, registry.records()) or HINT}")
    if env_id not in gymnasium.registry:
        raise UserError(f"env={shown(value)}: '{package}' registers no '{env_id}'{nearest(env_id, gymnasium.registry)}")
    return env_id


def typed_record(value: str) -> EnvRecord:
    """The record of the environment that a user typed: its name, or a Gymnasium id as :func:`typed_id` takes it."""
    return env_record(typed_env(value, "environment"), "environment")


def env_record(env: Any, learns_from: str) -> EnvRecord:
    """The record of a run's ``env`` group, with its keywords: one of the registry's, or made for a path or an id.

    Raises :class:`UserError` for an id that nothing is registered under: nothing in a configuration is imported.
    """
    found = registry.records().get(env.name)
    if found is None and env.path is None and env.id is None:
        found = registry.record(env.name)  # which says what is near
    if found is None and learns_from == "data":
        if env.path is None and not MINARI_ID.fullmatch(env.id):
            raise UserError(f"env.id={shown(env.id)} is no Minari id, expected one like 'mujoco/hopper/medium-v0'")
        found = EnvRecord(env.name, "", "", registry.LOG if env.path is not None else "", "")
    elif found is None:
        found = registry.environment({"id": env.id, "kwargs": {}}, "env.id")
        if found is None or not registry.is_known(found):
            typed = f"env=PACKAGE:{one_line(env.id, 60)}"
            raise UserError(f"env.id={shown(env.id)} is not registered here, expected {typed} to be typed")
    settings: Any = OmegaConf.to_container(env.kwargs) if isinstance(env.kwargs, DictConfig) else env.kwargs
    return registry.configured(found, settings)


def _own_key(cls: type[Any], override: str) -> str:
    """``agent.lr=...`` as ``agent.learning_rate=...``, see :data:`~rlkit.algorithms.hyperparameters.ALIASES`."""
    key, equals, value = override.partition("=")
    prefix, dot, name = key.partition("agent.")
    return f"agent.{own_name(cls, name)}{equals}{value}" if dot and not prefix else override


def _compose(parsed: list[Override], overrides: list[str], declared: list[str]) -> DictConfig:
    """``overrides`` come before those typed; ``declared`` are keys that a record takes and does not set itself."""
    typed = [str(override.input_line) for override in parsed]
    keys = _keys(compose("train", overrides=[line for line in typed if line.split("=")[0] in ("agent", "env")]))
    for override in parsed:
        key = override.key_or_group
        if key not in (*keys, *declared, "agent", "env") and not key.startswith("env.bounds."):
            raise UserError(f"unknown key '{key}'{nearest(key, [*keys, *declared])}")
    added = [
        f"++{line}" if line.split("=")[0] in declared or line.startswith("env.bounds.") else line for line in typed
    ]
    try:
        config = compose("train", overrides=[*overrides, *added])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_sentence(error)) from error
    return _checked(config)


def _checked(config: DictConfig) -> DictConfig:
    """``config``, its values of the schema's types; raises :class:`UserError` for a type or range that is wrong."""
    try:
        schema = OmegaConf.structured(TrainConfig)
        for name in config:
            if name not in ("agent", "env"):
                schema[name] = config[name]
                config[name] = schema[name]  # a quoted number is a number
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        raise UserError(_sentence(error)) from error
    for name in sorted(map(str, OmegaConf.missing_keys(config))):
        raise UserError(f"{name} has no value, expected one")
    learns_from = agent_of(config).learns_from
    FineTuneSettings(**{f.name: config.finetune[f.name] for f in fields(FineTuneSettings)}).check()
    if config.init is not None and config.engine not in ("auto", "eager"):
        raise UserError(f"engine={config.engine} begins with networks drawn by the seed, expected no init= or another")
    config.env.kwargs = dict(env_record(config.env, learns_from).env_kwargs)
    for name in POSITIVE:
        if config[name] is None and name != "eval_episodes":
            raise UserError(f"{name}=null is out of range, expected a number above 0")
        if config[name] is not None and config[name] <= 0:
            raise UserError(f"{name}={shown(config[name])} is out of range, expected a number above 0")
    for name in NON_NEGATIVE:
        if config[name] is None or config[name] < 0:
            raise UserError(f"{name}={shown(config[name])} is out of range, expected a number of at least 0")
    for name, words in WORDS.items():
        require_choice(name, config[name], words)
    require_tracker(config.track)
    if not config.device.startswith("cuda"):
        for name, word in (("engine", "graph"), ("precision", "tf32")):
            if config[name] == word:
                raise UserError(f"{name}={word} is for a GPU, this run is on device={config.device}; expected another")
    if config.threads > MAX_THREADS:
        raise UserError(f"threads={shown(config.threads)} is out of range, expected at most {MAX_THREADS}")
    if config.seed >= 2**32:
        raise UserError(f"seed={shown(config.seed)} is out of range, expected a whole number from 0 to {2**32 - 1}")
    return config


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> DictConfig:
    """The configuration in ``path``, with ``changes``, as :func:`compose_config` gives it: the same types and ranges.

    A key that is not there has its default: older versions wrote fewer.  Raises :class:`UserError` as
    :func:`compose_config` does.
    """
    data = {**read_plain(path), **(changes or {})}
    try:
        for key in data:
            known = [f.name for f in fields(TrainConfig)]
            if key not in known:
                raise UserError(f"unknown key '{key}'{nearest(key, known)}")
        chosen: dict[str, str] = {}
        for group, names in (("agent", registry.agent_names()), ("env", sorted(registry.records()))):
            value = data.get(group)
            value = value if isinstance(value, dict) else {}
            name = value.get("name")
            own = group == "env" and any(isinstance(value.get(key), str) for key in ("path", "id"))
            if not isinstance(name, str) or (name not in names and not own):
                raise UserError(f"unknown {group} '{name}'{nearest(str(name), names)}")
            chosen[group] = name
        record = registry.records().get(chosen["env"])
        kwargs = dict(record.env_kwargs) if record is not None else {}
        schema: Any = _plain(TrainConfig()) | {
            "agent": _schema(chosen["agent"]),
            "env": EnvConfig(name=chosen["env"], kwargs=kwargs, n_actions=0),  # older versions knew numbers alone
        }
        try:
            config = OmegaConf.merge(schema, data)
        except (OmegaConfBaseException, ValueError, OverflowError, RecursionError) as error:
            raise UserError(_sentence(error)) from error
        assert isinstance(config, DictConfig)
        return _checked(config)
    except UserError as error:
        raise UserError(str(error) if changes else f"{path}: {error}") from None  # without changes it was right


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in map(str, node):
        child = OmegaConf.select(node, key, throw_on_missing=False)
        found += _keys(child, f"{prefix}{key}.") if isinstance(child, DictConfig) else [f"{prefix}{key}"]
    return found


def _sentence(error: Exception) -> str:
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        lines = str(current).strip().split("\n")
        key = getattr(current, "full_key", None)
        if key:
            return f"{key}: {lines[0]}"
        current = current.__cause__
    return " ".join(line.strip() for line in lines[:2])
