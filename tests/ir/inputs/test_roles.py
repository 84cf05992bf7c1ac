"""What inputs are, and which values they take, is read from what the graph does with them."""

import numpy as np
import onnx
import pytest
import torch
from graphwright import trace
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.inputs.roles import input_specs
from graphwright.ir.sources.onnx_file import from_onnx
from graphwright.ir.view import view
from handmade import parsed
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from torch import nn

LOWEST = float(np.finfo("float32").min)
KEEP = torch.arange(11)[None] < torch.tensor([11, 7, 4])[:, None]
IDS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(0))


class Attends(nn.Module):
    """One attention written by hand over the ids' embeddings; `hide` says what a mask does to the scores."""

    def __init__(self, hide):
        super().__init__()
        self.table, self.qkv, self.hide = nn.Embedding(97, 16), nn.Linear(16, 48), hide

    def forward(self, ids, keys):
        x = self.table(ids)
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = self.hide(q @ k.transpose(-1, -2) / 8**0.5, keys[:, None, None])
        return x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


HIDES = {
    "== 0": (lambda s, m: s.masked_fill(m == 0, -1e9), KEEP.long(), 0),
    "true hides": (lambda s, m: s.masked_fill(m, -torch.inf), ~KEEP, 1),
    "not": (lambda s, m: s.masked_fill(~m, -torch.inf), KEEP, 0),
    "1 - mask": (lambda s, m: s + (1.0 - m) * -1e4, KEEP.to(torch.uint8), 0),
    "times": (lambda s, m: s - m.float() * 1e9, ~KEEP, 1),
    "where": (lambda s, m: torch.where(m != 0, s, torch.finfo(s.dtype).min), KEEP.int(), 0),
    "!= 1": (lambda s, m: s.masked_fill(m != 1, -1e9), KEEP.int(), 0),
    "added": (lambda s, m: s + m, torch.zeros(3, 11).masked_fill(~KEEP, -torch.inf), LOWEST),
    "0/1 floats": (lambda s, m: s + (m - 1) * 1e9, KEEP.float(), 0),
}


@pytest.mark.parametrize("how", HIDES)
def test_polarity_is_what_the_mask_does_to_the_scores(how):
    hide, mask, hidden = HIDES[how]
    program = trace(Attends(hide).eval(), inputs=[IDS, mask])
    spec = program.inputs[1]
    assert (spec.role, spec.hidden) == ("attention_mask", hidden)
    for feed in probes(program, 0):
        kept = spec.kept(feed["keys"])
        assert kept.any(1).all()
        # Hidden tokens are read by nobody: the rows of real ones don't depend on them.
        other = {**feed, "ids": np.where(kept, feed["ids"], (feed["ids"] + 1) % 97)}
        one, two = (execute(program, [f])[0]["output"] for f in (feed, other))
        np.testing.assert_allclose(one[kept], two[kept], atol=1e-6)


def test_a_name_does_not_make_a_mask():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.kinds = nn.Embedding(97, 16), nn.Embedding(3, 16)

        def forward(self, ids, mask):
            return self.table(ids) + self.kinds(mask)

    (_, spec) = trace(Named().eval(), inputs=[IDS, KEEP.long()]).inputs
    assert (spec.role, spec.high) == ("token_type_ids", 3)


def test_pytorchs_own_encoder_hides_where_its_mask_is_true():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.encoder = nn.Embedding(97, 16), encoder

        def forward(self, ids, src_key_padding_mask):
            return self.encoder(self.table(ids), src_key_padding_mask=src_key_padding_mask)

    spec = trace(Encoder().eval(), inputs=[IDS, ~KEEP]).inputs[1]
    assert (spec.role, spec.hidden) == ("attention_mask", 1)


@pytest.fixture(scope="module")
def speech():
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(8, 16)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, features, lengths):
            hidden = torch.arange(features.shape[1])[None] >= lengths[:, None]
            return self.encoder(self.project(features), src_key_padding_mask=hidden)

    return trace(Speech().eval(), inputs=[torch.randn(3, 11, 8), torch.tensor([11, 7, 4])])


def test_lengths_follow_the_axis_that_they_count(speech):
    spec = speech.inputs[1]
    assert (spec.role, spec.low, spec.follows, spec.reach) == ("other", 1, "length", 1)
    assert not spec.indexes  # a length beyond the end hides nothing, and reads nothing
    ragged = 0
    for feed in probes(speech, 0):
        longest = feed["features"].shape[1]
        assert 1 <= feed["lengths"].min() <= feed["lengths"].max() <= longest
        ragged += len(set(feed["lengths"].tolist())) > 1
        (result,) = execute(speech, [feed])
        assert np.isfinite(result["output"]).all()
    assert ragged >= 2


