"""One case of a file or an option that nobody meant to write, tried as the command would try it."""

import json
import os
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import mutated
import numpy as np
import onnx
from graphwright.ir.errors import GraphwrightError

_GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
encoder (int64[batch,length] input_ids, int64[batch,length] attention_mask) => (float[batch,8] embedding) {
    words = Gather (table, input_ids)
    scores = MatMul (words, dense)
    weights = Softmax <axis=-1> (scores)
    changed = Mul (weights, scale)
    mask = Cast <to=1> (attention_mask)
    axis = Constant <value_ints=[2]> ()
    column = Unsqueeze (mask, axis)
    kept = Mul (changed, column)
    along = Constant <value_ints=[1]> ()
    embedding = ReduceSum <keepdims=0> (kept, along)
}"""


def model_file():
    """A small encoder, serialized."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(_GRAPH)
    for name, shape in {"table": (20, 8), "dense": (8, 8), "scale": (8,)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto.SerializeToString()


def program_of(path):
    """The encoder with a tokenizer of letters."""
    from graphwright.ir.capture import capture

    path.write_bytes(model_file())
    words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *"abcdefgh"))}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }  # fmt: skip
    files = {"tokenizer.json": json.dumps(tokenizer).encode()}
    return replace(
        capture(path), tokenizer=files, task="embedding", info={"max_length": 8, "pad_token_id": 0}
    )


_TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": {"type": "Lowercase"},
    "added_tokens": [{"id": 0, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "pre_tokenizer": {"type": "Whitespace"}, "decoder": None,
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100,
              "vocab": {word: n for n, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"))}},
}  # fmt: skip
BESIDE = {
    "tokenizer.json": _TOKENIZER,
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 12
    },
    "special_tokens_map.json": {"pad_token": {"content": "[PAD]", "lstrip": False}},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 10, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "a: "}, "default_prompt_name": None, "truncate_dim": 4,
        "similarity_fn_name": "cosine",
    },
    "1_Pooling/config.json": {
        "word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False,
        "include_prompt": True,
    },
    "2_Dense/config.json": {
        "in_features": 16, "out_features": 8, "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    },
}  # fmt: skip
"""The files that a sentence-transformers directory holds beside its configuration and weights."""


class AcceptedError(Exception):
    """What had to be refused was taken."""


