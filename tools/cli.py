"""The `optimize` command. Only verbs import what they need, so that help and listings stay instant."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from .console import Console, complain, sentence
from .options import OPTIONS, settings, taking
from .pack.formats import Format
from .routing import DEFAULT, DefaultGroup
from .surroundings import prepare

COMPLETE = "_OPTIMIZE_COMPLETE"  # in the environment while a shell asks for completions
EXITS = (
    "Exit status: 0 done, 1 error, 2 wrong usage, 3 a goal such as --max-drop or a promise not met, "
    "or nothing verified, 130 interrupted."
)


class Sampler(StrEnum):
    """What decides which candidate a search tries next."""

    TPE = "tpe"
    NSGA2 = "nsga2"


app = typer.Typer(
    cls=DefaultGroup,
    rich_markup_mode=None,
    add_completion=False,  # its two options would be the first thing in every help page: a verb prints it
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="MODEL -o OUT | VERB ...",
    help="Make a Transformer faster or smaller on this machine, and prove it.\n\n"
    "optimize MODEL -o OUT captures a model (Hugging Face directory or hub id, .onnx, .pt2), rewrites it, "
    "measures it and writes a bundle.",
    epilog=EXITS,
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="directory, hub id, .onnx or .pt2", show_default=False)
]
Threads = Annotated[int | None, OPTIONS["threads"].__metadata__[0]]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of everything random")]
Shapes = Annotated[str | None, OPTIONS["shapes"].__metadata__[0]]
Json = Annotated[bool, typer.Option("--json", help="one JSON value on stdout and nothing else there")]
ModelType = Annotated[str | None, OPTIONS["model_type"].__metadata__[0]]
Force = Annotated[bool, OPTIONS["force"].__metadata__[0]]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


class LogLevel(StrEnum):
    """Of a server's log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


def verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a verb returns or raises into an exit status and at most one sentence on stderr.

    The verb gets a Console in place of the options --quiet and --json, which every verb has with --debug.
    """
    shared = [
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
        inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    ]
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "console"]

    @functools.wraps(function)
    def run(*args: Any, quiet: bool, as_json: bool, debug: bool, **kwargs: Any) -> None:
        console = Console(quiet=quiet, json=as_json)
        try:
            with console.working():
                status = function(*args, console=console, **kwargs) or 0
        except KeyboardInterrupt as stop:
            complain(f"optimize: interrupted; {stop or 'nothing was written'}")
            status = getattr(stop, "status", 130)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if debug:
                raise
            complain(f"optimize: {sentence(error)}")
            status = 1
        raise typer.Exit(status)

    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
    return run


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"graphwright {version('graphwright')}")
        raise typer.Exit


def _number(value: float) -> float:
    if not 0 <= value < float("inf"):
        raise typer.BadParameter("write a number from 0")
    return value


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(DEFAULT, hidden=True)
@verb
@taking(*OPTIONS)
def optimize(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="directory, hub id, .onnx or .pt2", show_default=False),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="YAML file with these options; the command line wins", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the run as such a file and stop")] = False,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Optimise MODEL into a bundle."""
    from . import config as configs

    chosen = settings({"model": model, **given})
    read = configs.read(config) if config else {}
    if {"preset", "pipeline"} & chosen.keys():
        read.pop("preset", None)
        read.pop("pipeline", None)
    if "model" not in {**read, **chosen}:
        raise typer.BadParameter("name a MODEL, or a --config file that does")
    run = configs.make({**read, **chosen})
    if dry_run:
        from .build.preflight import passes_of

        resolved = configs.resolve(run)
        passes_of(resolved)
        console.text(resolved.to_yaml())
        return 0
    if run.out is None:
        raise typer.BadParameter("name the bundle's directory with -o OUT")
    from .verbs.optimize import run as run_config

    return _report(run_config(run, console), console)


