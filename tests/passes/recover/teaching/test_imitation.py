"""Distillation: the loss against its formula in float64, what it trains on, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import DataError
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.ir.inputs.probe import feed
from graphwright.ir.view import view
from graphwright.passes.common.calibration import spread
from graphwright.passes.manager.contract import Context
from graphwright.passes.recover.teaching.imitation import Teacher, imitate, own_vectors
from zoo import fx_program


def feeds_of(program, count, length=9):
    sizes = {"batch": 3, "length": length}
    return [feed(program, sizes, "ragged", np.random.default_rng([4, number])) for number in range(count)]


def noisy(program, scale=0.3, seed=0):
    """The graph with noise in every matrix, the matrices its own parameters."""
    twin, own = program.clone(), []
    generator = torch.Generator().manual_seed(seed)
    for node in twin.graph.graph.find_nodes(op="get_attr"):
        tensor = attribute(twin.graph, str(node.target))
        if tensor.is_floating_point() and tensor.dim() == 2:
            noise = torch.randn(tensor.shape, generator=generator) * scale * tensor.std()
            own.append(torch.nn.Parameter(tensor.detach() + noise))
            replace_tensor(twin.graph, node, own[-1])
    twin.graph.recompile()
    return twin.graph, own


def run(graph, program, one):
    with torch.no_grad():
        found = graph(*[torch.from_numpy(one[spec.name]) for spec in program.inputs])
    return [tensor.double().numpy() for tensor in found]


def relative(expected, found):
    return ((expected - found) ** 2).sum() / (expected**2).sum()


def divergence(expected, found):
    logs = [x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (expected, found)]
    return (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean()


@pytest.mark.parametrize(("task", "distance"), [("features", relative), ("token-classification", divergence)])
def test_the_loss_is_its_formula_without_padding(task, distance):
    program = replace(fx_program("bert"), task=task)
    teacher = Teacher(program, feeds_of(program, 2))
    student, _ = noisy(program)
    norms = [norm.root.native.name for norm in recognise(view(program)).norm]
    assert set(teacher.names) == set(norms) - {"layer_norm_4"}  # the last is the output itself
    for one in teacher.train:
        mask = one["attention_mask"] != 0
        assert not mask.all()
        pairs = list(
            zip(
                run(teacher.watched(program.graph), program, one),
                run(teacher.watched(student), program, one),
                strict=True,
            )
        )
        hidden = [relative(a[mask], b[mask]) for a, b in pairs[1:]]
        expected = distance(*(x[mask] for x in pairs[0])) + np.mean(hidden)
        found = teacher.distance(one, teacher.watched(student)).item()
        assert len(hidden) == 4
        assert found == pytest.approx(expected, rel=1e-4)


def test_it_learns_what_the_program_gave_and_leaves_the_program_alone():
    program = fx_program("bert")
    before = program.fingerprint()
    teacher = Teacher(program, feeds_of(program, 20))
    student, own = noisy(program)
    first = teacher.measure(student)
    vectors = own_vectors(student)
    read = [attribute(student, str(node.target)) for node in student.graph.find_nodes(op="get_attr")]
    assert {id(vector) for vector in vectors} == {id(tensor) for tensor in read if tensor.dim() == 1}
    losses = imitate(teacher, teacher.watched(student), [*own, *vectors], 40, 0.01)
    last = teacher.measure(student)
    assert program.fingerprint() == before
    assert len(losses) == 40
    assert last.outputs < first.outputs / 2
    assert last.cosine > first.cosine
    assert teacher.measure(program.graph).outputs == 0


def test_every_tenth_feed_is_kept_to_measure_on():
    program = fx_program("bert")
    feeds = feeds_of(program, 20)
    teacher = Teacher(program, feeds)
    assert [id(one) for one in teacher.test] == [id(feeds[9]), id(feeds[19])]
    assert teacher.train == [one for i, one in enumerate(feeds) if i not in (9, 19)]
    assert spread(feeds, 4) == [feeds[0], feeds[5], feeds[10], feeds[15]]
    few = Teacher(program, feeds[:3])
    assert few.test == few.train == feeds[:3]


def test_same_seed_same_numbers():
    program = fx_program("bert")
    feeds = feeds_of(program, 12)

    def learned(seed):
        student, own = noisy(program)
        teacher = Teacher(program, feeds, seed)
        imitate(teacher, teacher.watched(student), own, 4, 0.01)
        return b"".join(parameter.detach().numpy().tobytes() for parameter in own)

    assert learned(0) == learned(0)
    assert learned(0) != learned(1)


def test_the_rate_is_relative_to_the_size_of_what_learns():
    """Adam's first step moves each number by the rate: here by the rate times the root mean square."""
    program = fx_program("bert")
    student, own = noisy(program)
    teacher = Teacher(program, feeds_of(program, 2))
    before = [parameter.detach().clone() for parameter in own]
    imitate(teacher, teacher.watched(student), own, 1, 0.01)
    for old, new in zip(before, own, strict=True):
        moved = (new.detach() - old).abs()
        size = float(old.square().mean().sqrt())
        assert float(moved.max()) == pytest.approx(0.01 * size, rel=1e-3)


def test_bad_data_is_refused_in_words():
    program = fx_program("vit")
    one = feed(program, {"batch": 2}, rng=np.random.default_rng(0))
    nan = {name: np.full_like(array, np.nan) for name, array in one.items()}
    with pytest.raises(DataError, match="feed 2 has NaN or infinite values in 'pixel_values'"):
        Teacher.of(program, Context(calibration=[one, nan]))
    with pytest.raises(DataError, match="constant"):
        Teacher.of(program, Context(calibration=[{name: 0 * array for name, array in one.items()}]))
    assert len(Teacher.of(program, Context()).test) > 0


def test_learning_that_runs_away_is_said():
    program = fx_program("bert")
    student, own = noisy(program)
    own[0].data[:] = np.inf
    teacher = Teacher(program, feeds_of(program, 2))
    with pytest.raises(DataError, match="not finite at step 1: try a lower rate"):
        imitate(teacher, teacher.watched(student), own, 2, 0.01)
