"""The `optimize` command. Only verbs import what they need, so that help and listings stay instant."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .command.bench import bench
from .command.build import build
from .command.completion import COMPLETE, completion
from .command.demo import demo
from .command.index import index_texts
from .command.inspect import inspect_model
from .command.knn_lm import knn_lm
from .command.optimize import optimize
from .command.pack import pack
from .command.passes import passes
from .command.push import push
from .command.report import report
from .command.run import run
from .command.runner import runner
from .command.search import search
from .command.serve import serve
from .command.targets import targets
from .command.towers import towers
from .command.tune import tune
from .command.verify import verify
from .routing import DEFAULT, DefaultGroup
from .surroundings import prepare

EXITS = (
    "Exit status: 0 done, 1 error, 2 wrong usage, 3 a goal such as --max-drop or a promise not met, "
    "or nothing verified, 130 interrupted."
)

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

COMMANDS = {  # in the order that help lists them
    DEFAULT: optimize,
    "build": build,
    "demo": demo,
    "passes": passes,
    "inspect": inspect_model,
    "bench": bench,
    "report": report,
    "tune": tune,
    "search": search,
    "verify": verify,
    "run": run,
    "towers": towers,
    "knn-lm": knn_lm,
    "index": index_texts,
    "pack": pack,
    "serve": serve,
    "push": push,
    "runner": runner,
    "targets": targets,
    "completion": completion,
}
for name, command in COMMANDS.items():
    app.command(name, hidden=name == DEFAULT)(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"graphwright {version('graphwright')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    prepare()
    if COMPLETE in os.environ:
        from typer.completion import completion_init

        completion_init()
    app(prog_name="optimize")


if __name__ == "__main__":
    main()
