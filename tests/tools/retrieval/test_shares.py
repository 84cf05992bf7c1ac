"""Work dealt out to threads comes back in order, and a forked process deals to threads of its own."""

import multiprocessing
import os

import pytest
from graphwright.tools.retrieval.shares import shared


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_stand_in_the_order_of_their_tasks(threads, count):
    assert shared(lambda task: 3 * task, range(count), threads) == [3 * task for task in range(count)]


def test_what_a_thread_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        shared(lambda task: 1 // task, [2, 0], 2)


def test_a_forked_process_has_threads_of_its_own():
    def dealt():
        return shared(lambda task: task + 1, range(5), 2) == [1, 2, 3, 4, 5]

    assert dealt()
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(0 if dealt() else 1))
    process.start()
    process.join(60)
    assert process.exitcode == 0