class Picks(nn.Module):
    """Ids from 1, the last token of each row by its length, one by its place, and a pooling mask of rows."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(97, 16)

    def forward(self, ids, lengths, marker):
        x = self.table(ids - 1)
        rows = torch.arange(x.shape[0])
        return x[rows, lengths - 1], x.gather(1, marker[:, None, None].expand(-1, 1, 16))[:, 0]


def test_ids_lengths_and_places_stay_within_what_the_graph_reads():
    lengths, marker = torch.tensor([11, 7, 4]), torch.tensor([8, 3, 1])
    program = trace(Picks().eval(), inputs=[IDS + 1, lengths, marker])
    ids, count, place = program.inputs
    assert (ids.low, ids.high) == (1, 98)
    assert (count.low, count.follows, count.reach) == (1, "length", 1)
    assert (place.low, place.follows, place.reach) == (0, "length", 0)
    assert count.indexes
    assert place.indexes
    for feed in probes(program, 0):
        assert feed["ids"].min() >= 1
        execute(program, [feed])


def test_what_nothing_tells_stays_within_the_example():
    class Formula(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(97, 16)

        def forward(self, ids, year, stop):
            angle = year[:, None, None] / 1000.0
            return self.table(ids) * angle + stop[:, None, None].float().log()

    years, stop = torch.tensor([1990, 2003, 2021]), torch.tensor([11, 5, 2])
    program = trace(Formula().eval(), inputs=[IDS, years, stop])
    assert program.inputs[1].seen == (1990, 2021)
    assert program.inputs[2].follows == "length"  # its largest is the size of an axis
    for feed in probes(program, 0):
        assert 1990 <= feed["year"].min() <= feed["year"].max() <= 2021
        assert 1 <= feed["stop"].min() <= feed["stop"].max() <= feed["ids"].shape[1]


class Looks(nn.Module):
    """Two attentions by PyTorch's operator under a mask of queries and keys."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(97, 16)
        self.qkv = nn.ModuleList(nn.Linear(16, 48) for _ in range(2))

    def forward(self, ids, mask):
        x = self.table(ids)
        for layer in self.qkv:
            q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in layer(x).chunk(3, -1))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + mixed.transpose(1, 2).flatten(2)
        return x


FULL = KEEP[:, None, None, :] & KEEP[:, None, :, None]


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_of_queries_and_keys_is_probed_in_several_patterns(kind):
    mask = FULL if kind == "bool" else torch.zeros(FULL.shape).masked_fill(~FULL, -1e9)
    program = trace(Looks().eval(), inputs=[IDS, mask])
    spec = program.inputs[1]
    assert (spec.role, spec.hidden) == ("mask", 0 if kind == "bool" else LOWEST)
    kept = [spec.kept(feed["mask"]) for feed in probes(program, 0)]
    assert len({array.mean() for array in kept}) > 3
    assert any(array.all() for array in kept)
    # Where PyTorch gives zeros for a query without keys such queries are tried, elsewhere they give NaN.
    assert any((~array.any(-1)).any() for array in kept) == (kind == "bool")


def test_a_bias_over_the_scores_is_no_mask_and_a_pooling_mask_of_floats_is_one():
    slopes = -torch.arange(11.0) * torch.tensor([0.5, 0.25])[:, None, None]
    assert trace(Looks().eval(), inputs=[IDS, slopes[None]]).inputs[1].role == "other"

    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(97, 16)

        def forward(self, ids, weights):
            return (self.table(ids) * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    assert trace(Pools().eval(), inputs=[IDS, KEEP.float()]).inputs[1].role == "attention_mask"
    assert trace(Pools().eval(), inputs=[IDS, torch.rand(3, 11)]).inputs[1].role == "other"


def test_a_causal_mask_of_the_users_is_no_mask_of_tokens():
    causal = torch.ones(11, 11).tril().bool()
    program = trace(Looks().eval(), inputs=[IDS, causal])
    spec = program.inputs[1]
    assert spec.role == "mask"
    for feed in probes(program, 0):
        assert np.isfinite(execute(program, [feed])[0]["output"]).all()


def test_boxes_have_their_corners_in_order():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.x, self.w = nn.Embedding(97, 16), nn.Embedding(101, 16), nn.Embedding(101, 16)

        def forward(self, ids, bbox):
            return self.table(ids) + self.x(bbox[..., 0]) + self.w(bbox[..., 2] - bbox[..., 0])

    bbox = torch.randint(0, 101, (3, 11, 4)).sort(-1).values
    program = trace(Boxes().eval(), inputs=[IDS, bbox])
    assert (program.inputs[1].role, program.inputs[1].high) == ("other", 101)
    for feed in probes(program, 0):
        execute(program, [feed])


TABLE = np.random.default_rng(0).standard_normal((97, 8), dtype=np.float32)


def saved(path, inputs, nodes, rank):
    """An ONNX file whose named axes are free, captured; its output is "y", of `rank` axes."""
    takes = [make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    gives = [make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)]
    constants = {"table": TABLE, "wide": np.array([1, 1, 8]), "one": np.array([1]), "two": np.array([2])}
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = make_graph(nodes, "g", takes, gives, held)
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10), path)
    return from_onnx(path)


