"""`optimize MODEL` beside `optimize VERB`: what begins with no verb goes to a hidden command."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

DEFAULT = "<model>"  # what the hidden command is registered under; nobody types it


class DefaultGroup(TyperGroup):
    """A group whose default command takes whatever does not begin with a verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        first = args[0]
        if first not in {"--help", "-h", "--version"} and first not in self.commands:
            near = get_close_matches(first, [name for name in self.commands if name != DEFAULT], 1, 0.75)
            if near and not Path(first).exists():
                ctx.fail(f"there is no verb and no model {first!r}; did you mean {near[0]!r}?")
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == DEFAULT else name, command, rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.commands[DEFAULT].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
