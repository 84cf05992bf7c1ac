"""`optimize push`: a bundle as a repository of the Hugging Face Hub, its report in the model card."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...backends.bundles.manifest import REPORT
from ...ir.errors import BundleError, ConfigError, short
from .content import Content, opened
from .spdx import check_licence

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
_KEPT = (".gitattributes", CARD)  # of a repository, whatever the bundle holds
# The Hub's names of what models are for; it has none for features.
_TASKS = {
    "embedding": "feature-extraction",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
}


def push(bundle: str, repo: str, *, licence: str | None = None, private: bool = False) -> str:
    """Make a repository hold exactly a bundle and its card, in one commit; make it where it isn't there.

    Where and as whom is huggingface_hub's affair: HF_ENDPOINT, HF_TOKEN, or `hf auth login`.

    Args:
        bundle: a directory that `optimize` wrote.
        repo: OWNER/NAME.
        licence: of the model, an SPDX expression; None where it isn't known.
        private: where the repository is made now, nobody else sees it.

    Returns:
        The commit's address.

    Raises:
        BundleError: no bundle, a damaged one, one that has a README.md of its own, or the hub refuses it; the
            repository is then as it was.
        ConfigError: a name that no repository can have, or huggingface_hub is missing.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, HTTPError
        from huggingface_hub.utils import disable_progress_bars, validate_repo_id
    except ImportError:
        raise ConfigError("pushing needs huggingface_hub: pip install 'graphwright[hf]'") from None
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise ConfigError(f"{short(repo)} can't name a repository; write OWNER/NAME") from None
    if licence is not None:
        check_licence(licence)
    if not sys.stderr.isatty():
        disable_progress_bars()
    content = opened(bundle, None)
    if CARD in content.files:
        raise BundleError(
            f"{bundle} has a {CARD} of its own, where its card would stand: build the bundle again"
        )
    try:
        return _pushed(HfApi(), content, repo, card(content, repo, licence), private)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{bundle} can't be pushed to {repo}: {_why(error)}") from error


def card(content: Content, repo: str, licence: str | None) -> str:
    """The model card: what the hub's search reads, how to load the model, and the bundle's report."""
    from huggingface_hub import ModelCardData

    compiled = content.manifest.compiled is not None
    about = ModelCardData(
        license=licence.lower() if licence else None,
        library_name="graphwright",
        pipeline_tag=_TASKS.get(content.manifest.task),
        tags=["graphwright", "tvm" if compiled else "onnx"],
    )
    name = repo.rpartition("/")[2]
    needs = "apache-tvm" if compiled else "onnxruntime"
    lines = [
        "---",
        about.to_yaml(),
        "---",
        "",
        f"# {name}",
        "",
        f"A bundle of graphwright for {content.manifest.task}. It runs with {needs} and NumPy.",
        "",
        "```python",
        "import graphwright as gw",
        "from huggingface_hub import snapshot_download",
        "",
        f'bundle = gw.load(snapshot_download("{repo}"))',
        "```",
        "",
        f"sha256 of its manifest, which has that of every other file: `{content.digest}`",
        "",
    ]
    report = content.files.get(REPORT)
    told = report.read_text("utf-8", errors="replace") if report else ""
    return "\n".join(lines) + "\n" + _below(told)


def _below(report: str) -> str:
    """The report with its headings one level down, below the card's own."""
    found, fenced = [], False
    for line in report.splitlines():
        fenced ^= line.startswith("```")
        found.append(f"#{line}" if line.startswith("#") and not fenced else line)
    return "\n".join(found) + "\n" if found else ""


def _pushed(api: HfApi, content: Content, repo: str, text: str, private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, private=private or None, exist_ok=True)
    # A graph of an older bundle would make the new one one with a file that it doesn't list.
    stale = [path for path in api.list_repo_files(repo) if path not in content.files and path not in _KEPT]
    operations: list[Any] = [CommitOperationDelete(path) for path in stale]
    operations += [CommitOperationAdd(place, str(path)) for place, path in content.files.items()]
    operations.append(CommitOperationAdd(CARD, text.encode()))
    done = api.create_commit(repo, operations, commit_message=f"graphwright bundle {content.digest[:12]}")
    return str(done.commit_url)


def _why(error: Exception) -> str:
    """The hub's reason, with the mend where there is one."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if status == 401:
        return "the hub doesn't know who asks: hf auth login, or set HF_TOKEN"
    if status == 403:
        return "the token may not write there: take one with the right to write"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
