"""`optimize pack`: the same bytes again, nothing half-written, and what is refused."""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.bundles.isa import IsaVariant
from graphwright.backends.joining.join import join
from graphwright.backends.running.runner import load
from graphwright.backends.target import named
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.errors import BundleError, ConfigError
from graphwright.tools.pack import archive, packing, wheel
from graphwright.tools.pack.content import opened
from graphwright.tools.pack.formats import Format
from graphwright.tools.pack.packing import pack
from zstandard import ZstdDecompressor


def unpacked(file, folder):
    plain = ZstdDecompressor().stream_reader(file.read_bytes())
    with tarfile.open(fileobj=plain, mode="r|") as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("kind", Format)
def test_the_same_bundle_gives_the_same_bytes(tiny_bundle, tmp_path, any_runner, kind):
    moved = shutil.copytree(tiny_bundle, tmp_path / "elsewhere" / "tiny-model")
    for file in moved.iterdir():
        os.utime(file, (10**9, 10**9))
        file.chmod(0o600)
    first = pack(str(tiny_bundle), kind, str(tmp_path / "a"), runner=str(any_runner))
    again = pack(str(moved), kind, str(tmp_path / "b"), runner=str(any_runner))
    assert first.name == again.name
    assert first.read_bytes() == again.read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == [first.name]


def test_an_archive_is_a_bundle_again(tiny_bundle, tiny_feed, tmp_path):
    file = pack(str(tiny_bundle), Format.TAR, str(tmp_path), licence="Apache-2.0")
    assert file == tmp_path / "tiny-model.tar.zst"
    folder = unpacked(file, tmp_path / "out") / "tiny-model"
    feed = tiny_feed(3, 7, padding=2)
    np.testing.assert_array_equal(
        load(folder).run(feed)["embedding"], load(tiny_bundle).run(feed)["embedding"]
    )
    bom = json.loads((folder / "sbom.cdx.json").read_text())
    model = bom["components"][0]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    named = {each["name"] for each in model["components"]}
    standing = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert named == standing - {"sbom.cdx.json"}


def test_entries_are_sorted_without_times_and_owners():
    file = io.BytesIO()
    archive.write_tar(file, {"b/z": b"1", "a": b"22", "b/c/d": b""}, {"b/z"})
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        found = [(e.name, e.mode, e.mtime, e.uid, e.uname) for e in tar]
    assert found == [
        ("b", 0o755, 0, 0, ""),
        ("b/c", 0o755, 0, 0, ""),
        ("a", 0o644, 0, 0, ""),
        ("b/c/d", 0o644, 0, 0, ""),
        ("b/z", 0o755, 0, 0, ""),
    ]


def test_a_changed_bundle_is_refused(tiny_bundle, tmp_path):
    changed = shutil.copytree(tiny_bundle, tmp_path / "changed")
    with (changed / "model.onnx.data").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(
        BundleError, match=r"model\.onnx\.data is not the file that the manifest was made for"
    ):
        pack(str(changed), Format.TAR, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "a/b"}, "can't name a package"),
        ({"name": ""}, "can't name a package"),
        ({"name": "1x"}, "can't be imported"),
        ({"name": "class"}, "can't be imported"),
        ({"name": "numpy"}, "would hide another package"),
        ({"version": "one"}, "no version that a wheel can have"),
        ({"licence": "foo/bar"}, "no SPDX licence expression"),
        ({"licence": ""}, "no SPDX licence expression"),
    ],
)
def test_what_no_package_can_have_is_refused(tiny_bundle, tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        pack(str(tiny_bundle), Format.WHEEL, str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_file_is_replaced_only_by_force(tiny_bundle, tmp_path):
    target = tmp_path / "tiny-model.tar.zst"
    target.write_bytes(b"mine")
    with pytest.raises(BundleError, match="exists already"):
        pack(str(tiny_bundle), Format.TAR, str(tmp_path))
    assert target.read_bytes() == b"mine"
    assert pack(str(tiny_bundle), Format.TAR, str(tmp_path), force=True).read_bytes() != b"mine"
    target.unlink()
    target.mkdir()
    with pytest.raises(BundleError, match="not a file"):
        pack(str(tiny_bundle), Format.TAR, str(tmp_path), force=True)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_what_was_there(tiny_bundle, tmp_path, monkeypatch, fault):
    def broken(stream, entries):
        stream.write(b"half")
        raise fault

    monkeypatch.setattr(packing.archive, "write_tar_zst", broken)
    (tmp_path / "tiny-model.tar.zst").write_bytes(b"old")
    with pytest.raises((KeyboardInterrupt, BundleError)):
        pack(str(tiny_bundle), Format.TAR, str(tmp_path), force=True)
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("tiny-model.tar.zst", b"old")]


def test_the_verb_says_what_it_wrote(invoke, tiny_bundle, tmp_path):
    found = invoke("pack", tiny_bundle, "-o", tmp_path, "--json")
    assert found.exit_code == 0
    told = json.loads(found.stdout)
    assert told["bytes"] == (tmp_path / "tiny-model.tar.zst").stat().st_size
    assert told["file"] == str(tmp_path / "tiny-model.tar.zst")
    assert invoke("pack", tmp_path).exit_code == 1


def installed(wheel, folder):
    """pip's own installation of the wheel, and of nothing else."""
    line = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*line, "--target", folder, wheel], check=True)


