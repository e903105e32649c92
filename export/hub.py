"""Fetches weights from the Hugging Face hub: ``hf://OWNER/REPO`` and ``timm/hf-hub:OWNER/REPO``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import UserError, first_line
from core.lazy import resolve
from export.elsewhere import Elsewhere
from models.hub_reach import cache_if_unreachable
from models.imagenet import PublishedForm
from models.registry import TIMM

_MODEL = f"{TIMM}hf-hub:"
# A Path has one slash where the command line had two.
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?", re.ASCII)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Arguments of timm.create_model without effect on weights that are there: the images say the size,
# the last layer the classes, and the others are for training. push_to_hf_hub writes all of them.
_IDLE = {"img_size", "num_classes", "bn_momentum", "weight_init"}
_IDLE |= {f"{kind}_rate" for kind in ("drop", "drop_path", "drop_block")}
_IDLE |= {f"{kind}_drop_rate" for kind in ("attn", "patch", "pos", "proj")}


@dataclass(frozen=True, kw_only=True, slots=True)
class HubWeights:
    """A file of weights that was fetched, and what the repository says of it.

    Attributes:
        path: of the file, in the cache of huggingface_hub.
        name: of the repository, without its owner.
        form: what is done to an image, by timm's config.json; None without one.
        labels: class names by that; empty where it has none.
        architecture: timm's name of the network by that; None likewise.
    """

    path: Path
    name: str
    form: PublishedForm | None = None
    labels: tuple[str, ...] = ()
    architecture: str | None = None


def is_on_hub(path: Path) -> bool:
    """Returns whether ``path`` is an address on the hub."""
    return str(path).startswith("hf:")


def fetch(address: Path) -> HubWeights:
    """Returns the weights at ``hf://OWNER/REPO[@REVISION][/FILE]``, from the cache or the hub.

    Raises:
        UserError: it is no such address, there is no such file, or it cannot be fetched.
    """
    if not (match := _ADDRESS.fullmatch(str(address))):
        raise UserError(f"{address}: an address on the hub is hf://OWNER/REPO[@REVISION][/FILE]")
    repo, revision, file = match.groups()
    files = (file,) if file else _WEIGHTS
    found = (_download(repo, revision, each) for each in files)
    path = next((each for each in found if each), None)
    if path is None:
        raise UserError(f"hf://{repo} has no {' or '.join(files)}; name its file: hf://{repo}/FILE")
    config = _download(repo, revision, "config.json")
    said = _config(config, f"{repo}@{revision}" if revision else repo) if config else {}
    return HubWeights(path=path, name=repo.partition("/")[2], **said)


def resolve_model(model: str, elsewhere: Elsewhere) -> tuple[str, Elsewhere]:
    """Returns network and flags that ``timm/hf-hub:OWNER/REPO`` stands for; others as they are.

    Raises:
        UserError: as :func:`fetch` does, or the repository does not say which network it is of.
    """
    if not model.startswith(_MODEL):
        return model, elsewhere
    if elsewhere.file:
        raise UserError(f"--model {model} has its own weights: leave out {elsewhere.file}")
    address = Path(f"hf://{model.removeprefix(_MODEL)}")
    found = fetch(address)
    if found.architecture is None:
        raise UserError(
            f"{model}: its config.json names no network of timm; say which: --checkpoint hf://"
            f"{model.removeprefix(_MODEL)} --model NAME"
        )
    return f"{TIMM}{found.architecture}", replace(elsewhere, checkpoint=address)


def _download(repo: str, revision: str | None, file: str) -> Path | None:
    """Returns a file of a repository; None where it has none of that name."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"huggingface_hub is not installed ({error}); pip install '.[timm]'"
        ) from None
    with cache_if_unreachable() as unreachable:
        try:
            return Path(hf_hub_download(repo, file, revision=revision))
        except Exception as error:  # of the client and of HTTP: they have no common class
            cached = isinstance(error, LocalEntryNotFoundError)
            if isinstance(error, EntryNotFoundError) and not cached:
                return None
            raise UserError(
                f"hf://{repo}: {file} cannot be fetched ({unreachable or first_line(error)}); "
                "download it where there is a network and pass the file by --checkpoint"
            ) from None


def _config(path: Path, repo: str) -> dict[str, Any]:
    """Returns what timm's config.json says; nothing where it is another library's."""
    try:
        config = json.loads(path.read_text())
        if "architecture" not in config:
            return {}
        timm = resolve("models.timm_nets:import_timm")()
        with cache_if_unreachable():
            cfg, architecture, arguments = timm.models.load_model_config_from_hf(repo)
        form = resolve("models.timm_nets:published_form")(
            timm.data.resolve_data_config(pretrained_cfg=cfg)
        )
        names = cfg.get("label_names") or ()
        described = cfg.get("label_descriptions") or {}
        labels = tuple(str(described.get(name, name)) for name in names)
    except UserError:
        raise
    except Exception as error:  # whatever it holds
        raise UserError(
            f"hf://{repo}: its config.json is none of timm ({first_line(error)})"
        ) from None
    built = [
        f"{name}={value!r}"
        for name, value in arguments.items()
        if not (name in _IDLE or value is None or (name == "in_chans" and value in range(1, 5)))
    ]
    if built:
        raise UserError(
            f"hf://{repo}: its network is built with {', '.join(built)}, which is not supported; "
            f"export it from Python: pocketnets.export(timm.create_model('hf-hub:{repo}', "
            "pretrained=True), ...)"
        )
    return {"form": form, "labels": labels, "architecture": architecture}
