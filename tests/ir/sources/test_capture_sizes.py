"""Which sizes a captured module takes: free where it can be, else fixed for a reason that is told."""

import numpy as np
import pytest
import torch
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.ir.capture import capture
from graphwright.ir.inputs.extents import extents, told
from graphwright.ir.sources.module import from_module
from graphwright.passes.manager.pipeline import Pipeline
from modules import Small, agree, floats, ids
from torch import nn
from torch.nn import functional as F  # noqa: N812

FREE = (1, 2**31 - 1)


def biased(self, x, bias):
    return F.softmax(x @ x.mT + bias, -1) @ self.linear(x)


@pytest.mark.parametrize(
    ("module", "example", "shapes"),
    [
        (Small(biased), [floats(1, 9, 4), floats(9, 9)], [("batch", "length", 4), ("length", "length")]),
        (
            Small(lambda self, x, t: self.linear(x) * t),
            [floats(1, 9, 4), torch.tensor(2.0)],
            [("batch", "length", 4), ()],
        ),
        (
            Small(lambda self, x: self.linear(x) + self.bias, bias=floats(9, 4)),
            [floats(1, 9, 4)],
            [("batch", 9, 4)],
        ),
        (Small(lambda self, x, w: self.linear(x) @ w), [floats(1, 9, 4), floats(2, 4, 4)[:1]], None),
    ],
    ids=["bias", "scalar", "buffer", "weights of the batch"],
)
def test_a_batch_of_one_comes_out_free(module, example, shapes):
    program = capture(module, inputs=example)
    assert program.symbols["batch"] == FREE
    if shapes is not None:
        assert [spec.shape for spec in program.inputs] == shapes
    assert not program.info.get("notes")
    sizes = {"batch": 4, "length": 9, "w_2": 6}
    shapes = [[sizes[d] if isinstance(d, str) else d for d in spec.shape] for spec in program.inputs]
    feed = [floats(*shape, seed=i) for i, shape in enumerate(shapes)]
    with torch.no_grad():
        agree(program, feed, [module(*feed)])


def test_a_module_that_takes_one_row_alone_is_of_one_row_and_says_why():
    program = capture(Small(lambda self, x: self.linear(x).view(9, 4)), inputs=[floats(1, 9, 4)])
    assert program.inputs[0].shape[0] == 1
    assert "x: axis 0 of 1 is fixed (the module takes no second row)" in told(program)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_head_has_the_length_of_the_example_and_warns(kind):
    module = Small(lambda self, x: self.rnn(x)[0], rnn=kind(4, 3, batch_first=True, bidirectional=True))
    program = capture(module, inputs=[floats(2, 5, 4)])
    assert program.inputs[0].shape == ("batch", 5, 4)
    (note,) = program.info["notes"]
    assert note == (
        "axis 1 of 'x' is fixed at 5, though Small takes others: the trace computes with the example's size; "
        "give an example of the size that calls have."
    )
    by_axis = {each.axis: each for each in extents(program) if each.name == "x"}
    assert (by_axis[0].kind, by_axis[1].kind, by_axis[2].kind) == ("free", "fixed", "fixed")
    assert by_axis[2].reason == "the module takes no other size"


def test_features_and_a_mask_that_indexes_them_have_one_length():
    def forward(self, x, mask):
        x = x.clone()
        x[mask == 0] = 0
        return self.linear(x)

    mask = (torch.arange(11)[None] < torch.tensor([11, 6, 3])[:, None]).long()
    module = Small(forward)
    program = capture(module, inputs=[floats(3, 11, 4), mask])
    assert [spec.shape for spec in program.inputs] == [("batch", "length", 4), ("batch", "length")]
    feed = [floats(2, 5, 4), mask[1:, 2:7]]
    with torch.no_grad():
        agree(program, feed, [module(*feed)])


def test_lengths_that_index_positions_do_not_hinder_the_trial_at_other_sizes():
    module = Small(lambda self, x, lengths: self.linear(x)[torch.arange(x.shape[0]), lengths - 1])
    program = capture(module, inputs=[floats(3, 11, 4), torch.tensor([11, 5, 9])])
    assert program.inputs[0].shape == ("batch", "length", 4)
    feed = [floats(2, 5, 4), torch.tensor([5, 1])]
    with torch.no_grad():
        agree(program, feed, [module(*feed)])


def test_a_trace_that_holds_for_the_example_alone_is_captured_for_it_alone_and_warns():
    program = capture(
        Small(lambda self, x: self.linear(x) if x.shape[1] % 2 else x), inputs=[floats(3, 11, 4)]
    )
    assert program.inputs[0].shape == ("batch", 11, 4)
    assert (
        "fixed at 11, though Small takes others: at another size the trace differs"
        in program.info["notes"][0]
    )


def test_a_trace_that_baked_in_values_of_the_example_is_found_at_the_examples_own_sizes():
    def forward(self, x, scale):
        return self.linear(x) * float(scale.numpy().max())

    from graphwright.ir.errors import CaptureError

    with pytest.raises(CaptureError, match="Small"):
        capture(Small(forward), inputs=[floats(3, 11, 4), floats(3)])


def test_sizes_are_told_by_symbol_and_by_axis_with_their_reasons():
    table = nn.Embedding(32, 4)
    module = Small(lambda self, i: self.table(i) + self.places(torch.arange(i.shape[1])), places=table)
    program = capture(module, inputs=[ids(3, 11)])
    assert told(program) == ["batch is free", "length is 1 to 32 (a table of positions ends at 32)"]
    assert [(e.name, e.axis, e.size, e.kind) for e in extents(program)] == [
        ("i", 0, "batch", "free"),
        ("i", 1, "length", "bounded"),
        ("output", 0, "batch", "free"),
        ("output", 1, "length", "bounded"),
        ("output", 2, 4, "fixed"),
    ]


