"""Write what type checkers and editors see of the agents: agents/__init__.pyi and rlkit/rooms.pyi.

    python scripts/make_signatures.py            # write them
    python scripts/make_signatures.py --check    # exit 1 where they are not what this would write

An agent's constructor takes its hyperparameters by ``**``; here they are written out, each with its type and default,
from the frozen dataclass that declares them.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.algorithms.signatures import comments, signature

ROOT = Path(__file__).resolve().parent.parent
NOTE = "# written by scripts/make_signatures.py"
# where the names in annotations come from
NAMES = {
    "Sequence": "from collections.abc import Sequence",
    "Path": "from pathlib import Path",
    "Any": "from typing import Any",
    "ClassVar": "from typing import ClassVar",
    "RunDefaults": "from rlkit.algorithms.hyperparameters import RunDefaults",
    "torch": "import torch",
    "GymEnv": "from stable_baselines3.common.type_aliases import GymEnv",
    "DatasetLike": "from rlkit.algorithms.offline import DatasetLike",
    "Map": "from rlkit.agents.drrpo_features import Map",
}


def shipped() -> dict[str, Any]:
    """Class name to class of the agents of this package, in order of their names."""
    found = [registry.agent_class(name) for name in registry.agent_names()]
    return {cls.__name__: cls for cls in sorted(found, key=lambda cls: cls.__name__.lower())}


def home(cls: Any) -> str:
    """The module that exports the class: its file's, or the folder's that the file lies in."""
    package, _, _ = cls.__module__.rpartition(".")
    return cls.__module__ if package == "rlkit.agents" else package


def constructor(cls: Any) -> str:
    """The class with its constructor, as a stub has it: ``rlkit.cli.facts`` reads it instead of importing the agent."""
    lines, star = [], False
    own_default = {field.name: field.default for field in fields(cls.Config) if field.default is not MISSING}
    for parameter in signature(cls).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            lines.append("*,")
            star = True
        given = parameter.default is not inspect.Parameter.empty
        default = own_default.get(parameter.name) if parameter.default is None else parameter.default
        lines.append(f"{parameter.name}: {parameter.annotation}{f' = {default!r}' if given else ''},")
    said = {field.name: comments(cls.Config).get(field.name, "") for field in fields(cls.Config)}
    own = inspect.cleandoc(cls.__doc__ or "").partition("\n\nHyperparameters:")[0]
    told = [f"{name}: {text}".rstrip() for name, text in said.items()]
    wrapped = [line for text in told for line in textwrap.wrap(text, 104, subsequent_indent="    ")]
    doc = "\n".join([own, "", "Args:", *(f"    {line}" for line in wrapped)])
    body = textwrap.indent(f'"""{doc}\n"""', " " * 8)
    arguments = textwrap.indent("\n".join(lines), " " * 8)
    declared = f"    learns_from: ClassVar[str] = {cls.learns_from!r}\n"
    declared += f"    defaults: ClassVar[RunDefaults] = {cls.defaults!r}\n"
    head = f"class {cls.__name__}(_{cls.__name__}):\n{declared}    def __init__(\n        self,"
    return f"{head}\n{arguments}\n    ) -> None:\n{body}\n"


def agents_stub() -> str:
    classes = shipped()
    text = "\n\n".join(constructor(cls) for cls in classes.values())
    used = [line for name, line in NAMES.items() if re.search(rf"\b{name}\b", text)]
    imports = [f"from {home(cls)} import {name} as _{name}" for name, cls in classes.items()]
    modules = sorted({home(cls).rpartition(".")[2] for cls in classes.values()} | {"common"})
    rooms = [f"from rlkit.agents import {module} as {module}" for module in modules]
    head = "\n".join([NOTE, *sorted(used), *imports, *rooms])
    return f"{head}\n\n{text}"


def rooms_stub() -> str:
    classes = shipped()
    modules = sorted({home(cls).rpartition(".")[2] for cls in classes.values()} | {"common"})
    places = sorted(path.stem for path in (ROOT / "envs").iterdir() if path.is_dir() or path.suffix == ".py")
    places = [name for name in places if not name.startswith("__")]
    lines = [NOTE, "class Agents:", '    """The package of agents."""', "", "    def __call__(self) -> dict[str, str]:"]
    lines += ['        """Every agent\'s name and what it is in one line."""']
    lines += [f"    from rlkit.agents import {name} as {name}" for name in [*classes, *modules]]
    lines += [
        "",
        "class Envs:",
        '    """The package of environments."""',
        "",
        "    def __call__(self) -> dict[str, str]:",
    ]
    lines += ['        """Every environment\'s name and what it is in one line."""']
    lines += [f"    from rlkit.envs import {name} as {name}" for name in places]
    return "\n".join([*lines, "", "agents: Agents", "envs: Envs", ""])


def written() -> dict[Path, str]:
    """Both files, as they should be."""
    return {ROOT / "agents" / "__init__.pyi": agents_stub(), ROOT / "rlkit" / "rooms.pyi": rooms_stub()}


def main(argv: list[str]) -> int:
    stale = 0
    for path, text in written().items():
        if argv == ["--check"]:
            found = path.read_text() if path.exists() else ""
            if found != text:
                print(f"{path} is not what scripts/make_signatures.py writes")
                stale = 1
        else:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