def _report(outcome: Any, console: Console) -> int:
    from . import report

    if console.json:
        console.value(outcome.to_json())
    else:
        console.show(*report.tables(outcome))
    for failure in outcome.failures:
        complain(f"optimize: {failure}")
    return outcome.status


@app.command()
@verb
def build(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="YAML: models x targets x goals, or one run's settings", show_default=False
        ),
    ] = None,
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the bundles")] = "dist",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="of a build, model, target or goal, * for anything; may be repeated",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be built and stop")] = False,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="rebuild the lock's bytes, measure nothing; refuse changed inputs"),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="measure anew although nothing has changed")] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="fail where a build became slower, larger or worse beyond noise")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="LOCK", help="hold builds against it; the last lock by default", show_default=False
        ),
    ] = None,
    lock: Annotated[
        str | None, typer.Option(metavar="LOCK", help="FILE with .lock by default", show_default=False)
    ] = None,
    junit: Annotated[
        str | None, typer.Option(metavar="XML", help="write JUnit XML there", show_default=False)
    ] = None,
    summary: Annotated[
        str | None, typer.Option(metavar="MD", help="write a Markdown summary there", show_default=False)
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the file's JSON schema, for editors, and stop")
    ] = False,
    *,
    console: Console,
) -> int:
    """Build many models for many targets from one file; what is unchanged is left as it is."""
    if schema:
        from .deploy.schema import printed_schema

        console.text(printed_schema())
        return 0
    if file is None:
        raise typer.BadParameter("name the FILE to build from (--schema prints what it may hold)")
    from .deploy import command

    if dry_run:
        return command.dry_run(file, only or (), console)
    told = {"frozen": frozen, "again": again, "gate": gate}
    return command.build(file, out, only or (), lock, against, (junit, summary), console, **told)


@app.command()
@verb
def demo(
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the bundle")] = "minilm-balanced",
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quick: Annotated[bool, typer.Option("--quick", help="a first look: fewer rounds, no PyTorch")] = False,
    *,
    console: Console,
) -> int:
    """Make a real sentence encoder (all-MiniLM-L6-v2) faster."""
    from .verbs.demo import run_demo

    return _report(run_demo(out, threads, seed, force, quick, console), console)


@app.command()
@verb
def passes(
    name: Annotated[str | None, typer.Argument(help="one pass, in full", show_default=False)] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="show what the pass rewrites in MODEL", show_default=False),
    ] = None,
    *,
    console: Console,
) -> int:
    """List the passes, describe one, or show what one rewrites in a model."""
    from ..passes.manager.registry import names
    from .verbs import passes as catalog

    if on is not None:
        if name is None:
            raise typer.BadParameter("name the pass to try: optimize passes NAME --on MODEL")
        from .build.steps import StepEvidence, step_json
        from .verbs.rewrites import described, tried

        step = tried(name, on, console)
        if console.json:
            console.value(step_json(StepEvidence(step)))
        else:
            console.show(described(step))
        return 1 if step.error is not None else 0
    entries = [catalog.entry(known) for known in ([name] if name else names())]
    if console.json:
        console.value([entry.to_json() for entry in entries])
    elif name:
        console.show(catalog.describe(entries[0]))
    else:
        console.show(catalog.table(entries))
    return 0


@app.command("inspect")
@verb
def inspect_model(
    model: Model,
    quant: Annotated[
        bool, typer.Option("--quant", help="of a bundle: what quantization did to each layer, worst first")
    ] = False,
    shapes: Shapes = None,
    threads: Threads = None,
    untimed: Annotated[bool, typer.Option("--untimed", help="leave the clock out")] = False,
    model_type: ModelType = None,
    *,
    console: Console,
) -> None:
    """Say what MODEL is made of, what its blocks cost, and what was not recognised and why."""
    if quant:
        from ..passes.quantize.report.layer import to_json
        from .verbs import inspect_quant

        layers = inspect_quant.rows(model)
        if console.json:
            console.value(to_json(layers))
        else:
            console.show(inspect_quant.table(layers))
        return
    from ..backends.target import check_threads
    from .verbs import inspect_costs
    from .verbs import inspect_model as inspection

    if threads is not None:
        check_threads(threads)
    found = inspection.inspect(model, model_type)
    costs = inspect_costs.costs(found.program, shapes, threads, not untimed)
    if console.json:
        console.value({**found.to_json(), "costs": costs.to_json()})
    else:
        console.show(*inspection.tables(found), *inspect_costs.tables(costs))


