import numpy as np
import pytest
import torch
from graphwright.backends.measuring.measure import compare, workloads
from graphwright.backends.runtimes.reference import Reference, open_directory
from graphwright.ir.errors import BackendError, InputError
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from torch import nn
from torch._inductor import config as inductor
from transformers import BertConfig, BertModel


@pytest.fixture(scope="module")
def linear():
    """A traced module and the module itself."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    graph = torch.export.export(module, (torch.zeros(4, 3),), dynamic_shapes=({0: batch},)).module()
    spec = InputSpec("x", "float32", ("batch", 3))
    return Program(graph, "fx", (spec,), ("y",), symbols={"batch": (1, 64)}), module


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_runs_the_module_itself(linear, compiled):
    program, module = linear
    artifact = Reference().build(program, threads=torch.get_num_threads(), compiled=compiled)
    # Inductor else compiles a program for each instruction set, and its headers, before the one kernel.
    with inductor.patch({"cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}):
        for rows in (1, 5):
            x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
            expected = x @ module.weight.detach().numpy().T + module.bias.detach().numpy()
            np.testing.assert_allclose(artifact.run({"x": x})["y"], expected, atol=1e-6)
    assert (artifact.input_names, artifact.output_names) == (("x",), ("y",))


def test_feeds_are_checked_and_nothing_is_saved(linear, tmp_path):
    artifact = Reference().build(linear[0], threads=torch.get_num_threads())
    with pytest.raises(InputError, match="x: its dtype is float64"):
        artifact.run({"x": np.zeros((1, 3))})
    with pytest.raises(BackendError, match="is not deployed"):
        artifact.save(tmp_path)


def test_the_wrong_dialect_is_refused(make):
    with pytest.raises(BackendError, match="use onnxruntime"):
        Reference().build(make.encoder())


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tiny BERT as sentence-transformers lays it out."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder / "0_Transformer")
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "0_Transformer"}]')
    return folder


def test_a_directory_runs_as_transformers_runs_it(directory, make):
    feed = make.feed(padding=2)
    artifact = open_directory(directory, threads=torch.get_num_threads())
    model = BertModel.from_pretrained(directory / "0_Transformer").eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in feed.items()})
    found = artifact.run(feed)["last_hidden_state"]
    np.testing.assert_allclose(found, expected.last_hidden_state.numpy(), atol=1e-6)


def test_a_directory_that_cannot_be_loaded_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BackendError, match="transformers cannot load") as caught:
        open_directory(tmp_path)
    assert "\n" not in str(caught.value)


def test_pytorch_takes_part_in_a_comparison(directory, make):
    program = make.encoder()
    found = compare({"torch": directory}, workloads(program, ["1x4"]), threads=1, rounds=1, runs=2)
    assert found.cells["torch"]["1x4"].ms > 0
