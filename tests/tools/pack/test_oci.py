"""Images: a layout that the specification allows, and one that runs with nothing around it."""

import hashlib
import io
import json
import subprocess
import tarfile

import c_runner
import numpy as np
import pytest
from graphwright.backends.running.runner import load
from graphwright.ir.errors import ConfigError
from graphwright.tools.pack import system
from graphwright.tools.pack.formats import Format
from graphwright.tools.pack.packing import pack
from zstandard import ZstdDecompressor


class Layout:
    """An image layout in a tar archive, read as the specification says; digests and sizes are checked."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        self.index = json.loads(self.files["index.json"])
        (self.entry,) = self.index["manifests"]
        self.manifest = json.loads(self.blob(self.entry))
        self.config = json.loads(self.blob(self.manifest["config"]))

    def blob(self, descriptor):
        algorithm, _, digest = descriptor["digest"].partition(":")
        data = self.files[f"blobs/{algorithm}/{digest}"]
        assert hashlib.new(algorithm, data).hexdigest() == digest
        assert len(data) == descriptor["size"]
        return data

    def layers(self):
        for descriptor in self.manifest["layers"]:
            yield ZstdDecompressor().stream_reader(self.blob(descriptor)).read()


@pytest.fixture
def layout(tiny_bundle, any_runner, tmp_path):
    file = pack(str(tiny_bundle), Format.OCI, str(tmp_path), runner=str(any_runner), licence="MIT")
    assert file.name == "tiny-model.oci.tar"
    return Layout(file)


def test_the_layout_is_one_that_the_specification_allows(layout):
    assert json.loads(layout.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    kind = "application/vnd.oci.image."
    assert layout.index["schemaVersion"] == layout.manifest["schemaVersion"] == 2
    assert layout.index["mediaType"] == kind + "index.v1+json"
    assert layout.entry["mediaType"] == layout.manifest["mediaType"] == kind + "manifest.v1+json"
    assert layout.manifest["config"]["mediaType"] == kind + "config.v1+json"
    assert {each["mediaType"] for each in layout.manifest["layers"]} == {kind + "layer.v1.tar+zstd"}
    plain = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layout.layers()]
    assert layout.config["rootfs"] == {"type": "layers", "diff_ids": plain}
    assert len(layout.config["history"]) == len(plain)
    assert layout.entry["platform"] == {name: layout.config[name] for name in ("architecture", "os")}
    assert layout.config["architecture"] in ("amd64", "arm64")
    digests = {layout.entry["digest"], layout.manifest["config"]["digest"]}
    digests |= {each["digest"] for each in layout.manifest["layers"]}
    named = {f"blobs/{digest.replace(':', '/')}" for digest in digests}
    assert set(layout.files) == named | {"oci-layout", "index.json"}
    tag = layout.entry["annotations"]["org.opencontainers.image.ref.name"]
    assert tag.startswith("0-g")


def test_every_file_of_others_has_an_owner_and_a_licence(layout):
    inside = {}
    for layer in layout.layers():
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            inside |= {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
    bom = json.loads(inside["sbom.cdx.json"])
    for part in bom["components"]:
        for file in part.get("components", ()):
            name = file["name"].lstrip("/")
            content = inside.get(name, inside.get(f"bundle/{name}"))
            assert hashlib.sha256(content).hexdigest() == file["hashes"][0]["content"]
    listed = {file["name"].lstrip("/") for part in bom["components"] for file in part.get("components", ())}
    others = {name.removeprefix("bundle/") for name in inside if not name.startswith(("licenses/", "sbom"))}
    assert others == listed
    for part in bom["components"]:
        if part["name"] not in ("model", "graphwright-runner"):
            assert part["licenses"]
            assert any(name.startswith(f"licenses/{part['name']}/") for name in inside)


def test_what_an_image_needs_is_named(tiny_bundle, tmp_path, any_runner, monkeypatch):
    with pytest.raises(ConfigError, match="has no graphwright-run: build one"):
        pack(str(tiny_bundle), Format.OCI, str(tmp_path / "out"), runner=str(tmp_path))
    monkeypatch.setattr(system.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="it has no ldd"):
        pack(str(tiny_bundle), Format.OCI, str(tmp_path / "out"), runner=str(any_runner))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_image_runs_by_what_is_in_it(tiny_bundle, tiny_feed, tmp_path, tmp_path_factory):
    """With a runner built on the way, and with one built before: the same bytes. The image's own loader finds
    every library there. (Not in a chroot: ONNX Runtime wants /proc, which containers have.)"""
    built = str(c_runner.built(tmp_path_factory))
    files = [
        pack(str(tiny_bundle), Format.OCI, str(tmp_path / name), runner=runner)
        for name, runner in (("a", None), ("b", built))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    layout, root = Layout(files[0]), tmp_path / "root"
    for layer in layout.layers():
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            tar.extractall(root, filter="tar")
    folders = {str(path.parent) for path in root.rglob("*.so*") if not path.name.startswith("ld-")}
    (loader,) = root.rglob("ld-linux*")
    by_it = [loader, "--inhibit-cache", "--library-path", ":".join(sorted(folders))]
    program, model = (
        f"{root}{word}" for word in layout.config["config"]["Entrypoint"] + layout.config["config"]["Cmd"]
    )
    for each in (program, root / "graphwright" / "libonnxruntime.so.1"):
        told = subprocess.run([*by_it, "--list", each], capture_output=True, text=True, check=True).stdout
        opened = [line.split(" => ")[1].split(" (")[0] for line in told.splitlines() if " => " in line]
        assert len(opened) > 3
        assert [path for path in opened if not path.startswith(str(root))] == []
    feed = tiny_feed(16, 8, padding=4)
    for name, array in feed.items():
        np.save(tmp_path / f"{name}.npy", array)
    arrays = [f"{name}={tmp_path / name}.npy" for name in feed]
    subprocess.run([*by_it, program, model, *arrays, tmp_path / "out"], check=True)
    found = np.load(tmp_path / "out" / "embedding.npy")
    assert found.tobytes() == load(tiny_bundle).run(feed)["embedding"].tobytes()