@app.command()
@verb
def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="bundles, ONNX files and model directories")
    ],
    shapes: Shapes = None,
    threads: Threads = None,
    seed: Seed = 0,
    isa: Annotated[
        bool, typer.Option("--isa", help="also say on which instruction sets int8 sums are right")
    ] = False,
    rpc: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="TVM RPC tracker: time tvm bundles on --device", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="of the machine that the tracker lends", show_default=False),
    ] = None,
    *,
    console: Console,
) -> None:
    """Time models side by side; each ratio is against the first."""
    from ..backends.measuring.workloads import names_in
    from ..backends.target import check_threads
    from .verbs import bench as benching

    if threads is not None and rpc is None:
        check_threads(threads)
    names = None if shapes is None else names_in(shapes)
    if (rpc is None) != (device is None):
        raise typer.BadParameter("write both --rpc HOST:PORT and --device KEY, or neither")
    if rpc and device:
        result = benching.bench_remotely(models, names, threads, seed, console, rpc, device)
    else:
        result = benching.bench(models, names, threads, seed, console, isa)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(*benching.tables(result))


@app.command()
@verb
def report(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="several make a comparison")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="html, md, json or csv; else as FILE ends", show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="else stdout; a page: report.html", show_default=False
        ),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option(
            callback=lambda value: value if value is None else _number(value),
            metavar="GRAMS",
            help="of CO2 a kWh of your grid: tells the CO2 of energy that was measured",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    *,
    console: Console,
) -> None:
    """Make a page, or rows for other programs, of what BUNDLEs say of themselves."""
    from .verbs import report as reporting

    form = "json" if console.json else reporting.chosen(form, out)
    text = reporting.report(bundles, form, grid)
    if out is None and form != "html":
        console.text(text)
        return
    path = reporting.written(text, out or reporting.PAGE, force)
    console.say(f"{path} is ready: open it in a browser" if form == "html" else f"{path} is ready")


