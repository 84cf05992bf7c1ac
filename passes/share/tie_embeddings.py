"""tie-embeddings: one table for what tokens are looked up in and for what scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError, did_you_mean
from ...ir.footprint import parameters
from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from ..common.fx_weights import Matrix
    from .tables.ends import Ends


@dataclass(frozen=True)
class TieEmbeddings(Pass):
    """Let a language model's input and output table be one parameter, and tables that are equal anyway.

            h = embedding(table[30522,768], ids); y = linear(z, head[30522,768])
        ->  h = embedding(table[30522,768], ids); y = linear(z, table[30522,768])

    Press and Wolf, 2017, arXiv:1608.05859. Tables of one size that are equal bit by bit (a file that stores a
    tied table twice, an encoder's and a decoder's) become one, exactly. The output table is the matrix of a
    product that leads to an output and has a row a token; an output bias stays. One that is stored
    transposed is read through a transposition of the table. Of two input tables it goes with the decoder's.

    init: what the one table is where the two differ: "equal" leaves such alone, "input" and "output" take
        the one or the other, "mean" their mean; train afterwards (`distill`).
    tables: names of parameters to make one, instead of those found; the first of them counts as the input,
        the last as the output.
    """

    name: ClassVar[str] = "tie-embeddings"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    init: Literal["equal", "input", "output", "mean"] = "equal"
    tables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tables and len(set(self.tables)) < 2:
            raise ValueError(f"tables is {self.tables}, and two different ones or more become one")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import quantized
        from .tables.ends import ends
        from .tables.joined import join

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): tie its tables before")
        before, found = parameters(program), ends(program)
        pairs = self._named(program) if self.tables else self._pairs(found)
        made, notes = [], []
        now = {matrix.name: matrix for pair in pairs for matrix in pair}  # what each has become part of
        for one, other in ((now[one.name], now[other.name]) for one, other in pairs):
            if why := _unlike(one, other):
                if self.init != "equal" or self.tables:
                    raise PassError(f"{why}: factorise or prune one of them first, or leave this pass out")
                notes.append(why)
            elif self.init == "equal" and (away := _distance(one, other)):
                notes.append(
                    f"{one.name} and {other.name} differ (by up to {away:.3g}): init says which is taken"
                )
            elif one.name != other.name and context.allow(f"tie {one.name} and {other.name}"):
                made.append(join(program, one, other, self.init))
                now.update({name: one for name, matrix in now.items() if matrix is other})
        if not made:
            return Result(program, False, {}, tuple(notes or ["nothing to tie: the tables are one already"]))
        after = parameters(program)
        return Result(
            program, True,
            {"tables tied": ", ".join(made), "parameters before": before, "parameters after": after},
            tuple(notes),
        )  # fmt: skip

    def _pairs(self, found: Ends) -> list[tuple[Matrix, Matrix]]:
        """The ends; and where only what is equal is tied, every two tables that may be."""
        pairs = [(one, other) for one in found.inputs for other in found.outputs if other.rows == one.rows]
        if self.init == "equal":
            every = [*found.lookups, *(one for one in found.outputs if one not in found.lookups)]
            pairs += [
                (one, other)
                for number, one in enumerate(every)
                for other in every[number + 1 :]
                if one.tensor.shape == other.tensor.shape
                and (one, other) not in pairs
                and not _distance(one, other)
            ]
        if pairs:
            return pairs
        if not found.inputs:
            raise PassError("there are no tables to tie: no table is looked up by ids of tokens")
        table = found.inputs[0]
        raise PassError(
            f"there are no tables to tie: no product that leads to an output has a row for each of the "
            f"{table.rows} tokens of {table.name}"
        )

    def _named(self, program: Program) -> list[tuple[Matrix, Matrix]]:
        from ..common.fx_weights import find

        there = {matrix.name: matrix for matrix in find(program)[0]}
        for name in self.tables:
            if name not in there:
                raise PassError(f"there is no table '{name}'{did_you_mean(name, there)}")
        first, *others = (there[name] for name in self.tables)
        return [(first, other) for other in others]


def _unlike(one: Matrix, other: Matrix) -> str:
    if (one.rows, one.columns) == (other.rows, other.columns) and one.tensor.dtype == other.tensor.dtype:
        return ""
    sizes = [f"{m.name} ({m.rows}x{m.columns}, {str(m.tensor.dtype)[6:]})" for m in (one, other)]
    return f"{sizes[0]} and {sizes[1]} cannot be one table"


def _distance(one: Matrix, other: Matrix) -> float:
    """The largest difference of two matrices of one size; 0 where all bits are equal."""
    a, b = one.numbers(), other.numbers()
    return 0.0 if a.equal(b) else float((a - b).abs().max()) or float("nan")
