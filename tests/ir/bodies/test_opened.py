"""Bodies of If and Loop: opened, looked at, fed and put back."""

import merged
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from graphwright.backends.bundles.feeds import check
from graphwright.ir.blocks import recognise
from graphwright.ir.bodies.feeds import body_feeds
from graphwright.ir.bodies.opened import bodies, put_back
from graphwright.ir.errors import GraphwrightError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.onnx import execute as running
from graphwright.ir.onnx.flattened import flattened
from graphwright.ir.onnx.graph import OnnxView
from graphwright.ir.program import Program
from graphwright.ir.sources.onnx_file import from_onnx
from graphwright.ir.spec import InputSpec
from graphwright.ir.view import view
from graphwright.passes.manager.wellformed import well_formed


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"merged": merged.merged(), "layers": merged.layers(3), "turning": merged.layers("turns")}
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
    return {name: from_onnx(folder / f"{name}.onnx") for name in models}


def test_inputs_that_only_bodies_read_are_known(programs):
    specs = {spec.name: spec for spec in programs["merged"].inputs}
    assert (specs["input_ids"].role, specs["input_ids"].high) == ("token_ids", merged.VOCABULARY)
    assert specs["attention_mask"].role == "attention_mask"
    assert specs["use_cache_branch"].role == "cache_flag"
    assert programs["merged"].symbols["past_sequence_length"][0] == 0
    turns = next(spec for spec in programs["turning"].inputs if spec.name == "turns")
    assert {int(feed["turns"]) for feed in probes(programs["turning"], 0)} <= {0, 1, 2, 3}
    assert turns.seen == (0, 3)


def test_the_flag_follows_the_cache_in_probes(programs):
    feeds = probes(programs["merged"], 0)
    past = [feed["past.0.key"].shape[2] for feed in feeds]
    assert [bool(feed["use_cache_branch"].all()) for feed in feeds] == [size > 0 for size in past]
    assert 0 in past
    assert max(past) > 8
    for feed, size in zip(feeds, past, strict=True):
        assert feed["attention_mask"].shape[1] == size + feed["input_ids"].shape[1]
        check(programs["merged"].inputs, programs["merged"].symbols, feed)


def test_a_flag_that_is_turned_round(tmp_path):
    model = merged.merged(flag="first_call")
    chosen = next(node for node in model.graph.node if node.op_type == "If")
    turn = onnx.helper.make_node("Not", [chosen.input[0]], ["turned"])
    model.graph.node.insert(list(model.graph.node).index(chosen), turn)
    chosen.input[0] = "turned"
    onnx.save(model, tmp_path / "m.onnx")
    for feed in probes(from_onnx(tmp_path / "m.onnx"), 0):
        assert bool(feed["first_call"].all()) == (feed["past.0.key"].shape[2] == 0)


def test_blocks_in_both_branches_are_seen(programs):
    found = recognise(OnnxView(flattened(programs["merged"].graph)))
    assert (len(found.attention), len(found.feed_forward), len(found.embedding)) == (2, 2, 2)
    assert not recognise(view(programs["merged"])).attention
    assert len(recognise(OnnxView(flattened(programs["layers"].graph))).feed_forward) == 1


def test_a_graph_without_bodies_is_looked_at_as_it_is(programs):
    inside = bodies(programs["merged"])[0].program.graph
    assert flattened(inside) is inside


@pytest.mark.parametrize("name", ["merged", "layers"])
def test_bodies_put_back_compute_the_same(programs, name):
    program = programs[name]
    before = program.fingerprint()
    twin = program.clone()
    for body in bodies(twin):
        put_back(twin, body, body.program)
    assert program.fingerprint() == before
    well_formed(twin)
    feeds = probes(program, 0)
    for a, b in zip(execute(program, feeds), execute(twin, feeds), strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in a)


def test_what_enters_a_body_gives_what_the_graph_gives(programs):
    program = programs["merged"]
    feeds = probes(program, 0)
    opened = bodies(program)
    entering = body_feeds(program, opened, feeds)
    assert sum(map(len, entering)) == len(feeds)
    wanted = execute(program, feeds)
    for body, own in zip(opened, entering, strict=True):
        taken = body.attribute == "then_branch"
        places = [i for i, feed in enumerate(feeds) if bool(feed["use_cache_branch"].all()) == taken]
        for place, found in zip(places, execute(body.program, own), strict=True):
            assert np.array_equal(next(iter(found.values())), wanted[place]["logits"])


def test_a_loop_is_entered_once_a_turn_with_its_state(programs):
    program = programs["layers"]
    body = bodies(program)[0]
    feed = probes(program, 0)[1]
    turns = body_feeds(program, [body], [feed])[0]
    assert [int(turn["turn"]) for turn in turns] == [0, 1, 2]
    last = execute(body.program, [turns[-1]])[0]
    head = merged.weights()["head"]
    wanted = execute(program, [feed])[0]["logits"]
    np.testing.assert_allclose(last[body.program.outputs[1]] @ head, wanted, rtol=1e-4, atol=1e-4)


def test_a_loop_that_does_not_end_is_ended(programs, monkeypatch):
    monkeypatch.setattr(running, "_PATIENCE", 0.2)
    feed = {"input_ids": np.zeros((1, 4), np.int64), "turns": np.array(10**12)}
    with pytest.raises(GraphwrightError, match=r"a loop in the graph goes on after 0\.2 seconds"):
        execute(programs["turning"], [feed])


def test_a_branch_that_gives_out_a_value_from_outside_stays_closed():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        m (float[n] x, bool b) => (float[n] y) {
          h = Relu (x)
          y = If (b) <then_branch = t () => (float[n] a) { a = Neg (h) },
                      else_branch = e () => (float[n] c) { c = Identity (h) }>
        }"""
    )
    specs = (InputSpec("x", "float32", ("n",)), InputSpec("b", "bool", ()))
    program = Program(onnx_ir.from_proto(model), "onnx", specs, ("y",), symbols={"n": (1, 9)})
    assert [spec.name for spec in bodies(program)[0].program.inputs] == ["h"]
    node = next(node for node in program.graph.graph if node.op_type == "If")
    branch = node.attributes["else_branch"].value
    branch.outputs[0] = program.graph.graph[0].outputs[0]
    assert [body.attribute for body in bodies(program) if body is not None] == ["then_branch"]


def test_merged_models_are_what_they_say():
    """The first call and the next one, in plain ONNX Runtime, give what one call over both gives."""
    session = onnxruntime.InferenceSession(merged.merged().SerializeToString())
    ids = np.random.default_rng(0).integers(0, merged.VOCABULARY, (2, 6))

    def call(ids, past, flag):
        mask = np.ones((2, past[0].shape[2] + ids.shape[1]), np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "past.0.key": past[0], "past.0.value": past[1]}
        return session.run(None, {**feed, "use_cache_branch": np.array([flag])})

    empty = [np.zeros((2, merged.HEADS, 0, merged.SIZE), np.float32)] * 2
    whole, first = call(ids, empty, False), call(ids[:, :4], empty, False)
    np.testing.assert_allclose(call(ids[:, 4:], first[1:], True)[0], whole[0][:, 4:], rtol=1e-5, atol=1e-5)
