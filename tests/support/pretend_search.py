"""A search whose candidates are figures of their choices: whole, or killed at given moments."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from graphwright.passes.manager.varying import Between
from graphwright.tools.search.explore import Limits, explore
from graphwright.tools.search.goal import goal
from graphwright.tools.search.kept import Kept
from graphwright.tools.search.making import Found, Here, found
from graphwright.tools.search.space import Space
from graphwright.tools.search.storage import opened

SPACE = Space(
    {
        "structure": ("none", "prune-layers"),
        "prune-layers.keep": Between(1, 11),
        "recovery": ("none", "distill"),
        "distill.steps": Between(100, 3000, log=True, rising=True),
        "bits": ("none", "quantize-static", "quantize-weights", "compute-bfloat16"),
        "quantize-static.min_cosine": (0.0, 0.99),
        "quantize-weights.bits": (2, 4, 8),
        "quantize-weights.group": (16, 32),
        "compute-bfloat16.min_cosine": (0.99, 0.999),
        "runtime": ("onnxruntime",),
    },
    "fx",
)
GOAL = goal("drop<=2", "latency,size").at(("1x8",))
IDENTITY = {"model": "pretended"}


def figures(candidate):
    """Fewer layers are faster and lose more, steps win back; few bits are small."""
    chosen = candidate.choices
    layers = chosen.get("prune-layers.keep", 12)
    lost = (12 - layers) * (0.2 if "distill" in str(candidate.pipeline) else 1.0)
    lost -= chosen.get("distill.steps", 0) / 3000 if lost else 0
    bits = {"quantize-static": 8, "quantize-weights": chosen.get("quantize-weights.bits", 8)}
    width = bits.get(str(chosen["bits"]), 32)
    return {
        "latency@1x8": layers * (1.0 if width == 32 else 0.5),
        "size": layers * width / 8 + chosen.get("quantize-weights.group", 0) / 100,
        "drop": lost + (32 / width - 1) ** 2 / 50,
    }


class Pretend:
    """Makes candidates of figures.

    moment: called, with a name, wherever a kill would be felt. seconds: that one takes.
    """

    def __init__(self, figures=figures, moment=lambda name: None, seconds=0.0):
        self.figures, self.moment, self.seconds = figures, moment, seconds

    def __call__(self, candidate, known):
        self.moment(f"evaluate {candidate.number}")
        time.sleep(self.seconds)
        values = self.figures(candidate)
        if candidate.number % 7 == 3:
            return Found({"drop": 99.0}, "pruned", "hopeless")

        def save(path):
            path.parent.mkdir(exist_ok=True)
            self.moment(f"save {candidate.number}")
            path.mkdir()
            (path / "values.json").write_text(json.dumps(values))
            self.moment(f"saved {candidate.number}")

        return Found(values, save=save)


def run(folder, trials, moment=lambda name: None, sampler="tpe", resume=False, storage=None, seed=0, **more):
    """A whole search, up to so many trials. workers: what gives them, of what makes candidates."""
    folder = Path(folder)
    evaluate = Pretend(more.get("figures", figures), moment)
    goal, identity = more.get("goal", GOAL), more.get("identity", IDENTITY)
    with opened(folder, goal, identity, sampler=sampler, seed=seed, storage=storage, resume=resume) as study:
        kept = Kept(folder, goal, {}, more.get("best"))
        if not resume:
            study.propose(dict.fromkeys(["structure", "recovery", "bits"], "none"))
        workers = more.get("workers", Here)(evaluate)
        return explore(study, more.get("space", SPACE), goal, workers, kept, Limits(trials=trials))


def record(folder):
    """Trials, front and bundles of a search, less times."""
    found = json.loads((Path(folder) / "front.json").read_text())
    return [{**one, "seconds": 0} for one in found["trials"]], found["front"], sorted(found["bundles"])


class Lanes:
    """Several candidates at once, of which any may be ready first, or lost."""

    at_once, ahead, apart = 4, 4, True

    def __init__(self, evaluate, seed=0, losing=0.0):
        self.evaluate, self.rng, self.losing = evaluate, random.Random(seed), losing
        self.begun, self.most = [], 0

    def start(self, candidate, known):
        self.begun.append((candidate, known))
        self.most = max(self.most, len(self.begun))

    def wait(self):
        candidate, known = self.begun.pop(self.rng.randrange(len(self.begun)))
        lost = self.rng.random() < self.losing
        return candidate.number, None if lost else found(self.evaluate, candidate, known)


def killed(folder, trials, moment):
    """A search in a process of its own, begun or gone on with. Gives whether it was killed."""
    child = os.fork()
    if child == 0:
        run(folder, trials, moment, resume=(Path(folder) / "study.db").is_file())
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killed_at(folder, trials, moments, sampler, lanes=False):
    """Begun, killed at each of the moments (so many commits, evaluations and bundles after it was gone on
    with), and gone on with to its end. Prints what every process evaluated."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    reading, writing = os.pipe()
    for stop in [*moments, None]:
        child = os.fork()
        if child == 0:
            count = 0

            def moment(name, stop=stop):
                nonlocal count
                count += 1
                if name.startswith("evaluate"):
                    os.write(writing, f"{name}\n".encode())
                if count == stop:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "commit", lambda connection: moment("commit"))
            event.listen(Engine, "rollback", lambda connection: moment("rollback"))
            workers = (lambda evaluate: Lanes(evaluate, os.getpid())) if lanes else Here
            going = (Path(folder) / "study.db").is_file()
            run(folder, trials, moment, sampler, resume=going, workers=workers)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) == (stop is not None), status
    os.close(writing)
    with os.fdopen(reading) as file:
        print(json.dumps(file.read().split("\n")[:-1]))


if __name__ == "__main__":
    began = time.monotonic()
    killed_at(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4], sys.argv[5:] == ["lanes"])
    print(time.monotonic() - began, file=sys.stderr)
