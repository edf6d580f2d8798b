"""Artefacts and checkpoints: one zip of safetensors and JSON, written atomically, read without running code.

Members are stored uncompressed: ``manifest.json`` (format version, registry name, config, spaces, versions, and the
SHA-256 of every other member), ``model.safetensors`` and, in a checkpoint, ``training.safetensors`` (optimiser moments,
generators, counters' tensors).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from rlkit.errors import ArtefactError
from rlkit.files import write_atomically

FORMAT = 1
MEMBERS = ("model.safetensors", "training.safetensors")
MAX_MANIFEST, MAX_MEMBER = 16 << 20, 64 << 30  # bytes
LIBRARIES = ("rlkit", "torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "numba")


def versions() -> dict[str, str]:
    """Versions of the libraries a result depends on."""
    return {name: version(name) for name in LIBRARIES}


def write_artefact(
    path: Path, manifest: dict[str, Any], model: Mapping[str, Tensor], training: Mapping[str, Tensor] | None = None
) -> None:
    """Write ``path``; with ``training`` it is a checkpoint.  Tensors are detached, contiguous copies on the CPU."""
    import io

    payload = {"model.safetensors": _pack(model)}
    if training is not None:
        payload["training.safetensors"] = _pack(training)
    manifest = {
        "format": FORMAT,
        "versions": versions(),
        **manifest,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in payload.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        # A fixed date: equal content is an equal file.
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(manifest, indent=1, sort_keys=True))
        for name, data in payload.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    write_atomically(path, buffer.getvalue())


def read_artefact(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor] | None]:
    """``(manifest, model, training or None)`` of a file whose every member has been verified.

    Raises :class:`ArtefactError` for a file that is missing, truncated, altered, of another format version, or that
    has members other than the known ones, compressed ones, or ones that declare more bytes than the file holds.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtefactError(f"{path}: no such artefact")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise ArtefactError(
            f"{path}: not a readable rlkit artefact ({error}); it may be truncated or altered"
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor] | None]:
    names = [info.filename for info in archive.infolist()]
    if "manifest.json" not in names or len(set(names)) != len(names):
        raise ArtefactError(f"{path}: not an rlkit artefact, expected one manifest.json among its members")
    for info in archive.infolist():
        if info.filename not in ("manifest.json", *MEMBERS):
            raise ArtefactError(f"{path}: unexpected member '{info.filename}'; nothing was extracted")
        limit = MAX_MANIFEST if info.filename == "manifest.json" else MAX_MEMBER
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(limit, path.stat().st_size):
            raise ArtefactError(
                f"{path}: member '{info.filename}' is compressed or declares {info.file_size} bytes, "
                f"expected a stored member no larger than the file"
            )
    try:
        manifest = json.loads(archive.read("manifest.json"))
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path}: manifest.json is not an rlkit manifest") from error
    if found != FORMAT:
        raise ArtefactError(f"{path}: format version {found!r} is unknown, this rlkit reads version {FORMAT}")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in names:
        if name == "manifest.json":
            continue
        data = archive.read(name)
        if hashlib.sha256(data).hexdigest() != manifest.get("sha256", {}).get(name):
            raise ArtefactError(f"{path}: member '{name}' does not match its SHA-256 in the manifest; it was altered")
        try:
            tensors[name] = load_tensors(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ArtefactError(f"{path}: member '{name}' is not a safetensors file ({error})") from error
    if "model.safetensors" not in tensors:
        raise ArtefactError(f"{path}: member 'model.safetensors' is missing")
    return manifest, tensors["model.safetensors"], tensors.get("training.safetensors")


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    # clone: safetensors refuses tensors that share storage, as views of one buffer do
    return save_tensors({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)})


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam-like state as ``prefix.<parameter index>.<field>``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}.{i}.{key}": torch.as_tensor(value) for i, fields in state.items() for key, value in fields.items()
    }


def load_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo :func:`optimiser_tensors`; hyperparameters stay those the optimiser was built with."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            index, key = name[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
