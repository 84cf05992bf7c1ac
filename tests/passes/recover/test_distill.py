"""distill: which layers teach which, that it learns, goes on after a kill, and what it refuses."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from graphwright.ir.errors import CheckpointError, DataError, PassError, PipelineError
from graphwright.ir.fx.mode import set_mode, trains
from graphwright.ir.inputs.probe import feed, probes
from graphwright.passes.common.batches import bucketed, parted
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.teaching.depth import layered, read, uniform
from graphwright.passes.recover.teaching.losses.readings import SAME
from graphwright.passes.recover.teaching.objective import Objective, Watched
from graphwright.passes.recover.training.own import own_parameters
from graphwright.passes.recover.training.recompute import recomputing
from recovery import context, distance, feeds_of, shallow
from training import linear_program
from zoo import fx_program

PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]
QUICK = {"steps": 40, "rate": 3e-3, "batch": 4}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": 0.0, "attention": 1.0, "values": 1.0},
        {"progressive": True},
        {"recompute": True},
        {"embeddings": True, "accumulate": 2},
    ],
)
def test_a_shallower_program_learns_from_the_whole_one(options):
    program = fx_program("bert")
    before = program.fingerprint()
    student = shallow(program, 0)
    result = Pipeline([Distill(**QUICK, **options)]).run(student, context(program))
    assert result.ok, result.steps[0].error
    assert distance(program, result.program) < distance(program, student) / 2
    assert program.fingerprint() == before
    assert not trains(result.program.graph)
    assert "layers that learn from layers: 1:2" in result.steps[0].notes


def test_what_was_trained_exports_and_runs():
    program = fx_program("bert")
    fx = Pipeline.parse("set-mode,distill{steps=5,batch=4}").run(shallow(program, 1), context(program))
    run = Pipeline.parse("to-onnx").run(fx.program)
    assert run.ok, run.steps[-1].error
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(run.program.graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    one = feeds_of(program, 1)[0]
    with torch.no_grad():
        expected = fx.program.graph(*arguments(program, one))[0].numpy()
    np.testing.assert_allclose(session.run(None, one)[0], expected, atol=1e-5)


@pytest.mark.parametrize("learned", ["true", "false"])
def test_a_quantized_program_learns_too_and_goes_on_to_integers(learned):
    program = fx_program("bert")
    fake = f"fake-quant{{bits=4,learned={learned}}}"
    plain = Pipeline.parse(fake).run(program, context(program)).program
    trained = Pipeline([Distill(**{**QUICK, "rate": 3e-4})]).run(plain, context(program))
    assert trained.ok, trained.steps[-1].error
    assert distance(program, trained.program) < 0.7 * distance(program, plain)
    assert Pipeline.parse("to-onnx").run(trained.program).ok


def test_layers_are_told_or_spread_evenly():
    def found(students, teachers):
        stack = [type("S", (), {"layers": [None] * count})() for count in (students, teachers)]
        return [(a + 1, b + 1) for a, b in uniform(stack[:1], stack[1:])]

    assert found(3, 6) == [(1, 2), (2, 4), (3, 6)]
    assert found(6, 6) == [(i, i) for i in range(1, 7)]
    assert found(2, 3) == [(1, 2), (2, 3)]
    assert found(1, 12) == [(1, 12)]
    assert read("2:4, 1:2") == [(0, 1), (1, 3)]
    for text in ("1", "1:", "1:2,1:3", "0:1", "1-2", "1:2,"):
        with pytest.raises(ValueError, match="layers is"):
            read(text)
    program = fx_program("bert")
    result = Distill(steps=1, layers="1:1").run(shallow(program, 1), context(program))
    assert "layers that learn from layers: 1:1" in result.notes
    both = fx_program("bart")
    streams, _ = layered(both)
    assert uniform(streams, streams) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert uniform(streams[:1], streams) == []


def test_progress_goes_layer_by_layer_and_then_to_the_outputs():
    program = fx_program("bert")
    distill = Distill(progressive=True)
    terms, _ = distill._terms(program, program, feeds_of(program), 0, SAME)
    objective = Objective(program, terms, None, progressive=True)
    assert [term.layer for term in terms] == [None, 0, 1]
    assert [objective._active(share) for share in (0.0, 0.24, 0.26, 0.49, 0.5, 0.9)] == [
        {1}, {1}, {1, 2}, {1, 2}, {0, 1, 2}, {0, 1, 2},
    ]  # fmt: skip


def test_the_teacher_is_asked_once_a_feed_and_gives_no_loss_to_itself():
    program = fx_program("bert")
    terms, _ = Distill(attention=1.0, values=1.0)._terms(program, program, feeds_of(program), 0, SAME)
    student = Watched(program, program.graph, [node for term in terms for node in term.learns])
    objective = Objective(program, terms, student)
    one = feeds_of(program)[0]
    assert objective(one, 0.0).item() == pytest.approx(0, abs=1e-6)
    objective._teacher = None
    assert objective(one, 0.0).item() == pytest.approx(0, abs=1e-6)


def test_activations_are_computed_again_for_the_same_gradients_in_less_memory():
    program = fx_program("bert")
    own = own_parameters((student := program.clone()).graph)
    ends = [layer.exit.native.name for layer in layered(student)[0][0].layers]
    inputs = arguments(program, feeds_of(program)[0])
    found = []
    for module in (student.graph, recomputing(student.graph, ends)):
        kept = [0]

        def pack(tensor, kept=kept):
            kept[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = module(*inputs)[0]
        gradients = torch.autograd.grad(output.square().sum(), list(own.values()), allow_unused=True)
        found.append((output, gradients, kept[0]))
    (expected, due, most), (output, gradients, least) = found
    assert torch.equal(output, expected)
    for a, b in zip(due, gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert least < 0.6 * most


def test_rows_are_put_together_by_length_and_none_is_lost():
    program = fx_program("bert")
    feeds = [{**one, "labels": np.arange(3) + 3 * i} for i, one in enumerate(feeds_of(program, 5))]
    batches = bucketed(program, feeds, 4)
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 4, 3]
    rows = {
        int(label): ids[keep != 0].tolist()
        for one in feeds
        for ids, keep, label in zip(one["input_ids"], one["attention_mask"], one["labels"], strict=True)
    }
    again = {
        int(label): ids[keep != 0].tolist()
        for one in batches
        for ids, keep, label in zip(one["input_ids"], one["attention_mask"], one["labels"], strict=True)
    }
    assert again == rows
    lengths = [batch["attention_mask"].sum(1) for batch in batches]
    assert all(
        batch["input_ids"].shape[1] == most.max() for batch, most in zip(batches, lengths, strict=True)
    )
    assert np.all(np.diff(np.concatenate(lengths)) >= 0)
    image = fx_program("vit")
    one = feed(image, {"batch": 2}, rng=np.random.default_rng(0))
    assert bucketed(image, [one], 1) == [one]


def test_some_batches_of_all_lengths_are_held_out():
    batches = [{"number": i} for i in range(40)]
    train, held = parted(batches)
    assert [batch["number"] for batch in held] == [5, 15, 25, 35]
    assert sorted(batch["number"] for batch in train + held) == list(range(40))
    assert len(parted([{}] * 1000)[1]) == 16
    assert parted(batches[:9]) == (batches[:9], [])


def test_labels_are_used_where_there_are_some_and_missed_aloud():
    program = replace(fx_program("bert"), task="sequence-classification")
    result = Distill(steps=1, hard=1.0, soft=0.0, output=1.0).run(shallow(program, 1), context(program))
    assert "the data have no labels, so there are no hard labels to learn from" in result.notes


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path):
    code = f"""
