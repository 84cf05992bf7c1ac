"""MetaSchedule's evolutionary search for one function, candidate by candidate in this process.

Shao et al., "Tensor Program Optimization with Probabilistic Programs", NeurIPS 2022 (arXiv:2205.13603).
TVM's own loop is left alone: it hands artifacts to a callback that deletes the directory each lies in, and an
exception within it, Ctrl-C's too, ends the process.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.logging import get_logging_func

BATCH = 8
"""Candidates between two generations: what was measured steers what comes next."""
POPULATION = 128
_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.setLevel(logging.CRITICAL + 1)
_SILENT.propagate = False


class _Context(ms.TuneContext):
    """A TuneContext whose constructor does not import every CUDA intrinsic first, parsed for 16 seconds."""

    def __init__(self, module: Any, llvm: Any, size: int, seed: int) -> None:
        # Without the rule that changes the layout of arguments: a caller passes them as they are.
        postprocs = [
            p for p in ms.postproc.Postproc.create("llvm") if not isinstance(p, ms.postproc.RewriteLayout)
        ]
        space = ms.space_generator.PostOrderApply(
            sch_rules=ms.schedule_rule.ScheduleRule.create("llvm"),
            postprocs=postprocs,
            mutator_probs=ms.mutator.Mutator.create("llvm"),
        )
        strategy = ms.search_strategy.EvolutionarySearch(population_size=size)
        logger = get_logging_func(_SILENT)
        self.__init_handle_by_constructor__(
            _ffi_api.TuneContext, module, llvm, space, strategy, "main", 1, seed, logger
        )
        _ffi_api.TuneContextInitialize(self)


Measure = Callable[[Any], float | None]


def evolve(
    module: Any, llvm: Any, trials: int, earlier: list[tuple[float, Any]], measure: Measure, seed: int
) -> Iterator[tuple[float | None, Any]]:
    """(seconds, trace as JSON) of every candidate tried; None and None for one that failed.

    There are fewer than `trials` where the search runs out of them.

    Args:
        module: a workload (`schedules.workload`).
        llvm: the tvm.target.Target.
        earlier: what such a search has found before, to start from.
        measure: a scheduled module -> seconds of a call, None where it can't be built.
    """
    context = _Context(module, llvm, min(POPULATION, 8 * trials), seed)
    # xgboost's trees rank no better than chance in a few dozen trials, and take as long again.
    database, model = ms.database.MemoryDatabase(), ms.cost_model.RandomModel(seed=seed)
    workload = database.commit_workload(module)
    for _, trace in earlier:
        database.commit_tuning_record(ms.database.TuningRecord.from_json(trace, workload))
    with _unbroken():
        context.pre_tuning(trials, min(BATCH, trials), context.generate_design_space(), database, model)
    while candidates := _next(context):
        results = []
        for candidate in candidates:
            seconds = measure(candidate.sch.mod)
            results.append(ms.runner.RunnerResult(*(([seconds], None) if seconds else (None, "failed"))))
            if not seconds:
                yield None, None
                continue
            record = ms.database.TuningRecord(
                candidate.sch.trace, workload, [seconds], llvm, candidate.args_info
            )
            database.commit_tuning_record(record)
            yield seconds, record.as_json()
        with _unbroken():
            context.notify_runner_results(candidates, results)
    context.post_tuning()


def _next(context: Any) -> Any:
    with _unbroken():
        return context.generate_measure_candidates()


@contextmanager
def _unbroken() -> Iterator[None]:
    """Holds Ctrl-C back while C++ calls Python: raised in there, it is a segmentation fault."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])
