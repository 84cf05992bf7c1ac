"""`optimize completion`: a script for the shell."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

COMPLETE = "_OPTIMIZE_COMPLETE"  # in the environment while a shell asks for completions


class Shell(StrEnum):
    """Shells that a completion script exists for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="the shell that will read it")]) -> None:
    """Print a script that makes SHELL complete verbs and options: eval "$(optimize completion bash)"."""
    from typer.completion import get_completion_script

    print(get_completion_script(prog_name="optimize", complete_var=COMPLETE, shell=shell.value))
