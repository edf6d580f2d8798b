"""Many copies of one MuJoCo model, stepped on C threads to the bits of ``mujoco.mj_step``.

The arrangement is that of ``mujoco.rollout``: the simulation states of all copies lie in one array, each thread owns
one ``mjData``, loads a state into it, steps it and stores the state back.  ``mujoco.rollout`` itself returns neither
contact forces and body positions nor the constraint solver's warm start, without which HalfCheetah-v5 is a millimetre
off the course of ``mj_step`` after a hundred steps.  So a compiled kernel calls the same C functions directly, without
Python's global lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, no_type_check

import llvmlite.binding
import mujoco
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# What a step reads beside the model, and all it may leave for the next one.  Applied forces, mocap poses and user
# data are constant in these tasks.
STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART | mujoco.mjtState.mjSTATE_CTRL)
SKIP, STEP, RESET = 0, 1, 2  # what the kernel does with an environment


def _c_function(library: ctypes.CDLL, name: str, *arguments: types.Type) -> types.ExternalFunction:
    """A void function of MuJoCo for use in kernels.  Declared by name, not address, so that they can be cached."""
    llvmlite.binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    return types.ExternalFunction(name, types.void(*arguments))


def _library() -> ctypes.CDLL:
    folder = Path(mujoco.__file__).parent
    names = [str(path) for pattern in ("libmujoco.*", "mujoco.dll") for path in sorted(folder.glob(pattern))]
    # Where the bindings came without their own copy, the loader knows the library that they have already loaded.
    return ctypes.CDLL(names[0] if names else f"libmujoco.so.{mujoco.mj_versionString()}")


_lib = _library()
_p = types.uintp
_mj_set_state = _c_function(_lib, "mj_setState", _p, _p, _p, types.int64)
_mj_get_state = _c_function(_lib, "mj_getState", _p, _p, _p, types.int64)
_mj_reset_data = _c_function(_lib, "mj_resetData", _p, _p)
_mj_forward = _c_function(_lib, "mj_forward", _p, _p)
_mj_step = _c_function(_lib, "mj_step", _p, _p)
_mj_rne_post_constraint = _c_function(_lib, "mj_rnePostConstraint", _p, _p)
_mju_copy = _c_function(_lib, "mju_copy", _p, _p, types.int64)


@intrinsic
@no_type_check
def _take(context, counter, amount):
    """Add ``amount`` to the first number of ``counter``, int64, and return what it was; atomic among threads."""

    def generate(target, builder, signature, values):
        pointer = target.make_array(signature.args[0])(target, builder, values[0]).data
        return builder.atomic_rmw("add", pointer, values[1], "seq_cst")

    return types.int64(counter, types.int64), generate


@njit(nogil=True, cache=True)
@no_type_check
def _simulate_all(address, size, job, taken, piece, frame_skip):
    """:func:`_simulate` pieces of environments until none is left; ``taken`` (1,) int64 is shared by all threads."""
    while True:
        start = _take(taken, piece)
        if start >= len(job):
            break
        _simulate(address, size, job, start, min(start + piece, len(job)), frame_skip)


@njit(nogil=True, cache=True)
@no_type_check
def _simulate(address, size, job, start, stop, frame_skip):
    """Step or reset environments ``start`` to ``stop`` (exclusive) on one thread's ``mjData``.

    ``address`` (8,) uint64: model, data, all states, the data's body position, all body positions, the data's contact
    forces, all contact forces, state signature.  ``size`` (3,) int64: numbers per environment in the three arrays; no
    contact forces are computed where the last is 0.  ``job`` (num_envs,) int8: SKIP, STEP or RESET.
    """
    model, data = address[0], address[1]
    for i in range(start, stop):
        if job[i] == SKIP:
            continue
        state = address[2] + types.uintp(8 * size[0] * i)
        if job[i] == RESET:
            _mj_reset_data(model, data)
        _mj_set_state(model, data, state, types.int64(address[7]))
        if job[i] == RESET:
            _mj_forward(model, data)
        else:
            for _ in range(frame_skip):
                _mj_step(model, data)
            if size[2] > 0:
                _mj_rne_post_constraint(model, data)
        _mj_get_state(model, data, state, types.int64(address[7]))
        _mju_copy(address[4] + types.uintp(8 * size[1] * i), address[3], size[1])
        _mju_copy(address[6] + types.uintp(8 * size[2] * i), address[5], size[2])


_clock = ctypes.c_void_p.in_dll(_lib, "mjcb_time")
_clock_lock = threading.Lock()
_clock_users = 0
_clock_value: int | None = None


@contextlib.contextmanager
def _untimed() -> Iterator[None]:
    """Without the clock that the bindings install for ``mjData.timer``: reading it takes a fifth of a Hopper step."""
    global _clock_users, _clock_value
    with _clock_lock:
        if _clock_users == 0:
            _clock_value, _clock.value = _clock.value, None
        _clock_users += 1
    try:
        yield
    finally:
        with _clock_lock:
            _clock_users -= 1
            if _clock_users == 0:
                _clock.value = _clock_value


class Simulations:
    """``num_envs`` simulations of ``model``.

    ``state`` (num_envs, n) float64 holds time, positions, velocities, activations, warm start and controls; ``qpos``,
    ``qvel``, ``physics`` (both of these) and ``ctrl`` are views of it.  :meth:`run` does ``job`` (num_envs,) int8 in
    each: SKIP, RESET to the state that was written, or STEP.  Where ``body`` is given, ``position`` (num_envs, 2)
    float64 is that body's place in metres as MuJoCo leaves it after the last stage of the integrator, and ``forces``
    (num_envs, 6 bodies) float64 are the contact torques and forces on all bodies; both have no columns otherwise.
    """

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, num_threads: int, frame_skip: int, body: int | None
    ) -> None:
        if model.ntree == 1:
            # One tree is one island, so solving by islands comes to the same and costs the search for them.
            model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, "mjDSBL_ISLAND", 0))
        self.model, self.num_envs, self.frame_skip = model, num_envs, frame_skip
        self._datas = [mujoco.MjData(model) for _ in range(num_threads)]
        self.initial = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, self._datas[0], self.initial, STATE)
        self.state = np.tile(self.initial, (num_envs, 1))

        def offset(component: mujoco.mjtState) -> int:  # components lie in the order of their bits
            return mujoco.mj_stateSize(model, STATE & (component.value - 1))

        first = offset(mujoco.mjtState.mjSTATE_QPOS)
        self.physics = self.state[:, first : first + model.nq + model.nv]
        self.qpos, self.qvel = self.physics[:, : model.nq], self.physics[:, model.nq :]
        first = offset(mujoco.mjtState.mjSTATE_CTRL)
        self.ctrl = self.state[:, first : first + model.nu]
        self.position = np.zeros((num_envs, 0 if body is None else 2))
        self.forces = np.zeros((num_envs, 0 if body is None else 6 * model.nbody))
        self.job = np.zeros(num_envs, np.int8)

        arrays = (self.state, self.position, self.forces)
        self._size = np.array([array.shape[1] for array in arrays], np.int64)
        ours = [array.ctypes.data for array in arrays]
        theirs = [(d._address, d.xpos[body or 0].ctypes.data, d.cfrc_ext.ctypes.data) for d in self._datas]
        addresses = [
            np.array([model._address, data, ours[0], position, ours[1], forces, ours[2], STATE], np.uint64)
            for data, position, forces in theirs
        ]
        # Pieces small enough that a core which is busy elsewhere holds up the others by little.
        piece = num_envs if num_threads == 1 else -(-num_envs // (num_threads * 4))
        self._taken = np.zeros(1, np.int64)
        self._work = [(address, self._size, self.job, self._taken, piece, frame_skip) for address in addresses]
        self._threads = [_Thread(work) for work in self._work[1:]]
        self.close = weakref.finalize(self, _end, self._threads)

    def run(self) -> None:
        """Do ``job`` on all threads."""
        self._taken[0] = 0
        with _untimed():
            for thread in self._threads:
                thread.begin.release()
            _simulate_all(*self._work[0])
            for thread in self._threads:
                if not thread.begin.acquire(blocking=False):  # one that has not begun finds nothing left to do
                    thread.done.acquire()


class _Thread(threading.Thread):
    """Simulates ``work`` whenever ``begin`` is released, then releases ``done``; two locks cost less than a pool.

    It holds arrays and no :class:`Simulations`, so that it ends with the one it works for.
    """

    def __init__(self, work: tuple[Any, ...]) -> None:
        super().__init__(daemon=True, name="simulations")
        self.work, self.ended = work, False
        self.begin, self.done = threading.Lock(), threading.Lock()
        self.begin.acquire()
        self.done.acquire()
        self.start()

    def run(self) -> None:
        while True:
            self.begin.acquire()
            if self.ended:
                break
            _simulate_all(*self.work)
            self.done.release()


def _end(threads: list[_Thread]) -> None:
    for thread in threads:
        thread.ended = True
        thread.begin.release()
    for thread in threads:
        thread.join()
