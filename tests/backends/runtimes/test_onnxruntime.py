import threading
from dataclasses import replace

import graphwright as gw
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.runtimes import onnxruntime as backend
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime, save_model
from graphwright.backends.target import detect, named
from graphwright.ir.errors import BackendError, InputError
from handmade import parsed


def test_runs_what_the_graph_says(tiny):
    program, _, feed, reference = tiny
    artifact = OnnxRuntime().build(program)
    assert artifact.input_names == ("input_ids", "attention_mask")
    assert artifact.output_names == ("embedding",)
    np.testing.assert_allclose(artifact.run(feed)["embedding"], reference, atol=1e-5)


def test_feeds_are_checked(tiny, make):
    artifact = OnnxRuntime().build(tiny[0])
    with pytest.raises(InputError, match="input_ids: 99 is out of range"):
        artifact.run({**make.feed(), "input_ids": np.full((2, 5), 99)})


def test_an_unknown_provider_is_refused_with_what_is_offered(tiny):
    with pytest.raises(BackendError, match=r"no provider 'CPUExecutionProvidr'; did you mean 'CPUExecution"):
        OnnxRuntime().build(tiny[0], providers=["CPUExecutionProvidr"])
    with pytest.raises(BackendError, match=r"no provider 'Tensor'; there are: .*CPUExecutionProvider"):
        OnnxRuntime().build(tiny[0], providers=["Tensor"])


def test_every_offered_provider_can_be_asked_for(tiny):
    _, _, feed, reference = tiny
    for provider in onnxruntime.get_available_providers():
        artifact = OnnxRuntime().build(tiny[0], providers=[provider])
        np.testing.assert_allclose(artifact.run(feed)["embedding"], reference, atol=1e-4)


def test_the_wrong_dialect_is_refused_with_the_mend(tiny):
    with pytest.raises(BackendError, match="run to-onnx first"):
        OnnxRuntime().build(replace(tiny[0], dialect="fx"))


def test_a_graph_that_onnx_runtime_refuses_is_one_sentence(tiny):
    next(iter(tiny[0].graph.graph)).op_type = "Gathr"
    with pytest.raises(BackendError, match=r"ONNX Runtime cannot load .*Gathr") as caught:
        OnnxRuntime().build(tiny[0])
    assert "\n" not in str(caught.value)


def test_no_room_for_the_weights_is_one_sentence(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backend, "write_external", full)
    with pytest.raises(BackendError, match=r"cannot write the graph to .*No space left.*TMPDIR"):
        OnnxRuntime().build(tiny[0])


def test_variants_share_their_weights_in_the_scratch_file(make):
    arrays, built = make.weights(), OnnxRuntime()
    built.build(make.encoder(arrays))
    size = (built.scratch.folder / "weights.data").stat().st_size
    changed = {**arrays, "dense": arrays["dense"] * 2}
    artifact = built.build(make.encoder(changed))
    assert (built.scratch.folder / "weights.data").stat().st_size < 2 * size
    feed = make.feed()
    np.testing.assert_allclose(artifact.run(feed)["embedding"], make.expected(changed, feed), atol=1e-5)
    built.scratch.close()
    assert not built.scratch.folder.exists()


def test_one_artifact_serves_several_threads(tiny, make):
    program, arrays, _, _ = tiny
    artifact, wrong = OnnxRuntime().build(program), []

    def work(seed):
        for step in range(20):
            feed = make.feed(1 + step % 3, 2 + seed, seed=100 * seed + step)
            found = artifact.run(feed)["embedding"]
            wrong.extend([] if np.allclose(found, make.expected(arrays, feed), atol=1e-5) else [seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_saves_a_model_that_plain_onnx_runtime_runs(tiny, tmp_path):
    program, _, feed, reference = tiny
    OnnxRuntime().build(program).save(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feed)[0], reference, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_beyond_protobufs_limit_weights_go_beside_the_graph(tiny, tmp_path, monkeypatch):
    program, _, feed, reference = tiny
    monkeypatch.setattr(backend, "LIMIT", 1000)
    save_model(program, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size > 3000
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feed)[0], reference, atol=1e-5)


def test_without_prepacking_the_answer_is_the_same(tiny):
    program, _, feed, reference = tiny
    artifact = OnnxRuntime().build(program, prepack=False)
    np.testing.assert_allclose(artifact.run(feed)["embedding"], reference, atol=1e-5)


def test_weights_of_a_model_on_disk_are_read_from_there(tiny, tmp_path):
    program, _, feed, reference = tiny
    ir.save(program.graph, tmp_path / "m.onnx", external_data="m.data")
    loaded = program.with_graph(ir.load(tmp_path / "m.onnx"))
    np.testing.assert_allclose(OnnxRuntime().build(loaded).run(feed)["embedding"], reference, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_stored_in_int8_and_decoded_in_the_graph_give_what_the_file_says(axis, tmp_path):
    """ONNX Runtime's own default rounds activations to 8 bits there: 4e-3 of the largest value."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (128, 96)).astype(np.int8)
    scale = (rng.random(codes.shape[axis]) * 1e-2 + 1e-3).astype(np.float32)
    program = parsed(
        f"f = DequantizeLinear <axis = {axis}> (w, s) y = MatMul (x, f)",
        "float[batch,length,128] x",
        "float[batch,length,96] y",
        {"w": codes, "s": scale},
    )
    x = rng.standard_normal((2, 7, 128)).astype(np.float32)
    weight = codes.astype(np.float64) * (scale[:, None] if axis == 0 else scale)
    expected = x.astype(np.float64) @ weight
    write(tmp_path / "bundle", [Variant("main", program)])
    for run in (OnnxRuntime().build(program).run, gw.load(tmp_path / "bundle").run):
        assert np.abs(run({"x": x})["y"] - expected).max() < 2e-6 * np.abs(expected).max()


QUANTIZED = {
    "operators": "y = com.microsoft.DynamicQuantizeMatMul (x, w, b, z)",
    "qdq": "q = QuantizeLinear (x, b, o)\nd = DequantizeLinear (q, b, o)\n"
    "e = DequantizeLinear (w, b, z)\ny = MatMul (d, e)",
}


@pytest.mark.parametrize("form", QUANTIZED)
def test_a_target_that_adds_in_32_bits_is_judged_so_wherever_it_is_judged(form):
    """255 times weights near 127: two products are past 16 bits."""
    w = np.random.default_rng(0).integers(100, 128, (32, 6)).astype(np.int8)
    weights = {"w": w, "b": np.float32(1), "z": np.int8(0), "o": np.uint8(0)}
    program = parsed(QUANTIZED[form], "float[m,32] x", "float[m,6] y", weights, opset=20)
    x = np.full((5, 32), 255, np.float32)
    x[0] = 0  # so that the range found at run time begins there
    wanted = x @ w.astype(np.float32)
    for name in ("x86-64-vnni", "aarch64-dotprod"):
        found = OnnxRuntime(named(name)).build(program).run({"x": x})["y"]
        np.testing.assert_array_equal(found, wanted)
    here = OnnxRuntime(detect()).build(program).run({"x": x})["y"]
    assert np.array_equal(here, wanted) == (not detect().saturates)