@app.command()
@verb
@taking("preset", "pipeline", "threads", "shapes", "seed")
def tune(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|BUNDLE", help="a bundle: what it was made from", show_default=False),
    ],
    trials: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="schedules tried for each function that no kernel covers"),
    ] = 64,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Search faster kernels for MODEL on this machine; later builds with --backend tvm use them.

    Everything timed is kept: an interrupted search goes on where it was.
    """
    from .verbs import tune as tuning

    result = tuning.tune(tuning.settings_of(model, settings(given)), trials, console)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(*tuning.tables(result))
    return result.status


@app.command()
@verb
@taking(
    "out", "data", "calibrate", "task", "columns", "samples", "threads", "shapes", "seed", "backend",
    "model_type", "quick",
)  # fmt: skip
def search(
    model: Model,
    goal: Annotated[
        str,
        typer.Option(help='limits, as in "latency<=5ms@1x128, drop<=1.0, size<=20MB"', show_default=False),
    ] = "",
    minimise: Annotated[
        str | None, typer.Option(help="latency, size or drop; what the goal limits by default")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="of all trials, as 2h or 90m; 1h by default", show_default=False)
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="trials at most", show_default=False)] = None,
    space: Annotated[
        str | None,
        typer.Option(metavar="FILE.yaml|show", help="narrow the space, or print it", show_default=False),
    ] = None,
    sampler: Annotated[Sampler, typer.Option(help="what decides")] = Sampler.TPE,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="database of the study", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the search in OUT")] = False,
    best: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="keep only the bundle that is best in it", show_default=False),
    ] = None,
    *,
    console: Console,
    **given: Any,
) -> int:
    """Search what makes MODEL faster or smaller within limits; keep bundles of the Pareto front.

    Every trial is kept: a search that was interrupted or killed goes on with --resume.
    """
    from .verbs import search as searching

    chosen = settings({"model": model, **given})
    if space == "show":
        console.text(searching.shown(chosen, console))
        return 0
    if "out" not in chosen:
        raise typer.BadParameter("name the search's folder with -o OUT")
    found = searching.run(
        chosen,
        {
            "goal": goal,
            "minimise": minimise,
            "budget": budget,
            "trials": trials,
            "space": space,
            "sampler": sampler.value,
            "storage": storage,
            "resume": resume,
            "best": best,
        },
        console,
    )
    if console.json:
        console.value(found.to_json())
    else:
        console.show(*searching.tables(found))
    for failure in found.failures:
        complain(f"optimize: {failure}")
    return found.status


@app.command()
@verb
def verify(
    first: Annotated[str, typer.Argument(metavar="A")],
    second: Annotated[str, typer.Argument(metavar="B")],
    tolerance: Annotated[
        float,
        typer.Option(callback=_number, help="largest difference, on outputs scaled by max(1, |A|)"),
    ] = 1e-4,
    seed: Seed = 0,
    *,
    console: Console,
) -> int:
    """Check that A and B give the same outputs; status 1 if not, 3 if their outputs verify nothing."""
    from .verbs import verify as verification

    result = verification.verify(first, second, tolerance, seed)
    if console.json:
        console.value(result.to_json())
    else:
        console.show(result.sentence)
    return result.status


@app.command()
@verb
def run(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    text: Annotated[
        list[str] | None, typer.Option("--text", help="may be repeated", show_default=False)
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            help="JSON or .npz file with an array for each input, instead of text",
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
) -> None:
    """Run a bundle on texts or arrays and print what it says."""
    from .verbs import run as running

    found = running.run(bundle, text, inputs)
    if console.json:
        console.value(running.to_json(found))
    else:
        console.show(*running.lines(found))


@app.command()
@verb
@taking("data", "columns")
def towers(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="the bundle that reads questions")],
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="the bundle that reads texts")],
    out: Annotated[str, typer.Option("-o", "--out", help="directory for both")],
    force: Annotated[bool, typer.Option("--force", help="replace earlier towers at OUT")] = False,
    seed: Seed = 0,
    *,
    console: Console,
    **given: Any,
) -> None:
    """Join the bundles of a dual encoder's two towers, for `optimize index`; --data judges them."""
    from .retrieval.towers import Towers
    from .verbs import towers as joining

    columns = dict(part.split("=", 1) for part in (given["columns"] or "").split(",") if part)
    found = Towers.join(query, document, out, force=force)
    score = joining.judged(found, given["data"], columns, 2000, seed) if given["data"] else None
    if console.json:
        console.value({"directory": out, "model": found.digest, "quality": score and score.to_json()})
    else:
        console.show(*joining.lines(found, score))


@app.command("knn-lm")
@verb
def knn_lm(
    model: Model,
    store: Annotated[str, typer.Argument(metavar="STORE", help="directory of the datastore")],
    texts: Annotated[
        str | None, typer.Option(help="build STORE from this file of texts", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="file of texts to tell perplexity on", show_default=False)
    ] = None,
    columns: Annotated[str | None, OPTIONS["columns"].__metadata__[0]] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="that are looked at")] = 1024,
    weight: Annotated[
        float | None, typer.Option(help="of the neighbours; chosen by half of the texts", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="of squared distances; chosen likewise", show_default=False)
    ] = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier datastore")] = False,
    *,
    console: Console,
) -> None:
    """Mix what followed similar states in a collection into a language model, and tell its perplexity."""
    from ..backends.target import allowed_cpus
    from .verbs import knn_lm as mixing

    if texts is None and data is None:
        raise typer.BadParameter("name --texts to build the datastore from, --data to judge it on, or both")
    found, mixed = mixing.run(
        model, store, texts, data, _text_column(columns), neighbours, weight, temperature,
        threads or len(allowed_cpus()), force, console,
    )  # fmt: skip
    if console.json:
        console.value({"directory": store, "tokens": len(found), "quality": mixed and asdict(mixed)})
    else:
        console.show(*mixing.lines(store, found, mixed))


