"""Shared projections: one pair of matrices between two widths for all layers, learned along and left out."""

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.stream import streams
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.teaching.losses.matrices import matrices
from graphwright.passes.recover.teaching.losses.projections import projections
from graphwright.passes.recover.teaching.losses.readings import SAME
from graphwright.passes.recover.teaching.objective import Objective, Watched
from graphwright.passes.recover.training.own import own_parameters, watched
from recovery import SHORT, context, distance, feeds_of, shallow
from transformers import BertConfig, BertModel
from zoo import fx_program

LAYERS = {  # the second one: products that read, each with its norm; that write; stored (in, out)
    "bert": (
        "encoder.layer.1.",
        [(f"attention.self.{part}", "") for part in ("query", "key", "value")] + [("intermediate.dense", "")],
        ("attention.output.dense", "output.dense"),
        False,
    ),
    "llama": (
        "model.layers.1.",
        [(f"self_attn.{part}_proj", "input_layernorm") for part in "qkv"]
        + [(f"mlp.{part}_proj", "post_attention_layernorm") for part in ("gate", "up")],
        ("self_attn.o_proj", "mlp.down_proj"),
        False,
    ),
    "gpt2": (
        "transformer.h.1.",
        [("attn.c_attn", "ln_1"), ("mlp.c_fc", "ln_2")],
        ("attn.c_proj", "mlp.c_proj"),
        True,
    ),
}
ALL = {"projections": "shared", "matrices": 1.0}


def narrowed(program, width=24):
    done = Pipeline.parse(f"share-projections{{width={width}}}").run(program, context(program))
    assert done.ok, done.steps[0].error
    return done.program


def layers(program):
    graph = view(program)
    return streams(graph, recognise(graph))[0][0].layers


def pairs(teacher, student):
    return list(zip(layers(teacher), layers(student), strict=True))


