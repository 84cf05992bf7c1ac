"""A process that dies while it changes an index."""

import os
import signal

from graphwright.tools.retrieval import store, write


def dying(step):
    """Patch this process, a forked one, so that it dies in the step-th call of what touches the disk."""
    left = [step]

    def counted(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (store.os, "fsync"), (store.Appended, "write"), (store.Appended, "close"), (store.Path, "replace"),
        (store.Path, "unlink"), (write.Graph, "save"),
    ):  # fmt: skip
        setattr(owner, name, counted(getattr(owner, name)))