def _text_column(columns: str | None) -> str | None:
    return dict(part.split("=", 1) for part in columns.split(",")).get("text") if columns else None


@app.command("index")
@verb
def index_texts(
    source: Annotated[
        str, typer.Argument(metavar="BUNDLE|INDEX", help="a bundle to embed texts with, or an index to ask")
    ],
    texts: Annotated[
        str | None, typer.Argument(metavar="TEXTS", help="csv, tsv, jsonl, json or txt", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="directory of the index", show_default=False)
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", help="ask INDEX; may be repeated", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="texts for each query")] = 10,
    bundle: Annotated[
        str | None,
        typer.Option(help="that INDEX was built with, if it has moved since", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="float32 (the default), int8, binary or hnsw", show_default=False)
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="dimensions kept; all by default", show_default=False)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="cosine (the default) or dot", show_default=False)
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="recall@10 to reach; 0.99 of int8, 0.95 of binary, hnsw", show_default=False),
    ] = None,
    columns: Annotated[str | None, OPTIONS["columns"].__metadata__[0]] = None,
    append: Annotated[bool, typer.Option("--append", help="add TEXTS to the index at OUT")] = False,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier index at OUT")] = False,
    *,
    console: Console,
) -> None:
    """Make an index of a file's texts with a sentence encoder's bundle, or ask one."""
    from .verbs import index as indexing

    if query:
        if texts is not None or out is not None:
            raise typer.BadParameter("name the index and what to ask: optimize index INDEX --query TEXT")
        hits = indexing.ask(source, query, bundle, k, threads)
        if console.json:
            console.value([[asdict(hit) for hit in each] for each in hits])
        else:
            console.show(*indexing.lines(query, hits))
        return
    if texts is None or out is None:
        raise typer.BadParameter(
            "write optimize index BUNDLE TEXTS -o INDEX, or optimize index INDEX --query TEXT"
        )
    column = _text_column(columns)
    chosen = {"kind": kind, "dims": dims, "metric": metric, "recall": recall, "force": force or None}
    options = {name: value for name, value in chosen.items() if value is not None}
    if append and options:
        raise typer.BadParameter(f"--append adds to an index as it is: leave out --{next(iter(options))}")
    found = indexing.build(source, texts, out, column, append, console, **options)
    if console.json:
        console.value(found.to_json())
    else:
        console.show(*indexing.said(found))


@app.command()
@verb
def pack(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    format: Annotated[
        Format, typer.Option("--format", help="an archive, a wheel with a load() of its own, an image")
    ] = Format.TAR,
    out: Annotated[str, typer.Option("-o", "--out", help="directory that the file appears in")] = ".",
    name: Annotated[
        str | None, typer.Option(help="of the package, instead of BUNDLE's", show_default=False)
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="of the package; by default what is in it decides", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="of the model, for the SBOM", show_default=False)
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="of optimize runner, for an image; else one is built", show_default=False
        ),
    ] = None,
    force: Force = False,
    *,
    console: Console,
) -> None:
    """Pack a bundle into one file, with an SBOM and licences; the same bundle gives the same bytes."""
    from .verbs import pack as packing

    labels = {"name": name, "version": version, "licence": licence}
    found = packing.pack(bundle, format, out, **labels, runner=runner, force=force)
    if console.json:
        console.value(packing.to_json(found))
    else:
        console.show(packing.sentence(found))