import os, signal, sys
import torch
torch.set_num_threads({torch.get_num_threads()})  # which other tests here may have set: sums depend on it
sys.path[:0] = {PATHS!r}
from pathlib import Path
from test_distill import QUICK, context, shallow
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.training import checkpoints
from graphwright.passes.recover.distill import Distill
from zoo import fx_program

def dying(description, done, total):
    if description.startswith("distill: loss") and done == 23:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.Checkpoints.__init__.__defaults__ = (0.0,)
program = fx_program("bert")
kept = context(program, cache=Path({str(tmp_path)!r}), progress=dying)
Pipeline([Distill(**QUICK)]).run(shallow(program, 0), kept)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=200).returncode == -9
    program = fx_program("bert")
    whole = Pipeline([Distill(**QUICK)]).run(shallow(program, 0), context(program))
    again = Pipeline([Distill(**QUICK)]).run(shallow(program, 0), context(program, cache=tmp_path))
    assert again.program.fingerprint() == whole.program.fingerprint()
    for name in ("first loss", "last loss", "steps"):
        assert again.steps[0].statistics[name] == whole.steps[0].statistics[name]
    assert again.steps[0].curves == whole.steps[0].curves
    assert [step for step, _ in whole.steps[0].curves["loss"]] == list(range(1, 41))
    assert any("went on from step 23 of the run kept in" in note for note in again.steps[0].notes)
    third = Pipeline([Distill(**QUICK)]).run(shallow(program, 0), context(program, cache=tmp_path))
    assert third.program.fingerprint() == whole.program.fingerprint()
    assert any("went on from step 40" in note for note in third.steps[0].notes)


