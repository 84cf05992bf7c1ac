"""Parameters of BERT shapes made a MobileBERT by passes, beside table 1 of its paper (arXiv:2004.02984).

    python benchmarks/mobile.py [--only tiny] [--layers 24]

24 layers of 512 features with random weights: nothing is downloaded and nothing is timed. Counted is the body
with its embeddings (30,522 tokens), with a column for a pooler, which the paper's own configurations leave
out (classifier_activation false). Beside it stands transformers' MobileBertModel of the same settings, which
has 512 numbers more: the bias of its embeddings' convolution, before positions that say the same.

Table 1 says 25.3 and 15.1 million. The configurations that its authors published (google-research,
mobilebert/config) have 24.6 and 15.5, in their code as in transformers' and in what these passes make. With
queries and keys that read all 512 features, as the table's row MHA says and the configuration does not, the
first has 25.36. No way of counting that was tried (pooler, positions, biases, norms, in or out) gives
both of the table's numbers as long as attention has an output projection.
"""

import argparse

import torch
from graphwright.ir.capture import capture
from graphwright.ir.footprint import parameters
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

HIDDEN, HEADS, WIDTH, INNER, POSITIONS, TOKENS, NARROW = 512, 4, 128, 512, 512, 30522, 128
EMBEDDING = f"factorise-embedding{{rank={NARROW}}},embedding-convolution{{kernel=3}}"
ROWS = {  # name -> (attention, feed-forwards, million by the paper)
    "MobileBERT": ("shared", 4, 25.3),
    "MobileBERT, attention of the stream": ("input", 4, 25.3),
    "MobileBERT-tiny": ("bottleneck", 2, 15.1),
}


def bert(layers: int) -> Program:
    """A random BERT without a pooler."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=TOKENS, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN, max_position_embeddings=POSITIONS,
    )  # fmt: skip
    ids = torch.arange(3 * 8).reshape(3, 8)
    module = BertModel(config, add_pooling_layer=False).eval()
    return capture(module, inputs={"input_ids": ids, "attention_mask": ids * 0 + 1})


def counted(program: Program, text: str) -> int:
    """Parameters after a pipeline.

    Raises:
        GraphwrightError: a pass was refused or rolled back.
    """
    run = Pipeline.parse(text).run(program, Context())
    for step in run.steps:
        if step.error is not None:
            raise step.error
    return parameters(run.program)


def reference(layers: int, attention: str, feed_forwards: int) -> int:
    """Parameters of transformers' model. Where attention reads the stream, what it builds cannot run: its
    queries and keys are counted as wide as what they are given."""
    from transformers import MobileBertConfig, MobileBertModel

    config = MobileBertConfig(
        num_hidden_layers=layers, num_feedforward_networks=feed_forwards, normalization_type="layer_norm",
        key_query_shared_bottleneck=attention == "shared", use_bottleneck_attention=attention == "bottleneck",
    )  # fmt: skip
    with torch.device("meta"):
        module = MobileBertModel(config, add_pooling_layer=False)
    wider = 2 * layers * WIDTH * (HIDDEN - WIDTH) if attention == "input" else 0
    return sum(one.numel() for one in module.parameters()) + wider


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--layers", type=int, default=24)
    options = parser.parse_args()
    program = bert(options.layers)
    table = Table("model", "pipeline", "parameters", "with a pooler", "transformers", "paper (M)")
    for name, (attention, count, paper) in ROWS.items():
        if options.only in name:
            settings = f"width={WIDTH},feed_forwards={count},intermediate={INNER},attention={attention}"
            text = f"bottleneck{{{settings}}},{EMBEDDING}"
            found = counted(program, text)
            known, pooler = reference(options.layers, attention, count), HIDDEN * (HIDDEN + 1)
            table.add_row(name, text, f"{found:,}", f"{found + pooler:,}", f"{known:,}", str(paper))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