class Material:
    """What is changed: a model file, a directory, a bundle, each small, and where cases are tried.

    folder: empty. bundles: paths of bundles to load besides. native: also run machine code and loops as
    changed manifests and graphs say, which may crash or hang; in a process that is watched.
    """

    def __init__(self, folder, bundles=(), native=False):
        self.native = native
        self.folder = Path(folder)
        self.model = model_file()
        self.directory = self._directory()
        self.bundles = [Path(path) for path in bundles]
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()

    def _directory(self):
        import torch
        from transformers import BertConfig, BertModel

        out = self.folder / "bert"
        config = BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16, architectures=["BertModel"],
        )  # fmt: skip
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(out)
        (out / "model.safetensors").rename(out / "model-00001-of-00001.safetensors")
        from safetensors import safe_open

        with safe_open(out / "model-00001-of-00001.safetensors", "pt") as file:
            index = dict.fromkeys(file.keys(), "model-00001-of-00001.safetensors")
        (out / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
        )
        return out

    def said(self, kind, seed):
        """The sentence that a case is refused with, None where it is taken. What else is raised goes through.

        Raises:
            AssertionError: more than a sentence, or something left behind.
            AcceptedError: a case that nothing may take was taken.
        """
        rng = random.Random(f"{kind} {seed}")
        case = self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(self.temporary)
        sentence = None
        try:
            getattr(self, kind.replace("-", "_"))(rng, case)
        except GraphwrightError as error:
            sentence = str(error)
        finally:
            tempfile.tempdir = before
        left = os.listdir(self.temporary)
        assert not left, left
        assert sentence is None or (sentence.strip() and "\n" not in sentence), sentence
        assert sentence is None or len(sentence) < 2010, len(sentence)
        return sentence

    def onnx(self, rng, case):
        """An ONNX file: captured, and run where it can be."""
        from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
        from graphwright.ir.capture import capture
        from graphwright.ir.inputs.probe import probes

        path = case / "model.onnx"
        path.write_bytes(mutated.changed_onnx(self.model, rng))
        program = capture(path)
        if not self.native and any(node.op_type == "Loop" for node in program.graph.graph):
            return
        artifact = OnnxRuntime().build(program, threads=1)
        for feed in probes(program, 0)[:1]:
            artifact.run(feed)

    def exact(self, rng, case):
        """An ONNX file through the exact passes, and written as a bundle."""
        from graphwright.backends.bundles.bundle import Variant, write
        from graphwright.ir.capture import capture
        from graphwright.passes.manager.pipeline import Pipeline

        path = case / "model.onnx"
        path.write_bytes(mutated.changed_onnx(self.model, rng))
        program = capture(path)
        ran = Pipeline.parse("fold-constants,eliminate-identities,fuse-layer-norm,remove-padding").run(
            program, keep_going=True
        )
        write(case / "out", [Variant("only", ran.program)])

    def config(self, rng, case):
        """A directory's config.json."""
        content = json.loads((self.directory / "config.json").read_text())
        self._load(case, {"config.json": mutated.changed_text(content, rng)})

    def index(self, rng, case):
        """The index of its shards, or the header of one."""
        name = "model.safetensors.index.json"
        if rng.random() < 0.5:
            content = json.loads((self.directory / name).read_text())
            self._load(case, {name: mutated.changed_text(content, rng)})
            return
        name = "model-00001-of-00001.safetensors"
        content = (self.directory / name).read_bytes()
        size = int.from_bytes(content[:8], "little")
        if rng.random() < 0.7:
            header = mutated.dumped(mutated.changed_json(json.loads(content[8 : 8 + size]), rng))
            length = rng.choice((len(header), len(header), len(header), 0, 2**40, 2**63))
            content = length.to_bytes(8, "little") + header + content[8 + size :]
        else:
            content = mutated.changed_bytes(content, rng)
        self._load(case, {name: content})

    def _load(self, case, files):
        from graphwright.ir.capture import reading
        from graphwright.ir.sources.checkpoint import load

        out = case / "bert"
        shutil.copytree(self.directory, out)
        for name, content in files.items():
            (out / name).write_bytes(content)
        with reading(out):
            load(out, None, None)

    def beside(self, rng, case):
        """A file beside the configuration and the weights: of the tokenizer, or of what pools."""
        import torch
        from graphwright.ir.capture import capture
        from graphwright.ir.inputs.text import TextEncoder
        from safetensors.torch import save_file

        out = case / "bert"
        shutil.copytree(self.directory, out)
        changed = rng.choice([*BESIDE, *["tokenizer.json"] * 3])
        for name, content in BESIDE.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(
                mutated.changed_text(content, rng) if name == changed else mutated.dumped(content)
            )
        dense = {"linear.weight": torch.ones(8, 16), "linear.bias": torch.ones(8)}
        save_file(dense, out / "2_Dense" / "model.safetensors")
        program = capture(out)
        encoder = TextEncoder(
            program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols
        )
        encoder(["a b", "c"])

    def manifest(self, rng, case):
        """A bundle's manifest, with or without the right hash of itself."""
        import hashlib

        from graphwright.backends.running.runner import load

        source = rng.choice(self.bundles)
        out = case / "bundle"
        shutil.copytree(source, out)
        path = out / "manifest.json"
        record = json.loads(path.read_bytes())
        record.pop("sha256", None)
        if rng.random() < 0.1:
            path.write_bytes(mutated.changed_bytes(path.read_bytes(), rng))
        else:
            changed = mutated.changed_json(record, rng)
            zeros = "0" * 64
            try:
                text = json.dumps(
                    {"sha256": zeros, **changed} if isinstance(changed, dict) else changed, indent=1
                )
            except RecursionError:
                text = '{\n "sha256": "' + zeros + '",\n "format": ' + "[" * 5000
            digest = hashlib.sha256(text.encode()).hexdigest()
            path.write_text(text.replace(zeros, digest, 1))
        bundle = load(out)
        if not self.native and bundle.manifest.compiled:
            return
        specs = {spec.name: spec for spec in bundle.inputs}
        ids = np.ones((1, 4), np.int64)
        bundle.run(dict.fromkeys(specs, ids))
        bundle(["a b"])

    def bytes_onnxruntime(self, rng, case):
        """One byte of the manifest of a bundle for ONNX Runtime."""
        self._flipped(self.bundles[0], rng, case)

    def bytes_tvm(self, rng, case):
        """One byte of the manifest of a bundle for TVM."""
        self._flipped(self.bundles[1], rng, case)

    def _flipped(self, source, rng, case):
        from graphwright.backends.running.runner import load

        out = case / "bundle"
        shutil.copytree(source, out)
        content = bytearray((out / "manifest.json").read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= rng.randrange(1, 256)
        (out / "manifest.json").write_bytes(content)
        load(out)
        raise AcceptedError(f"byte {place} became {content[place]}")

    def options(self, rng, case):
        """Options of the command, as far as --dry-run looks."""
        from graphwright.tools import config
        from graphwright.tools.build.preflight import passes_of

        settings = {"model": rng.choice(("m", "m.onnx")), "data": "d.csv"}
        for name in rng.sample(("shapes", "columns", "pipeline", "out", "task", "preset", "target"), 2):
            settings[name] = mutated.option_text(rng)
        passes_of(config.resolve(config.make(settings)))

    def settings(self, rng, case):
        """A --config file."""
        import yaml
        from graphwright.tools import config

        run = {
            "model": "m", "out": "o", "pipeline": "to-onnx", "data": "d.csv", "columns": {"text": "a"},
            "samples": 10, "max-drop": 0.5, "threads": 1, "shapes": ["1x8"], "seed": 0,
            "backend": "onnxruntime",
        }  # fmt: skip
        path = case / "run.yaml"
        try:
            content = yaml.safe_dump(mutated.changed_json(run, rng)).encode("utf-8", "surrogatepass")
        except RecursionError:
            content = b"a: " + b"[" * 3000
        path.write_bytes(mutated.changed_bytes(content, rng) if rng.random() < 0.4 else content)
        config.resolve(config.make(config.read(path)))

    def data(self, rng, case):
        """A file of rows."""
        from graphwright.tools.judge.data import read

        kind = rng.choice(("csv", "tsv", "jsonl", "txt"))
        rows = [{"text": "a cat", "pair": "the cat", "label": n % 3} for n in range(6)]
        if kind == "jsonl":
            lines = [
                mutated.dumped(mutated.changed_json(row, rng) if n == 3 else row)
                for n, row in enumerate(rows)
            ]
            content = b"\n".join(lines)
            if rng.random() < 0.5:
                kind, content = "json", b"[" + b", ".join(lines) + b"]"
        else:
            separator = {"csv": ",", "tsv": "\t", "txt": " "}[kind]
            lines = [["text", "pair", "label"], *([str(cell) for cell in row.values()] for row in rows)]
            line = rng.choice(lines)
            line[rng.randrange(3)] = mutated.dumped(mutated.strange(rng)).decode()[:5000]
            content = "\n".join(separator.join(line) for line in lines).encode("utf-8", "surrogatepass")
        path = case / f"rows.{kind}"
        path.write_bytes(mutated.changed_bytes(content, rng) if rng.random() < 0.4 else content)
        read(str(path), rng.choice(("embedding", "sequence-classification", "masked-lm")))

    def arrays(self, rng, case):
        """A file of inputs for `optimize run`."""
        from graphwright.tools.verbs import run as running

        ids = [[1, 2, 3]]
        if rng.random() < 0.3:
            path = case / "feed.npz"
            np.savez(path, input_ids=np.array(ids), attention_mask=np.array(ids))
            path.write_bytes(mutated.changed_bytes(path.read_bytes(), rng))
        else:
            path = case / "feed.json"
            path.write_bytes(mutated.changed_text({"input_ids": ids, "attention_mask": ids}, rng))
        running.lines(running.run(str(self.bundles[0]), None, str(path)))


KINDS = (
    "onnx", "exact", "config", "index", "beside", "manifest", "bytes-onnxruntime", "bytes-tvm", "options",
    "settings", "data", "arrays",
)  # fmt: skip
