"""A folder ready for a model hub: the policy, its settings, what was measured, pictures if there are, and a card."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rlkit.algorithms.checkpoint import read_artefact, write_artefact
from rlkit.api import load
from rlkit.errors import UserError, one_line, refusing
from rlkit.run.card import folder_card
from rlkit.run.folder import MARKER, read_result
from rlkit.run.reading import newest_artefact, under_way
from rlkit.system.files import write_atomically

MODEL, CARD = "model.rlk", "README.md"
PICTURES = ("video.gif", "solutions.png")
COPIED = ("config.yaml", "result.json", *PICTURES)  # of a run, as far as it has them
WRITTEN = (MODEL, *COPIED, CARD)


def require_free(folder: Path, overwrite: bool) -> None:
    """Raise :class:`UserError` where :func:`write_folder` would not write: with ``overwrite``, a run or a file."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected the name of a folder to write")
    if (folder / MARKER).exists():
        raise UserError(f"{folder} is a run, expected a folder of the export's own")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty, expected another name, or overwrite=true to replace an export in it")


def write_folder(source: Path, folder: Path, overwrite: bool = False) -> list[str]:
    """Write the policy of ``source``, a run's folder or an artefact, into ``folder``; returns the names of the files.

    Of a run that has not ended it is the newest checkpoint's policy, without what training needs, and the card says so.
    With ``overwrite`` files of these names are replaced or removed; any other that lies there stays.

    Raises :class:`UserError` for a folder that is not empty, or a run, and for a source that holds no policy.
    """
    require_free(folder, overwrite)
    path = newest_artefact(source)
    agent = load(path)
    run = source if source.is_dir() else None
    progress = None if run is None else under_way(run, agent)
    result = read_result(run) if run is not None and (run / "result.json").is_file() else None
    held = {name: (run / name).read_bytes() for name in COPIED if run is not None and (run / name).is_file()}
    for name in PICTURES:
        if name in held and (source / name).stat().st_mtime < path.stat().st_mtime:
            del held[name]  # of what the policy was before
    for name in WRITTEN:
        if (folder / name).is_file() and name not in held:
            (folder / name).unlink()
    manifest, model, training = read_artefact(path)
    if training is None:
        write_atomically(folder / MODEL, path.read_bytes())
    else:
        write_artefact(folder / MODEL, {key: value for key, value in manifest.items() if key != "training"}, model)
    for name, data in held.items():
        write_atomically(folder / name, data)
    names = [name for name in WRITTEN if name in (MODEL, *held)]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    with refusing(source, "what it says of its data or result is damaged"):
        text = folder_card(agent, result, one_line(folder.resolve().name, 100), files, progress)
    write_atomically(folder / CARD, text.encode())
    return [*names, CARD]
