"""`optimize push` against a stand-in of the hub: whole bundles, in one commit, or nothing."""

import json

import hub as standing_in
import pytest
import yaml
from graphwright.backends.running.runner import load
from graphwright.tools.pack.content import opened
from graphwright.tools.pack.hub import card


@pytest.fixture
def hub():
    with standing_in.running() as server:
        yield server


@pytest.fixture
def push(command, tmp_path, hub):
    """push(*words) -> CompletedProcess, as somebody who has a token."""

    def run(*words, **changes):
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test"}
        environment |= {"HF_HUB_DISABLE_XET": "1"}  # else weights go to another server, by its own protocol
        environment |= {"HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", **changes}
        return command("push", *words, env=environment)

    return run


def written(files, folder):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_what_is_pushed_is_the_bundle_and_its_card(push, hub, tiny_bundle, tiny_feed, tmp_path):
    done = push(tiny_bundle, "me/tiny", "--licence", "Apache-2.0", "--private", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit"].startswith(f"{hub.url}/me/tiny/commit/")
    assert hub.made[0]["name"] == "tiny"
    assert "private" in json.dumps(hub.made[0])
    files = hub.repos["me/tiny"]
    feed = tiny_feed(16, 8, padding=4)
    again = load(written(files, tmp_path / "pulled"))
    assert again.run(feed)["embedding"].tobytes() == load(tiny_bundle).run(feed)["embedding"].tobytes()
    assert files.keys() == {*again.manifest.files, "manifest.json", "README.md", ".gitattributes"}
    assert hub.objects  # the weights went through LFS
    _, head, text = files["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "apache-2.0"
    assert told["pipeline_tag"] == "feature-extraction"
    assert told["tags"] == ["graphwright", "onnx"]
    assert "# tiny\n" in text
    assert text.endswith("## tiny\n")  # the report, a level down


def test_a_second_bundle_takes_the_place_of_the_first(push, hub, tiny_bundle):
    hub.repos["me/tiny"] = {"model.old.onnx": b"old", "README.md": b"old", ".gitattributes": b"kept"}
    assert push(tiny_bundle, "me/tiny").returncode == 0
    files = hub.repos["me/tiny"]
    assert "model.old.onnx" not in files
    assert files[".gitattributes"] == b"kept"
    assert files["README.md"] != b"old"
    assert len(hub.commits) == 1


@pytest.mark.parametrize("where", ["/api/models/me/tiny/commit", "/lfs/", "/api/models/me/tiny/preupload"])
def test_a_failure_leaves_the_repository_as_it_was(push, hub, tiny_bundle, where):
    before = {"README.md": b"old"}
    hub.repos["me/tiny"] = dict(before)
    hub.refuse[where] = 403
    done = push(tiny_bundle, "me/tiny")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "can't be pushed to me/tiny" in done.stderr
    assert hub.repos["me/tiny"] == before


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"HF_TOKEN": "hf_other"}, "the hub doesn't know who asks: hf auth login, or set HF_TOKEN"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: unset it"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "can't be pushed to me/tiny: "),
    ],
)
def test_no_access_is_one_sentence(push, hub, tiny_bundle, changes, sentence):
    done = push(tiny_bundle, "me/tiny", **changes)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not hub.repos


def test_what_is_no_repository_and_no_bundle(push, hub, tiny_bundle, tmp_path):
    assert "can't name a repository; write OWNER/NAME" in push(tiny_bundle, "a/b/c").stderr
    assert "has no manifest.json" in push(tmp_path, "me/tiny").stderr
    assert not hub.repos


def test_code_in_a_report_keeps_its_comments(tiny_bundle, tmp_path):
    content = opened(str(tiny_bundle), None)
    report = tmp_path / "report.md"
    report.write_text("# A\n```\n# b\n```\n## C\n")
    content.files["report.md"] = report
    assert card(content, "me/tiny", None).endswith("## A\n```\n# b\n```\n### C\n")
    assert "license" not in card(content, "me/tiny", None)