WORDS = (
    make_node("Gather", ["table", "input_ids"], ["hidden"]),
    make_node("Unsqueeze", ["word_positions", "two"], ["places"]),
    make_node("Expand", ["places", "wide"], ["spread"]),
    make_node("GatherElements", ["hidden", "spread"], ["picked"], axis=1),
    make_node("Cast", ["span_mask"], ["spans"], to=TensorProto.FLOAT),
    make_node("ReduceMean", ["spans", "one"], ["weight"]),
    make_node("Unsqueeze", ["weight", "two"], ["weights"]),
    make_node("Mul", ["picked", "weights"], ["y"]),
)


def test_positions_of_words_in_an_onnx_file_stay_inside_the_text(tmp_path):
    kind = TensorProto.INT64
    program = saved(
        tmp_path / "words.onnx",
        {
            "word_positions": (kind, ["batch", "words"]),
            "input_ids": (kind, ["batch", "sequence"]),
            "span_mask": (kind, ["batch", "spans"]),
        },
        WORDS,
        3,
    )
    places, ids, spans = program.inputs
    assert (ids.role, ids.high, ids.shape) == ("token_ids", 97, ("batch", "length"))
    assert (places.role, places.shape, places.follows) == ("other", ("batch", "words"), "length")
    assert (spans.role, spans.shape) == ("mask", ("batch", "spans"))
    for feed in probes(program, 0):
        assert feed["word_positions"].max() < feed["input_ids"].shape[1]
        execute(program, [feed])


def test_two_towers_keep_their_lengths_and_masks_apart(tmp_path):
    kind = TensorProto.INT64
    inputs, nodes = {}, []
    for tower in ("query", "document"):
        axes = ["batch", f"{tower}_length"]
        inputs |= {f"{tower}_ids": (kind, axes), f"{tower}_mask": (kind, axes)}
        nodes += [
            make_node("Gather", ["table", f"{tower}_ids"], [f"{tower}_hidden"]),
            make_node("Cast", [f"{tower}_mask"], [f"{tower}_real"], to=TensorProto.FLOAT),
            make_node("Unsqueeze", [f"{tower}_real", "two"], [f"{tower}_column"]),
            make_node("Mul", [f"{tower}_hidden", f"{tower}_column"], [f"{tower}_shown"]),
            make_node("ReduceSum", [f"{tower}_shown", "one"], [f"{tower}_sum"]),
        ]
    nodes.append(make_node("Mul", ["query_sum", "document_sum"], ["y"]))
    program = saved(tmp_path / "towers.onnx", inputs, nodes, 2)
    roles = {spec.name: (spec.role, spec.shape[1]) for spec in program.inputs}
    assert roles["query_ids"] == ("token_ids", "length")
    assert roles["query_mask"] == ("attention_mask", "length")
    assert roles["document_ids"] == ("token_ids", "document_length")
    assert roles["document_mask"] == ("attention_mask", "document_length")
    execute(program, probes(program, 0))


def test_a_position_that_turns_by_sines_is_no_mask_although_the_sine_of_zero_is_zero():
    program = parsed(
        """p = Cast <to=1> (position_ids)
        column = Unsqueeze (p, last)
        angle = Mul (column, frequencies)
        sine = Sin (angle)
        y = Mul (x, sine)""",
        "float[batch,length,4] x, int64[batch,length] position_ids",
        "float[batch,length,4] y",
        {"last": np.array([-1]), "frequencies": np.array([1, 0.1, 0.01, 0.001], np.float32)},
    )
    shapes = {spec.name: spec.shape for spec in program.inputs}
    specs = input_specs(view(program), shapes, {"x": "float32", "position_ids": "int64"})
    assert [spec.role for spec in specs] == ["hidden", "position_ids"]