def states(program, feeds):
    """(rows, width) after each layer at real tokens, float64."""
    module = watched(program.graph, [layer.exit.native for layer in layers(program)])
    found = []
    for feed in feeds:
        with torch.no_grad():
            seen = module(*arguments(program, feed))[1:]
        found.append([x[torch.from_numpy(feed["attention_mask"] != 0)].double().numpy() for x in seen])
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def own_model(width, tokens=101):
    """A BERT of its own, of the zoo's make but narrower, untrained."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=tokens, hidden_size=width, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=72, max_position_embeddings=64,
    )  # fmt: skip
    ids = torch.arange(18).reshape(3, 6)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    return capture(BertModel(config, add_pooling_layer=False).eval(), inputs=inputs)


def test_the_first_values_are_least_squares_over_all_layers():
    teacher = fx_program("bert")
    student, feeds = narrowed(teacher), feeds_of(teacher)[:8]
    (found,) = projections(teacher, student, pairs(teacher, student), feeds).values()
    above, below = states(teacher, feeds), states(student, feeds)
    scales = [np.linalg.norm(x) for x in above]
    a, b = (np.concatenate([x / s for x, s in zip(each, scales, strict=True)]) for each in (above, below))
    expected = np.linalg.lstsq(b, a, rcond=None)[0].T
    np.testing.assert_allclose(found.up.detach().numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(found.down.detach().numpy(), np.linalg.pinv(expected), atol=1e-3)


def test_what_share_projections_and_prune_hidden_made_is_found_again():
    teacher = fx_program("llama")
    feeds = [{k: v.numpy() for k, v in zoo_inputs("llama", n).items()} for n in range(8)]
    done = Pipeline.parse("share-projections{width=40}").run(teacher, Context(calibration=feeds))
    (found,) = projections(teacher, done.program, pairs(teacher, done.program), feeds).values()
    table = "model.embed_tokens.weight"
    wide, thin = (one.graph.state_dict()[table].double().numpy() for one in (teacher, done.program))
    matrix = np.linalg.lstsq(wide, thin, rcond=None)[0]
    near = found.up.detach().numpy()
    assert np.square(near - matrix).sum() < 0.2 * np.square(matrix).sum()
    cut = Pipeline.parse("prune-hidden{ratio=0.1,importance=magnitude,multiple=1}").run(teacher, Context())
    (found,) = projections(teacher, cut.program, pairs(teacher, cut.program), feeds).values()
    left = cut.program.graph.state_dict()[table]
    kept = [
        int((teacher.graph.state_dict()[table] - left[:, [i]]).abs().sum(0).argmin())
        for i in range(left.shape[1])
    ]
    assert found.up.detach().abs().argmax(0).tolist() == kept


def zoo_inputs(name, seed):
    from zoo import ARCHITECTURES

    return ARCHITECTURES[name].inputs(4, 9, seed=seed)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_the_distance_of_matrices_is_that_of_the_paper(name):
    """By hand in float64: |W - w V| and |W - U w|, of pre-norm with scales in W and up to a factor."""
    teacher = fx_program(name)
    feeds = [{k: v.numpy() for k, v in zoo_inputs(name, n).items()} for n in range(8)]
    student = Pipeline.parse("share-projections{width=24}").run(teacher, Context(calibration=feeds)).program
    both = pairs(teacher, student)
    (shared,) = projections(teacher, student, both, feeds).values()
    term, left = matrices((teacher, student), both[1], 1.0, 0, shared)
    assert left == 0
    wide, thin = (
        {k: v.detach().double().numpy() for k, v in one.graph.state_dict().items()}
        for one in (teacher, student)
    )
    up, down = (one.detach().double().numpy() for one in (shared.up, shared.down))
    layer, reads, writes, turned = LAYERS[name]
    found = []
    for name, norm in reads:
        a, b = (
            one[f"{layer}{name}.weight"].T if turned else one[f"{layer}{name}.weight"] for one in (wide, thin)
        )
        if norm:
            a, b = (x * one[f"{layer}{norm}.weight"] for x, one in ((a, wide), (b, thin)))
        b = b @ down
        b = b * ((a * b).sum() / np.square(b).sum() if norm else 1)
        found.append(np.square(a - b).sum() / np.square(a).sum())
    for name in writes:
        a, b = (
            one[f"{layer}{name}.weight"].T if turned else one[f"{layer}{name}.weight"] for one in (wide, thin)
        )
        found.append(np.square(a - up @ b).sum() / np.square(a).sum())
    assert term.distance({}, [], []).item() == pytest.approx(np.mean(found), rel=1e-4)


def test_gradients_reach_the_student_and_the_pair():
    teacher = fx_program("bert")
    student = narrowed(teacher)
    terms, _ = Distill(**ALL)._terms(teacher, student, feeds_of(teacher), 0, SAME)
    own = own_parameters(student.graph)
    objective = Objective(
        teacher, terms, Watched(student, student.graph, [n for t in terms for n in t.learns])
    )
    objective(feeds_of(teacher)[0], 0.0).backward()
    pair = {name: p for term in terms for name, p in term.parameters.items()}
    assert set(pair) == {"projections.32x24.up", "projections.32x24.down"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pair.values())
    for name, p in own.items():
        assert p.grad is not None, name
    assert own["encoder.layer.0.attention.self.query.weight"].grad.abs().sum() > 0
    # The matrices alone: no state and no output is looked at.
    alone = [term for term in terms if not term.learns]
    assert len(alone) == 2
    for p in own.values():
        p.grad = None
    sum(term.distance({}, [], []) for term in alone).backward()
    assert own["encoder.layer.1.output.dense.weight"].grad.abs().sum() > 0
    assert own["encoder.layer.1.output.dense.bias"].grad is None


def test_a_narrower_program_learns_more_through_the_pair_and_keeps_nothing_of_it():
    teacher = fx_program("bert")
    student = narrowed(teacher)
    before = {name: tuple(t.shape) for name, t in student.graph.state_dict().items()}
    found = {}
    for options in ("projections=shared", "projections=shared,matrices=1.0", "projections=own"):
        text = f"distill{{steps=24,rate=1e-3,batch=4,precision=float32,{options}}}"
        result = Pipeline.parse(text).run(student, context(teacher))
        assert result.ok, result.steps[0].error
        assert {name: tuple(t.shape) for name, t in result.program.graph.state_dict().items()} == before
        assert len(result.program.graph.graph.nodes) == len(student.graph.graph.nodes)
        found[options] = distance(teacher, result.program)
    assert max(list(found.values())[:2]) < min(found["projections=own"], distance(teacher, student))


def test_a_student_of_its_own_learns_from_a_wider_teacher():
    """Its outputs are as narrow as its stream; through the pair they come near the teacher's."""
    teacher, student = fx_program("bert"), own_model(16)
    feeds = feeds_of(teacher)

    def missed(program):
        a, b = (np.concatenate(each) for each in zip(*[
            [states(one, [feed])[-1] for one in (teacher, program)] for feed in feeds[:6]
        ], strict=True))  # fmt: skip
        residue = a - b @ np.linalg.lstsq(b, a, rcond=None)[0]
        return np.square(residue).sum() / np.square(a).sum()

    run = Pipeline([Distill(**{**SHORT, "steps": 60, "rate": 5e-3}, **ALL, embeddings=True)])
    result = run.run(student, context(teacher))
    assert result.ok, result.steps[0].error
    assert missed(result.program) < 0.8 * missed(student)
    with pytest.raises(PassError, match="do not line up"):
        Distill(**SHORT).run(student.clone(), context(teacher))


def test_matrices_of_another_inner_size_are_left_and_counted():
    teacher = fx_program("bert")
    text = "share-projections{width=24},prune-ffn{ratio=0.25,importance=magnitude}"
    student = Pipeline.parse(text).run(teacher, context(teacher)).program
    result = Distill(**{**SHORT, "steps": 1}, **ALL).run(student, context(teacher))
    assert (
        "matrices that have none like them in the teacher and are left to the other terms: 4" in result.notes
    )


def test_equal_widths_have_nothing_to_project():
    program = fx_program("bert")
    with pytest.raises(
        PassError, match="32 wide, both, so there is nothing to project: leave projections out"
    ):
        Distill(**SHORT, projections="shared").run(shallow(program, 0), context(program))


def test_layers_of_other_blocks_are_not_compared_by_their_matrices():
    teacher = fx_program("bert")
    student = narrowed(teacher)
    one, other = layers(teacher)[0], layers(student)[0]
    (shared,) = projections(teacher, student, pairs(teacher, student), feeds_of(teacher)).values()
    fewer = type(other)(other.blocks[:1], other.entry, other.exit)
    with pytest.raises(
        PassError, match=r"is of an attention, and its teacher's of an attention, a feed-forward: "
    ):
        matrices((teacher, student), (one, fewer), 1.0, 0, shared)


def test_matrices_without_a_pair_are_refused():
    with pytest.raises(PipelineError, match="give projections=shared"):
        Pipeline.parse("distill{matrices=1.0}")
    with pytest.raises(PipelineError, match="projections"):
        Pipeline.parse("distill{projections=mine}")
