"""Artefacts and checkpoints: one zip of safetensors and JSON, written atomically, read without running code.

Members are stored uncompressed: ``manifest.json`` (format version, registry name, config, spaces, versions, and the
SHA-256 of every other member), ``model.safetensors`` and, in a checkpoint, ``training.safetensors`` (optimiser moments,
generators, counters' tensors).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlkit import __version__
from rlkit.errors import ArtefactError, refusing, shown
from rlkit.system.files import require_whole, write_atomically

FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg")
MEMBERS = ("model.safetensors", "training.safetensors")
MOST_UNASKED = 128 << 20  # bytes that an artefact's config may ask for beyond what its tensors account for
SIZED = frozenset(
    (
        "empty",
        "empty_strided",
        "zeros",
        "ones",
        "full",
        "rand",
        "randn",
        "new_empty",
        "new_zeros",
        "new_ones",
        "new_full",
    )
)
GROWING = ("_like", "clone", "repeat", "cat", "stack", "arange", "randperm", "linspace", "outer")
ENCRYPTED = 0x1  # of a member's flags
MAX_MANIFEST, MAX_MEMBER = 16 << 20, 64 << 30  # bytes
MAX_DIRECTORY, MAX_HEADER = 1 << 17, 4 << 20  # of a zip with its comment, and of safetensors: names, shapes, places
LIBRARIES = ("torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "numba")


def versions() -> dict[str, str]:
    """Versions of the libraries a result depends on."""
    return {"rlkit": __version__, **{name: version(name) for name in LIBRARIES}}


def write_artefact(
    path: Path, manifest: dict[str, Any], model: Mapping[str, Tensor], training: Mapping[str, Tensor] | None = None
) -> None:
    """Write ``path``; with ``training`` it is a checkpoint.  Tensors are detached, contiguous copies on the CPU."""
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
    with (
        refusing(path, "not a readable rlkit artefact, it may be truncated or altered"),
        _Limited(io.FileIO(path)) as file,
    ):
        require_whole(path, ArtefactError)
        with zipfile.ZipFile(file) as archive:
            file.most = MAX_MEMBER
            return _read(path, archive)


class _Limited(io.BufferedReader):
    """A file of which at most ``most`` bytes are read at once: a zip's directory may claim to have any size."""

    most = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise ArtefactError(f"its directory has {size} bytes, expected that of three members")
        return super().read(size)


def _read(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor] | None]:
    names = [info.filename for info in archive.infolist()]
    if "manifest.json" not in names or len(set(names)) != len(names):
        raise ArtefactError(f"{path}: not an rlkit artefact, expected one manifest.json among its members")
    for info in archive.infolist():
        if info.filename not in ("manifest.json", *MEMBERS):
            raise ArtefactError(f"{path}: unexpected member {shown(info.filename)}; nothing was extracted")
        limit = MAX_MANIFEST if info.filename == "manifest.json" else MAX_MEMBER
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ENCRYPTED
        if not plain or info.file_size > min(limit, path.stat().st_size):
            raise ArtefactError(
                f"{path}: member '{info.filename}' is compressed, encrypted or declares {info.file_size} bytes, "
                f"expected a plain stored member no larger than the file"
            )
    try:
        manifest = json.loads(archive.read("manifest.json"))
        found = manifest["format"]
        hashes = dict(manifest.get("sha256") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{path}: manifest.json is not an rlkit manifest") from error
    if type(found) is not int or found != FORMAT:
        raise ArtefactError(f"{path}: format version {shown(found)} is unknown, this rlkit reads version {FORMAT}")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in names:
        if name == "manifest.json":
            continue
        data = archive.read(name)
        if hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise ArtefactError(f"{path}: member '{name}' does not match its SHA-256 in the manifest; it was altered")
        with refusing(path, f"member '{name}' is not a safetensors file"):
            if int.from_bytes(data[:8], "little") > MAX_HEADER:
                raise ArtefactError(f"{path}: member '{name}' has a header of more than {MAX_HEADER} bytes")
            tensors[name] = load_tensors(data)
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
    """Undo :func:`optimiser_tensors`; hyperparameters stay those the optimiser was built with.

    Raises :class:`ArtefactError` where a moment has not the shape and dtype of its parameter: the fused kernels trust
    them, and would write past a smaller one's end.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            index, key = name[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    keys = {frozenset(fields) for fields in state.values()}
    begun = {frozenset(fields) for fields in optimiser.state.values()}  # ours has its moments from the start
    if len(keys) > 1 or (begun and keys != begun) or not all(0 <= index < len(parameters) for index in state):
        raise ArtefactError(f"'{prefix}' has not the moments of an optimiser of {len(parameters)} parameters")
    for place, moments in state.items():
        for key, tensor in moments.items():
            p = parameters[place]
            shape, dtype = (p.shape, p.dtype) if key in MOMENTS else (torch.Size(), torch.float32)
            if key not in (*MOMENTS, "step") or tensor.shape != shape or tensor.dtype != dtype:
                raise ArtefactError(
                    f"'{prefix}.{place}.{key}' is {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}"
                )
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def require_alike(found: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str, *, growing: bool = False) -> None:
    """Raise :class:`ArtefactError` unless ``found`` has the names of ``own``, their shapes and dtypes, and no NaN.

    Half precision goes into single.  With ``growing`` the tensors may have other numbers of rows than those of ``own``.
    """
    odd = sorted(found.keys() ^ own.keys())
    if odd:
        raise ArtefactError(f"{what}: tensor {shown(odd[0])} is {'unknown' if odd[0] in found else 'missing'}")
    for name, tensor in found.items():
        skip = 1 if growing and tensor.ndim and own[name].ndim else 0
        halved = (tensor.dtype, own[name].dtype) == (torch.float16, torch.float32)  # as weights are shipped
        if tensor.shape[skip:] != own[name].shape[skip:] or not (halved or tensor.dtype == own[name].dtype):
            raise ArtefactError(
                f"{what}: tensor '{name}' is {tensor.dtype} {list(tensor.shape)}, expected {own[name].dtype} "
                f"{list(own[name].shape)}"
            )
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ArtefactError(f"{what}: tensor '{name}' holds NaN")


class Allowance(TorchDispatchMode):
    """Inside, tensors are made up to ``most`` bytes and ``calls`` of them; beyond is :class:`ArtefactError`, unmade.

    What an artefact's config builds is filled from the artefact's tensors, so a file that holds little and asks for
    much is refused before the memory is taken.
    """

    def __init__(self, most: int, calls: int):
        super().__init__()
        self.most, self.calls = most, calls

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Allowance:
        """Enough for networks filled from ``tensors``, with targets, optimisers and the noise of initialisation."""
        held = sum(t.numel() * t.element_size() for t in tensors.values())
        return cls(MOST_UNASKED + 16 * held, 10_000 + 200 * len(tensors))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in SIZED:
            size = args[1] if name.startswith("new_") else args[0]
            self._take(math.prod(size) * 8)
        elif name == "eye":
            self._take(args[0] ** 2 * 8)
        found = func(*args, **(kwargs or {}))
        if name not in SIZED and name.endswith(GROWING) and isinstance(found, Tensor):
            self._take(found.numel() * found.element_size())
        return found

    def _take(self, size: int) -> None:
        self.most, self.calls = self.most - size, self.calls - 1
        if self.most < 0 or self.calls < 0:
            raise ArtefactError("its config asks for networks far larger than what the file holds")
