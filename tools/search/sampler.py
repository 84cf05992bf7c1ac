"""optuna's samplers, made so that what a trial tries follows from the study, its seed and its number alone.

A sampler's random numbers live in the process, so a study that was killed would go on with others. Here each
question has its own, by the number of the trial and the name of what is asked for: a trial that was cut off
between two answers gets the ones that it would have got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Kind = Literal["tpe", "nsga2"]
POPULATION = 20  # of NSGA-II: a search has hundreds of trials, not thousands
FIRST = 10  # trials before TPE has a model


class Repeatable(BaseSampler):
    """A sampler made anew for each question.

    kind: tpe, multi-objective (Ozaki et al., 2022), or nsga2 (Deb et al., 2002). seed: of the study.
    """

    def __init__(self, kind: Kind, seed: int) -> None:
        self._kind, self._seed = kind, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._one(trial.number, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._one(trial.number, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        one = self._one(trial.number, param_name)
        return one.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._one(trial.number, "").after_trial(study, trial, state, values)

    def _one(self, number: int, name: str) -> BaseSampler:
        text = f"{self._seed}/{number}/{name}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
        if self._kind == "nsga2":
            return NSGAIISampler(population_size=POPULATION, seed=seed)
        return TPESampler(n_startup_trials=FIRST, multivariate=True, constant_liar=False, seed=seed)
