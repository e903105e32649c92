"""Uploads artifacts to the Hugging Face hub: ``hf://OWNER/NAME``.

A repository has a folder for each artifact, ``labels.txt``, and the model card of the first one.
A push is one commit, so it is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.artifact import CARD, MANIFEST, Artifact, files_of
from core.errors import UserError, first_line
from core.version import own_version
from export.push.changes import Changes
from models.hub_reach import cache_if_unreachable

LABELS = "labels.txt"
Content = Path | bytes


@dataclass(frozen=True, slots=True)
class OnHub:
    """Artifacts in a repository of the hub.

    Attributes:
        address: page of the commit, or of the repository if nothing changed.
        changes: what the push changed of its files.
        private: whether others cannot see it.
    """

    address: str
    changes: Changes
    private: bool


def push_to_hub(artifacts: Sequence[Artifact], repo: str, *, public: bool = False) -> OnHub:
    """Uploads ``artifacts``, of one network, to the repository ``OWNER/NAME``.

    It is made if it is not there. Files of it that are not of these artifacts stay.

    Raises:
        UserError: the hub cannot be reached or refuses, a repository that is public without
            ``public``, or private with it, or an artifact without a model card.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError as error:
        raise UserError(
            f"huggingface_hub is not installed ({error}); pip install '.[remote]'"
        ) from None
    contents = contents_of(artifacts)
    api = HfApi(library_name="pocketnets", library_version=own_version())
    with cache_if_unreachable() as unreachable:
        try:
            api.create_repo(repo, private=not public, exist_ok=True)
            info = api.repo_info(repo)
            _check_visibility(repo, private=bool(info.private), public=public)
            changes = _changes(api, repo, contents)
            address = f"{api.endpoint}/{repo}"
            if changes:
                commit = api.create_commit(
                    repo,
                    [CommitOperationAdd(name, content) for name, content in contents.items()],
                    commit_message=f"Push {', '.join(each.name for each in artifacts)}",
                    commit_description=str(changes),
                    parent_commit=info.sha,  # refused if somebody else pushed meanwhile
                )
                address = str(commit.commit_url)
        except UserError:
            raise
        except Exception as error:  # of the client and of HTTP: they have no common class
            why = unreachable or _in_words(error)
            raise UserError(f"hf://{repo}: nothing was pushed ({why})") from error
    return OnHub(address, changes, bool(info.private))


def contents_of(artifacts: Sequence[Artifact]) -> dict[str, Content]:
    """Returns what the repository gets: files or their bytes, by name.

    Raises:
        UserError: they are of several networks, or one has no model card.
    """
    first = artifacts[0]
    contents: dict[str, Content] = {}
    for artifact in artifacts:
        if (artifact.model, artifact.data, artifact.labels) != (
            first.model,
            first.data,
            first.labels,
        ):
            raise UserError(
                f"{artifact.path} is of another network than {first.path}: push each to a "
                "repository of its own"
            )
        if not (artifact.path / CARD).is_file():
            raise UserError(
                f"{artifact.path} has no {CARD}, as an earlier version made it; export it again"
            )
        for name in sorted({*files_of(artifact.spec), MANIFEST, CARD}):
            contents[f"{artifact.name}/{name}"] = artifact.path / name
    contents[CARD] = (first.path / CARD).read_bytes()
    contents[LABELS] = "".join(f"{' '.join(label.split())}\n" for label in first.labels).encode()
    return contents


def _in_words(error: Exception) -> str:
    """Returns one line: what went wrong, and what the hub says of it."""
    if said := getattr(error, "server_message", None):
        return f"{first_line(error)}: {' '.join(said.split())}"
    return first_line(error.__cause__ or error)  # of an upload that failed in a thread


def _check_visibility(repo: str, *, private: bool, public: bool) -> None:
    if not private and not public:
        raise UserError(
            f"hf://{repo} is public, and all can see what is pushed: --public says that this is "
            "meant; nothing was pushed"
        )
    if private and public:
        raise UserError(
            f"hf://{repo} is private: leave out --public, or make it public in its settings there; "
            "nothing was pushed"
        )


def _changes(api: Any, repo: str, contents: dict[str, Content]) -> Changes:
    """Returns what of ``contents`` is not in the repository yet, by the digests that it gives."""
    there = {
        each.path: each.lfs.sha256 if each.lfs else each.blob_id
        for each in api.get_paths_info(repo, list(contents))
        if hasattr(each, "blob_id")  # not a folder
    }
    mine = {name: digest_of(content, there.get(name, "")) for name, content in contents.items()}
    return Changes.between(there, mine)


def digest_of(content: Content, like: str) -> str:
    """Returns the SHA-256 of a file, or git's object id of it, whichever ``like`` is."""
    data = content.read_bytes() if isinstance(content, Path) else content
    if len(like) == 64:  # of a file in large file storage
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
