"""Where compiled kernels and fonts are kept when neither the installation nor the home folder can be written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def prepare_caches(package: Path) -> None:
    """Point numba and matplotlib to a temporary folder where they would find none that they may write.

    ``package`` is the folder whose kernels are compiled.  What the user has set stays as it is.  Called before either
    library is imported; without a home folder at all, the temporary one stands for it in this process.
    """
    with contextlib.suppress(OSError):  # no folder for temporary files either: the libraries say so themselves
        home = os.path.expanduser("~")  # noqa: PTH111  # pathlib's raises where there is none
        if home == "~":
            os.environ["HOME"] = home = _temporary()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
        if "NUMBA_CACHE_DIR" not in os.environ and not (_writable(package / "__pycache__") or _writable(cache)):
            os.environ["NUMBA_CACHE_DIR"] = f"{_temporary()}/numba"
        config = Path(os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config")
        if "MPLCONFIGDIR" not in os.environ and not _writable(config / "matplotlib"):
            os.environ["MPLCONFIGDIR"] = f"{_temporary()}/matplotlib"


def _writable(folder: Path) -> bool:
    """Whether files can be written in ``folder``, which is made when it is needed."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _temporary() -> str:
    """This user's own folder among the temporary ones, kept from run to run: numba loads code from it."""
    import stat
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"rlkit-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return str(folder)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="rlkit-")  # somebody else's: theirs is not trusted
