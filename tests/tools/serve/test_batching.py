"""Batching on a model that is made up: who gets what, what fails with whom, and what never runs."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from graphwright.tools.serve.batching import Batcher, Lane
from graphwright.tools.serve.budget import Budget
from graphwright.tools.serve.refusal import Overloaded, Refusal
from hypothesis import given, settings
from hypothesis import strategies as st


class Model:
    """Doubles numbers; fails where a call has the number 13. calls: what it was called with."""

    def __init__(self):
        self.calls, self.at_once, self.most_at_once = [], 0, 0
        self.gate, self._lock = threading.Event(), threading.Lock()
        self.gate.set()

    def __call__(self, texts):
        with self._lock:
            self.calls.append(list(texts))
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            self.gate.wait(10)
            if any(text % 100 == 13 for text in texts):
                raise ValueError("thirteen")
            return [2 * text for text in texts]
        finally:
            with self._lock:
                self.at_once -= 1


def served(scenario, *, tokens=64, parallel=1, most=10_000, names=("model",)):
    """Runs `await scenario(batcher, models)` and gives (its result, models)."""
    models = {name: Model() for name in names}

    async def main():
        with ThreadPoolExecutor(parallel) as executor:
            lanes = {name: Lane(model, Budget(tokens)) for name, model in models.items()}
            batcher = Batcher(lanes, executor, parallel, most)
            try:
                return await scenario(batcher, models)
            finally:
                for model in models.values():
                    model.gate.set()
                await batcher.idle()
                assert batcher.waiting_tokens == 0

    return asyncio.run(main()), models


REQUESTS = st.lists(
    st.lists(st.tuples(st.integers(0, 999), st.integers(1, 40)), min_size=1, max_size=6),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(REQUESTS, st.integers(1, 3))
def test_each_answer_goes_to_its_asker(requests, parallel):
    async def scenario(batcher, models):
        async def ask(request):
            texts, lengths = zip(*request, strict=True)
            return await batcher.submit("model", texts, lengths).done

        return await asyncio.gather(*map(ask, requests), return_exceptions=True)

    answers, models = served(scenario, parallel=parallel)
    for request, answer in zip(requests, answers, strict=True):
        if any(text % 100 == 13 for text, _ in request):
            assert isinstance(answer, ValueError)
        else:
            assert answer == [2 * text for text, _ in request]
    assert models["model"].most_at_once <= parallel


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_no_call_is_larger_than_the_budget(lengths):
    async def scenario(batcher, models):
        return await batcher.submit("model", [1000 * length for length in lengths], lengths).done

    _, models = served(scenario)
    for texts in models["model"].calls:
        call = [text // 1000 for text in texts]
        assert len(call) * max(call) <= 64


def test_what_comes_while_a_call_runs_is_computed_together():
    async def scenario(batcher, models):
        models["model"].gate.clear()
        jobs = [batcher.submit("model", [n], [4]) for n in range(9)]
        models["model"].gate.set()
        return [await job.done for job in jobs]

    answers, models = served(scenario)
    assert answers == [[2 * n] for n in range(9)]
    assert models["model"].calls == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


def test_a_failure_reaches_its_own_request_alone():
    async def scenario(batcher, models):
        models["model"].gate.clear()
        jobs = [batcher.submit("model", texts, [4] * len(texts)) for texts in ([1], [2, 13], [3], [4, 5])]
        models["model"].gate.set()
        return await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)

    answers, _ = served(scenario)
    assert [answers[0], answers[2], answers[3]] == [[2], [6], [8, 10]]
    assert isinstance(answers[1], ValueError)


def test_the_rest_of_a_request_that_failed_never_runs():
    async def scenario(batcher, models):
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.submit("model", [13, *range(14, 50)], [60] * 37).done

    _, models = served(scenario)
    assert len(models["model"].calls) <= 2  # the one that failed, and one that had been handed over


def test_texts_of_a_client_that_left_are_dropped():
    async def scenario(batcher, models):
        models["model"].gate.clear()
        first, second, third = (batcher.submit("model", [n] * 3, [30] * 3) for n in (1, 2, 3))
        dropped = batcher.withdraw(second)
        models["model"].gate.set()
        assert await first.done == [2, 2, 2]
        assert await third.done == [6, 6, 6]
        assert not second.done.done()
        return dropped

    dropped, models = served(scenario)
    assert dropped == 3
    assert not any(2 in call for call in models["model"].calls)


def test_the_oldest_text_waits_for_no_better_company():
    async def scenario(batcher, models):
        models["model"].gate.clear()
        jobs = [batcher.submit("model", [n], [n]) for n in (1, 60, *[2] * 50)]
        models["model"].gate.set()
        return [await job.done for job in jobs]

    _, models = served(scenario)
    assert models["model"].calls[1] == [60]


def test_lanes_take_turns_by_age():
    async def scenario(batcher, models):
        models["a"].gate.clear()
        jobs = [batcher.submit(name, [n], [4]) for n, name in enumerate("aabab")]
        models["a"].gate.set()
        return [await job.done for job in jobs]

    answers, models = served(scenario, names=("a", "b"))
    assert answers == [[0], [2], [4], [6], [8]]
    assert models["a"].calls == [[0], [1, 3]]
    assert models["b"].calls == [[2, 4]]


def test_a_full_queue_refuses_and_says_when_to_come_again():
    async def scenario(batcher, models):
        models["model"].gate.clear()
        jobs = [batcher.submit("model", [n], [50]) for n in range(3)]  # one runs, two wait
        with pytest.raises(Overloaded) as caught:
            batcher.submit("model", [9], [1])
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
        models["model"].gate.set()
        assert [await job.done for job in jobs] == [[0], [2], [4]]
        assert await batcher.submit("model", [9], [1]).done == [18]

    served(scenario, most=100)


def test_what_could_never_wait_is_too_large():
    async def scenario(batcher, models):
        with pytest.raises(Refusal, match="have 101 tokens") as caught:
            batcher.submit("model", [1, 2], [50, 51])
        assert caught.value.status == 413

    served(scenario, most=100)


def test_a_call_that_hangs_is_seen():
    async def scenario(batcher, models):
        assert batcher.busy_for == 0
        models["model"].gate.clear()
        job = batcher.submit("model", [1], [1])
        await asyncio.sleep(0.01)
        assert batcher.busy_for > 0
        models["model"].gate.set()
        await job.done

    served(scenario)