def answered(site, module, feed, tmp_path):
    """What an installed wheel says to a feed, in a process that finds nothing but `site`."""
    np.savez(tmp_path / "feed.npz", **feed)
    code = (
        "import sys\n"
        f"sys.path.append({str(site)!r})\n"
        f"import numpy, {module}\n"
        f"feed = dict(numpy.load({str(tmp_path / 'feed.npz')!r}))\n"
        f"numpy.savez({str(tmp_path / 'out.npz')!r}, **{module}.load().run(feed))\n"
        "assert not {'graphwright', 'tokenizers', 'onnx', 'torch', 'psutil'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)
    return np.load(tmp_path / "out.npz")


def test_a_wheel_answers_the_same_beside_numpy_and_onnxruntime_alone(tiny_bundle, tiny_feed, tmp_path, only):
    wheel = pack(str(tiny_bundle), Format.WHEEL, str(tmp_path), version="1.2.0")
    assert wheel.name == "tiny_model-1.2.0-py3-none-any.whl"
    site = only("numpy", "onnxruntime")
    installed(wheel, site)
    for feed in (tiny_feed(1, 8), tiny_feed(16, 9), tiny_feed(16, 8, padding=4)):
        found = answered(site, "tiny_model", feed, tmp_path)
        np.testing.assert_array_equal(found["embedding"], load(tiny_bundle).run(feed)["embedding"])


def test_a_wheel_of_compiled_functions_is_for_their_processor(tiny_program, tiny_feed, tmp_path, only):
    artifact = Tvm().build(tiny_program, threads=1, buckets=[{"batch": 2, "length": 6}])
    artifact.save(tmp_path / "fast")
    wheel = pack(str(tmp_path / "fast"), Format.WHEEL, str(tmp_path), name="tiny.fast", version="3")
    assert wheel.name == f"tiny_fast-3-py3-none-linux_{artifact.compiled.arch}.whl"
    site = only("numpy", "apache-tvm", "apache-tvm-ffi", "typing_extensions")
    installed(wheel, site)
    feed = tiny_feed(5, 4, padding=1)
    found = answered(site, "tiny_fast", feed, tmp_path)
    np.testing.assert_array_equal(found["embedding"], load(tmp_path / "fast").run(feed)["embedding"])
    (metadata,) = site.glob("tiny_fast*/METADATA")
    needs = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needs if "apache-tvm==" in line]
    assert not [line for line in needs if "onnxruntime" in line]


@pytest.fixture
def joined(tiny_program, tmp_path):
    """A bundle of variants for two levels of x86-64."""
    builds = {}
    for target in ("x86-64-avx2", "x86-64-vnni"):
        routes, record = [Route("1x8", 1, 8, 0.0, "main")], {"target": named(target).to_json()}
        builds[target] = write(
            tmp_path / "builds" / target, [Variant("main", tiny_program)], routes, manifest=record, threads=1
        )
    (tmp_path / "two").mkdir()
    join(tmp_path / "two", builds, lambda _: {})
    return tmp_path / "two"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86_64 are run")
def test_a_bundle_of_variants_is_packed_whole(joined, tiny_feed, tmp_path, only, any_runner):
    site, feed = only("numpy", "onnxruntime"), tiny_feed(2, 8)
    installed(pack(str(joined), Format.WHEEL, str(tmp_path)), site)
    wanted = load(joined).run(feed)["embedding"]
    np.testing.assert_array_equal(answered(site, "two", feed, tmp_path)["embedding"], wanted)
    again = unpacked(pack(str(joined), Format.TAR, str(tmp_path)), tmp_path / "out") / "two"
    np.testing.assert_array_equal(load(again).run(feed)["embedding"], wanted)
    assert pack(str(joined), Format.OCI, str(tmp_path), runner=str(any_runner)).stat().st_size


def test_a_wheel_of_functions_for_several_architectures_is_tagged_for_each(tiny_program, tmp_path):
    Tvm().build(tiny_program, threads=1, buckets=[{"batch": 2, "length": 6}]).save(tmp_path / "one")
    content = opened(str(tmp_path / "one"), None)
    both = tuple(IsaVariant(arch, arch, ()) for arch in ("x86_64", "aarch64"))
    content = replace(content, manifest=replace(content.manifest, isa=both))
    assert wheel.file_name(content, "1") == "one-1-py3-none-linux_aarch64.linux_x86_64.whl"
    with (tmp_path / "w.whl").open("wb") as file:
        wheel.write(file, content, "1", b"{}", {})
    told = zipfile.ZipFile(tmp_path / "w.whl").read("one-1.dist-info/WHEEL").decode()
    assert "Tag: py3-none-linux_aarch64\nTag: py3-none-linux_x86_64\n" in told
