"""The C runner from Python: what graphwright.h declares, through ctypes."""

import contextlib
import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np


class Array(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
    )


class RunnerError(Exception):
    """What gw_error says."""


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        pointers = {"gw_input", "gw_output", "gw_result_array"}
        for name in pointers:
            getattr(self.c, name).restype = ctypes.POINTER(Array)
            getattr(self.c, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        for name in ("gw_input_count", "gw_output_count", "gw_result_count"):
            getattr(self.c, name).restype = ctypes.c_size_t
            getattr(self.c, name).argtypes = [ctypes.c_void_p]
        self.c.gw_load.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)]
        self.c.gw_run.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(Array),
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_void_p),
        ]
        for name in ("gw_free", "gw_result_free"):
            getattr(self.c, name).argtypes = [ctypes.c_void_p]
        self.c.gw_error.restype = ctypes.c_char_p

    def checked(self, status):
        if status:
            raise RunnerError(self.c.gw_error().decode())

    def load(self, directory, threads=0):
        return Bundle(self, directory, threads)


class Bundle:
    def __init__(self, library, directory, threads):
        self.library, self.handle = library, ctypes.c_void_p()
        library.checked(library.c.gw_load(str(directory).encode(), threads, ctypes.byref(self.handle)))

    def __del__(self):
        self.library.c.gw_free(self.handle)

    def described(self, what):
        c = self.library.c
        count = getattr(c, f"gw_{what}_count")(self.handle)
        found = [getattr(c, f"gw_{what}")(self.handle, i).contents for i in range(count)]
        return [(each.name.decode(), each.dtype and each.dtype.decode(), shape(each)) for each in found]

    def run(self, feed):
        c, given = self.library.c, [given_array(*each) for each in feed.items()]
        inputs = (Array * len(given))(*(array for array, _ in given))
        result = ctypes.c_void_p()
        self.library.checked(c.gw_run(self.handle, inputs, len(given), ctypes.byref(result)))
        try:
            return dict(
                taken_array(c.gw_result_array(result, i).contents) for i in range(c.gw_result_count(result))
            )
        finally:
            c.gw_result_free(result)


def shape(array):
    return [array.shape[axis] for axis in range(array.rank)]


def given_array(name, array):
    """An Array over a NumPy array in C order, and what must live as long."""
    array = np.ascontiguousarray(array)
    sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
    made = Array(name.encode(), array.dtype.name.encode(), sizes, array.ndim, array.ctypes.data)
    return made, (array, sizes)


def taken_array(array):
    """(name, a copy)."""
    dtype, sizes = np.dtype(array.dtype.decode()), shape(array)
    count = int(np.prod(sizes)) * dtype.itemsize
    content = ctypes.string_at(array.data, count) if count else b""
    return array.name.decode(), np.frombuffer(content, dtype).reshape(sizes)


def built(tmp_path_factory):
    """A runner that all workers of a run of tests share, and that one of them builds."""
    from filelock import FileLock
    from graphwright.backends.runners import build

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if folder.name.startswith("popen-") else folder
    with FileLock(folder / "runner.lock"), contextlib.chdir(folder):
        if not Path("runner").exists():
            build.build("runner")  # a relative path, as people write it
    return folder / "runner"


def answers(library, bundle, feeds, folder):
    """What a bundle says to feeds in a process of its own (two copies of TVM's runtime, Python's and the
    runner's, don't stand each other in one): outputs by name, or the sentence of a refusal."""
    np.savez(
        folder / "feeds.npz", **{f"{i} {name}": x for i, feed in enumerate(feeds) for name, x in feed.items()}
    )
    line = [sys.executable, __file__, library, bundle, folder / "feeds.npz", folder / "found.npz"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, refusals = [{} for _ in feeds], json.loads(done.stdout)
    for key, array in np.load(folder / "found.npz").items():
        number, _, name = key.partition(" ")
        found[int(number)][name] = array
    return [refusals[i] or found[i] for i in range(len(feeds))]


def _main(library, bundle, feeds, out):
    given, found, refusals = {}, {}, []
    for key, array in np.load(feeds).items():
        number, _, name = key.partition(" ")
        given.setdefault(int(number), {})[name] = array
    loaded = Library(library).load(bundle)
    for number, feed in sorted(given.items()):
        try:
            found |= {f"{number} {name}": array for name, array in loaded.run(feed).items()}
            refusals.append("")
        except RunnerError as error:
            refusals.append(str(error))
    np.savez(out, **found)
    print(json.dumps(refusals))


if __name__ == "__main__":
    _main(*sys.argv[1:])
