"""A deployment built: every case in a process of its own, its bundle whole or not there, then the lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.bundles.folder import check_free
from ...backends.cache import cache_directory
from ...ir.errors import ConfigError, GraphwrightError
from ...ir.host.files import why
from ...ir.host.locks import alone
from ..console import Console
from . import jobs, lock, schema, stale
from .changes import changes
from .hashes import Hashes
from .inputs import digests, source_of
from .lock import Entry
from .plan import Case, cases, only, settings_of
from .results import Result, Results, State


def build(
    deployment: str | Path | Mapping[str, Any],
    out: str | Path = "dist",
    *,
    only: Sequence[str] = (),
    frozen: bool = False,
    again: bool = False,
    gate: bool = False,
    against: str | Path | None = None,
    lock: str | Path | None = None,
    quiet: bool = True,
) -> Results:
    """Build many models for many targets; what is unchanged is taken from what is there.

    Args:
        deployment: a YAML file of models, targets and goals, or its content; see `schema.Deployment`. The
            settings of one run are one build.
        out: a directory for the bundles, one of each build's name.
        only: names of builds, models, targets or goals, with * for anything; empty for all.
        frozen: rebuild the lock's bytes and measure nothing; refuse where an input has changed.
        again: measure anew although nothing has changed.
        gate: what has become slower, larger or worse beyond its interval fails.
        against: a lock to hold the builds against; None is the lock as it was.
        lock: where the lock is; None is beside the file, or in `out` where the content was given.
        quiet: False prints progress on stderr.

    Returns:
        A result for each build; `status` is what the command exits with.

    Raises:
        GraphwrightError: the file is wrong, or somebody else builds there.
    """
    if isinstance(deployment, Mapping):
        found, beside = schema.of(deployment), Path(out, "deploy.lock")
    else:
        found, beside = schema.read(deployment), Path(deployment).with_suffix(".lock")
    options = Builds(Path(out), Path(lock) if lock else beside, frozen, again, Console(quiet=quiet))
    return options.run(cases(found), tuple(only), gate, Path(against) if against else None)


class Builds:
    """Where builds go, and how they are to be made; see `build`."""

    def __init__(self, out: Path, lock: Path, frozen: bool, again: bool, console: Console) -> None:
        if frozen and again:
            raise ConfigError("--frozen measures nothing and --again measures anew: leave one out")
        self.out, self.lock, self.frozen, self.again, self.console = out, lock, frozen, again, console

    def run(
        self, all_cases: Sequence[Case], names: Sequence[str], gate: bool, against: Path | None
    ) -> Results:
        chosen = only(all_cases, names) if names else all_cases
        entries = lock.read(self.lock)
        if self.frozen and not self.lock.is_file():
            raise ConfigError(f"there is no {self.lock} to rebuild from: build without --frozen first")
        if against is not None and not against.is_file():
            raise ConfigError(f"there is no lock at {against}")
        old = lock.read(against) if against else dict(entries)
        self.hashes = Hashes(None if self.frozen else cache_directory() / "hashes.json")
        results = []
        with _alone(self.out):
            try:
                for number, case in enumerate(chosen, 1):
                    self.title = f"{case.name} ({number} of {len(chosen)})"
                    results.append(self._result(case, entries, old.get(case.name), against is not None))
            except KeyboardInterrupt as stop:
                stop.args = ("bundles that were done are kept: run again to go on",)
                raise
            finally:
                self.hashes.save()
            due = {case.name for case in all_cases}
            if not self.frozen and not entries.keys() <= due:
                lock.write(self.lock, {name: each for name, each in entries.items() if name in due})
        return Results(tuple(results), gate)

    def _result(self, case: Case, entries: dict[str, Entry], old: Entry | None, held: bool) -> Result:
        bundle = self.out / case.name
        try:
            state, entry, seconds = self._made(case, bundle, entries)
        except GraphwrightError as error:
            self.console.say(f"{self.title}: failed: {error}")
            return Result(case.name, case.config.model, bundle, "failed", error=str(error))
        told = None
        if old is not None and (state == "built" or held):
            told = tuple(changes(old.facts, entry.facts))
        unmet = tuple(filter(None, (each.unmet(entry.facts) for each in case.require)))
        return Result(
            case.name, case.config.model, bundle, state, entry.facts, "", entry.problems, entry.status, unmet,
            told, seconds,
        )  # fmt: skip

    def _made(self, case: Case, bundle: Path, entries: dict[str, Entry]) -> tuple[State, Entry, float]:
        """What was done, the entry that now holds, and the seconds that it took."""
        settings = case.settings
        inputs, versions = digests(case.config, self.hashes), stale.versions_of(case.config, case.levels)
        entry = entries.get(case.name)
        why = stale.changed(entry, settings, inputs, versions) if entry else "it is not in the lock"
        if self.frozen and why:
            raise ConfigError(f"--frozen: {why}; build without it, and commit {self.lock.name}")
        if entry and not why and not self.again:
            if stale.whole(bundle, entry, self.hashes) and (self.frozen or not stale.elsewhere(entry)):
                return "unchanged", entry, 0.0
            if self.frozen or not stale.elsewhere(entry):
                try:
                    return "from the lock", entry, self._worked(case, bundle, entry)["seconds"]
                except GraphwrightError as error:
                    if self.frozen:
                        raise
                    why = str(error)
            why = why or stale.elsewhere(entry)
        self.console.say(f"{self.title}: {why or 'asked for again'}" if entry else f"{self.title}:")
        answer = self._worked(case, bundle, None)
        made = Entry.from_json(answer["entry"])
        made = replace(made, settings=settings, inputs=inputs, versions=versions)
        if digests(case.config, self.hashes) != inputs:
            raise ConfigError("an input changed while it was built: build again")
        entries[case.name] = made
        lock.write(self.lock, entries)
        return "built", made, answer["seconds"]

    def _worked(self, case: Case, bundle: Path, entry: Entry | None) -> dict[str, Any]:
        check_free(bundle, force=True)
        if entry:
            self.console.say(f"{self.title}: from the lock")
        remote = {"tracker": case.remote.tracker, "key": case.remote.key} if case.remote else None
        asked = {
            "settings": settings_of(case.config),
            "levels": list(case.levels),
            "source": source_of(case.config),
            "out": str(bundle),
            "entry": entry.to_json() if entry else None,
            "remote": remote,
            "quiet": self.console.quiet,
        }
        return jobs.done(asked, entry.decisions.tuning if entry else None)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else builds there meanwhile. Raises ConfigError: somebody does, or it can't be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} can't be written to: {why(error)}") from error
    busy = f"another build writes to {out}: wait for it, or name another directory"
    with alone(out, ConfigError, busy):
        yield