def test_an_interrupt_says_that_the_run_is_kept(tmp_path, monkeypatch):
    from graphwright.passes.recover.training.checkpoints import Checkpoints

    monkeypatch.setattr(Checkpoints.__init__, "__defaults__", (0.0,))

    def stop(description, done, total):
        if done == 7 and total == 40:
            raise KeyboardInterrupt

    program = fx_program("bert")
    with pytest.raises(KeyboardInterrupt, match="the same command goes on from there"):
        Distill(**QUICK, checkpoint=str(tmp_path)).run(shallow(program, 0), context(program, progress=stop))
    result = Distill(**QUICK, checkpoint=str(tmp_path)).run(shallow(program, 0), context(program))
    assert any("went on from step 7" in note for note in result.notes)


def test_a_cache_that_cannot_be_written_is_done_without_and_a_folder_that_was_named_is_not(tmp_path):
    program, file = fx_program("bert"), tmp_path / "file"
    file.write_text("")
    assert Distill(steps=1).run(shallow(program, 0), context(program, cache=file)).modified
    with pytest.raises(CheckpointError, match="cannot hold checkpoints"):
        Distill(steps=1, checkpoint=str(file)).run(shallow(program, 0), context(program))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature is 0, and it must be above 0"),
        ({"hidden": -1.0}, "hidden is -1, and a weight cannot be below 0"),
        ({"layers": "1-2"}, "write pairs of student:teacher"),
        ({"steps": 0}, "steps is 0, and at least one is needed"),
        ({"rate": 0.0}, "rate is 0, and nothing is learned"),
        ({"minutes": -1.0}, "minutes is -1, and cannot be below 0"),
        ({"hidden": 0.0, "progressive": True}, "progressive goes layer by layer"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Distill(**options)


def test_what_does_not_fit_is_refused_in_words():
    program = fx_program("bert")
    student = shallow(program, 0)
    with pytest.raises(PipelineError, match="layers names layer 2 of the student, which has 1"):
        Distill(layers="2:1").run(student.clone(), context(program))
    with pytest.raises(PipelineError, match="layers names layer 3 of the teacher, which has 2"):
        Distill(layers="1:3").run(student.clone(), context(program))
    with pytest.raises(PassError, match="the outputs are last_hidden_state and other"):
        Distill().run(replace(student.clone(), outputs=("other",)), context(program))
    with pytest.raises(PassError, match="do not line up: the inputs are"):
        Distill().run(student.clone(), replace(context(program), original=fx_program("gpt2")))
    narrow, wide = linear_program(outputs=5), linear_program(outputs=6)
    with pytest.raises(PassError, match=r"do not line up: the output '.*' is \(.*6\) and \(.*5\)"):
        Distill().run(narrow.clone(), Context(calibration=probes(narrow, 0), original=wide))
    with pytest.raises(PassError, match="no soft labels: leave soft out"):
        Distill(soft=1.0).run(student.clone(), context(program))
    with pytest.raises(PipelineError, match="distill has no term to learn by"):
        Distill(output=0.0, hidden=0.0).run(student.clone(), context(program))
    with pytest.raises(DataError, match="empty"):
        Distill().run(student.clone(), replace(context(program), training=[], calibration=[]))
    with pytest.raises(PipelineError, match="the model as PyTorch has it"):
        Pipeline([Distill()]).check(student, Context(calibration=feeds_of(program)))


def test_training_data_are_preferred_to_calibration_data():
    program = fx_program("bert")
    given = replace(context(program), training=feeds_of(program, 40, 5))
    batches, held = Distill(batch=4).data(program, given)
    assert sum(len(batch["input_ids"]) for batch in batches + held) == 120


def test_the_captured_mode_of_the_teacher_does_not_matter():
    program = fx_program("bert")
    training = program.clone()
    set_mode(training.graph, training=True)
    plain = Distill(steps=2).run(shallow(program, 0), context(program))
    other = Distill(steps=2).run(shallow(program, 0), replace(context(program), original=training))
    assert plain.program.fingerprint() == other.program.fingerprint()


TWO = """
import sys
sys.path[:0] = {paths!r}
from dataclasses import replace
from pathlib import Path
from test_distill import QUICK, context, shallow
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.training.workers import join
from zoo import fx_program

program = fx_program("bert")
run = Pipeline([Distill(**QUICK)]).run(shallow(program, 0), context(program))
assert run.ok, run.steps[0].error
told = f"{{run.program.fingerprint()}} {{run.steps[0].statistics['last loss']}}"
Path({folder!r}, str(join().rank)).write_text(told)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does_that_accumulates(tmp_path):
    code = tmp_path / "two.py"
    code.write_text(TWO.format(paths=PATHS, folder=str(tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*launcher, str(code)], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert first == second
    program = fx_program("bert")
    alone = Pipeline([Distill(**QUICK, accumulate=2)]).run(shallow(program, 0), context(program))
    assert float(first[1]) == pytest.approx(alone.steps[0].statistics["last loss"], rel=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "prune-heads{ratio=0.5},DISTILL,prune-ffn{ratio=0.5},DISTILL,to-onnx",
        "DISTILL,prune-layers{keep=1},fake-quant,DISTILL,to-onnx,fold-constants",
        "layerdrop{steps=2,batch=4},prune-layers{keep=1},theseus{steps=2,batch=4},prune-heads{ratio=0.5},to-onnx",
    ],
)
def test_pruning_training_and_quantizing_go_in_any_order(text):
    program = fx_program("bert")
    text = text.replace("DISTILL", "distill{steps=2,batch=4,attention=1,values=1}")
    run = Pipeline.parse(text).run(program, context(program))
    assert run.ok, run.steps[-1].error
    assert all(step.status == "applied" for step in run.steps if step.text.startswith("distill"))


def test_what_was_pruned_to_zero_stays_zero():
    program = fx_program("bert")
    run = Pipeline.parse("prune-weights{sparsity=0.5}").run(program, context(program))
    trained = Pipeline([Distill(**QUICK)]).run(run.program, context(program)).program
    kept = dict(run.program.graph.named_parameters())
    zeros = {name: p == 0 for name, p in kept.items() if p.dim() > 1 and float((p == 0).float().mean()) > 0.4}
    assert len(zeros) == 12
    for name, p in trained.graph.named_parameters():
        if name in zeros:
            assert torch.equal(p == 0, zeros[name])
            assert not torch.equal(p, kept[name])