def test_computed_sizes_of_outputs_are_expressions():
    module = Small(
        lambda self, x: F.conv1d(self.linear(x).mT, self.kernel).repeat(1, 2, 1), kernel=floats(4, 4, 3)
    )
    program = capture(module, inputs=[floats(3, 11, 4)])
    last = extents(program)[-1]
    assert (last.kind, last.size, last.low) == ("computed", "length - 2", None)
    assert told(program)[1] == "length is 3 or more"


@pytest.mark.parametrize("size", [24, 30])
def test_an_image_of_as_many_patches_is_no_other_size(size):
    """One pixel more or less may leave the patches as many: only far sizes tell that they are counted."""
    patches = nn.Conv2d(3, 4, 8, 8)
    module = Small(lambda self, x: self.mix(patches(x).flatten(2)), mix=nn.Linear((size // 8) ** 2, 5))
    program = capture(module, inputs=[floats(2, 3, size, size)])
    assert program.inputs[0].shape == ("batch", 3, size, size)
    assert f"axis 2 of {size}" in next(line for line in told(program) if "the module takes no other" in line)
    assert program.symbols["batch"] == FREE


def test_patches_counted_in_the_graph_are_lowered_at_every_size():
    """A grid of one patch would be traced as a constant."""

    class Grid(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 4, 8, 8)

        def forward(self, x):
            high, wide = x.shape[2] // 8, x.shape[3] // 8
            places = [torch.arange(0.5, n, dtype=torch.float32) / n for n in (high, wide)]
            grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).flatten(0, 1)
            return self.patches(x).flatten(2).mT + grid.repeat(1, 2)

    module = Grid().eval()
    program = Pipeline.parse("to-onnx").run(capture(module, inputs=[floats(2, 3, 24, 24)])).program
    artifact = OnnxRuntime().build(program)
    for shape in ((1, 3, 8, 8), (2, 3, 16, 40), (3, 3, 31, 24)):
        x = floats(*shape)
        with torch.no_grad():
            expected = module(x).numpy()
        (found,) = artifact.run({"x": x.numpy()}).values()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_given_to_torchs_own_encoder_and_decoder_is_traced(causal):
    """They look whether its values are causal, for a hint that a trace can't follow."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
            self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1)

        def forward(self, x, mask):
            return self.decoder(x, self.encoder(x, mask=mask), tgt_mask=mask)

    def masks(size, seed):
        if causal:
            return nn.Transformer.generate_square_subsequent_mask(size)
        return torch.where(torch.eye(size) > 0, 0.0, floats(size, size, seed=seed))

    module = Both().eval()
    program = capture(module, inputs=[floats(2, 9, 8), masks(9, 0)])
    assert [spec.shape for spec in program.inputs] == [("batch", "length", 8), ("length", "length")]
    for mask in (masks(5, 1), torch.zeros(5, 5), nn.Transformer.generate_square_subsequent_mask(5)):
        x = floats(3, 5, 8, seed=2)
        # With gradients: without, torch's fused encoder takes a bias for a boolean mask (docs/semantics.md).
        agree(program, [x, mask], [module(x, mask)])


def grown(self, x):
    n = x.shape[1]
    if self.places is None or self.places.shape[1] < n:
        self.places = torch.arange(n).float()[None, :, None]
    return self.linear(x) + self.places[:, :n]


def longest(self, x):
    n = x.shape[1]
    if n > self.longest:
        self.longest, self.places = n, torch.arange(n).float()[None, :, None]
    return self.linear(x) + self.places[:, :n]


@pytest.mark.parametrize("forward", [grown, longest])
def test_a_table_that_grows_with_the_longest_call_is_traced_for_every_length(forward):
    """torch.export calls a module several times; what it keeps from one is no part of the next."""
    module = Small(forward)
    module.places, module.longest = None, 0
    program = capture(module, inputs=[floats(2, 9, 4)])
    assert program.inputs[0].shape == ("batch", "length", 4)
    assert (module.places, module.longest) == (None, 0)
    x = floats(3, 17, 4)
    with torch.no_grad():
        agree(program, [x], [module(x)])


def test_tables_by_length_are_traced_for_the_length_of_the_example():
    def forward(self, x):
        n = x.shape[1]
        if n not in self.tables:
            self.tables[n] = torch.arange(n).float()[None, :, None]
        return self.linear(x) + self.tables[n]

    module = Small(forward)
    module.tables = {}
    program = capture(module, inputs=[floats(2, 9, 4)])
    assert program.inputs[0].shape == ("batch", 9, 4)
    assert "is fixed at 9, though Small takes others" in program.info["notes"][0]
    assert module.tables == {}


def test_axes_that_the_caller_names_are_called_so_and_not_by_torchs_own_symbols():
    module = Small(lambda self, x: F.conv2d(x, self.kernel), kernel=floats(2, 3, 2, 2))
    for labels, shape in (
        (("batch", 3, "height", "width"), ("batch", 3, "height", "width")),
        (("batch", 3, "s17", "s53"), ("batch", 3, "length", "x_3")),
    ):
        program = from_module(module, {"x": floats(2, 3, 6, 8)}, axes={"x": labels})
        assert program.inputs[0].shape == shape
        assert told(program)[1].startswith(f"{shape[2]} is ")