@app.command()
@verb
def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(metavar="BUNDLE...", help="directories, or NAME=DIRECTORY; the first is meant"),
    ],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for other machines")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    api_key_file: Annotated[
        str | None,
        typer.Option(help="keys, one a line; else GRAPHWRIGHT_API_KEY's, else none", show_default=False),
    ] = None,
    threads: Threads = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="calls at once; one a thread, or 1 of compiled bundles", show_default=False
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, max=1 << 20, help="of a call; 512, or a model's longest text", show_default=False
        ),
    ] = None,
    waiting_tokens: Annotated[
        int, typer.Option(min=1, max=1 << 26, help="that may wait; beyond them 429")
    ] = 1 << 18,
    requests: Annotated[int, typer.Option(min=1, max=1 << 16, help="at once; beyond them 429")] = 512,
    texts: Annotated[int, typer.Option(min=1, max=1 << 20, help="of a request; beyond them 413")] = 2048,
    body_bytes: Annotated[int, typer.Option(min=1, max=1 << 30, help="of a request")] = 2 << 20,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="seconds that a body may take and texts may wait")
    ] = 30.0,
    grace: Annotated[float, typer.Option(min=1, max=3600, help="seconds to end in, after SIGTERM")] = 60.0,
    auto_truncate: Annotated[
        bool, typer.Option("--auto-truncate", help="cut long texts where a request doesn't say")
    ] = False,
    dimensions: Annotated[
        str | None,
        typer.Option(
            metavar="64,128", help="widths that the model was trained to be cut to", show_default=False
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="of JSON lines on stderr")] = LogLevel.INFO,
    *,
    console: Console,
) -> None:
    """Serve bundles over HTTP: /embed, /rerank, /predict and OpenAI's /v1/embeddings."""
    from .verbs import serve as serving

    limits: dict[str, int | float | bool] = {
        "waiting": waiting_tokens,
        "requests": requests,
        "body": body_bytes,
        "bodies": max(64 << 20, body_bytes),
        "texts": texts,
        "seconds": timeout,
        "truncate": auto_truncate,
    }
    serving.serve(
        bundles,
        host,
        port,
        api_key_file,
        threads,
        parallel,
        batch_tokens,
        dimensions,
        limits,
        grace,
        log_level.value,
    )


@app.command()
@verb
def push(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="of the model, for its card", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="where the repository is made now")] = False,
    *,
    console: Console,
) -> None:
    """Put a bundle on the Hugging Face Hub in one commit, with a model card made from its report."""
    from .pack.hub import push as pushing

    address = pushing(bundle, repo, licence=licence, private=private)
    if console.json:
        console.value({"commit": address})
    else:
        console.show(address)


@app.command()
@verb
def runner(
    out: Annotated[str, typer.Option("-o", "--out", help="directory for the runner; must be new")],
    compiler: Annotated[
        str | None,
        typer.Option(
            metavar="system|zig", help="by default the system's where there is one", show_default=False
        ),
    ] = None,
    *,
    console: Console,
) -> None:
    """Build a C library and a program that run bundles without Python."""
    if compiler not in (None, "system", "zig"):
        raise typer.BadParameter("--compiler is system or zig")
    from .verbs import runner as building

    folder = building.build(out, compiler)
    if console.json:
        console.value(building.to_json(folder))
    else:
        console.show(*building.sentences(folder))


@app.command()
@verb
def targets(*, console: Console) -> None:
    """List the hardware that --target can name."""
    from .verbs import targets as listing

    found = listing.listed()
    if console.json:
        console.value([target.to_json() for target in found])
    else:
        console.show(listing.table(found))


class Shell(StrEnum):
    """Shells that a completion script exists for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="the shell that will read it")]) -> None:
    """Print a script that makes SHELL complete verbs and options: eval "$(optimize completion bash)"."""
    from typer.completion import get_completion_script

    print(get_completion_script(prog_name="optimize", complete_var=COMPLETE, shell=shell.value))


def main() -> None:
    """The console script."""
    prepare()
    if COMPLETE in os.environ:
        from typer.completion import completion_init

        completion_init()
    app(prog_name="optimize")


if __name__ == "__main__":
    main()
