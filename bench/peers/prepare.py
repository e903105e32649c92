"""Writes what the peers are given of a network, and has each of them make its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peers.material import VERSIONS, Material
from bench.peers.registry import INSTALL, PeerSpec
from core.machine import Machine
from export.network import Network
from export.samples import stack
from models.classifier import Classifier
from models.inference_form import inference_form

_LIMIT = 1800  # s for the files of one setting
_ROOT = Path(__file__).resolve().parents[2]


def kept_folder(folder: Path, network: Network, machine: Machine) -> Path:
    """Returns the folder in ``folder`` for what is made of these weights, images and versions.

    Versions are those of this environment: the tools of another one may change unnoticed.
    """
    found = sha256(repr(sorted(machine.versions.items())).encode())
    for name, values in network.module.state_dict().items():
        found.update(name.encode())
        found.update(values.numpy().tobytes())
    found.update(stack(network.calibration, network.preprocess, network.truncated).tobytes())
    kept = folder / found.hexdigest()[:12]
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def write_material(network: Network, folder: Path) -> Material:
    """Writes a network in every form that a peer's converter takes, for one image, to ``folder``.

    All are what torch exports by itself: a peer's own tools optimise them.
    """
    import torch

    module = network.module
    assert isinstance(module, Classifier)
    module = inference_form(module).eval()
    material = Material(folder)
    pixels = stack(network.calibration, network.preprocess, network.truncated)
    material.write(pixels, module.scale.flatten().tolist(), module.shift.flatten().tolist())
    height, width, channels = network.preprocess.shape
    image = (torch.zeros(1, height, width, channels, dtype=torch.uint8),)
    normalised = (torch.zeros(1, channels, height, width),)
    for what, given, name, file in (
        (module, image, "pixels", material.graph),
        (module.backbone, normalised, "images", material.backbone),
    ):
        torch.onnx.export(
            what,
            given,
            file,
            input_names=[name],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    torch.export.save(torch.export.export(module, image, strict=False), material.program)
    return material


def why_missing(spec: PeerSpec) -> str | None:
    """Returns what of a peer is not installed; None if nothing that runs its files."""
    if any(_is_installed(package) for package in spec.packages):
        return None
    return f"{spec.packages[-1]} is not installed; {INSTALL}"


def make_files(
    spec: PeerSpec, material: Material, folder: Path, python: Path | None = None
) -> dict[str, str]:
    """Has a peer make its files in ``folder``, and returns why not for those it could not make.

    What it made there before stays.

    Args:
        spec: the peer.
        material: what it is given.
        folder: gets a folder for each kind of files.
        python: that of the environment that has its tools; None for this one.
    """
    failed = {}
    for files in dict.fromkeys(one.files for one in spec.settings if not one.absent):
        if (folder / files / VERSIONS).is_file():  # written last
            continue
        if (folder / files).exists():
            shutil.rmtree(folder / files)
        (folder / files).mkdir(parents=True)
        if reason := _make(spec, files, material, folder / files, python):
            failed[files] = reason
    return failed


def _make(
    spec: PeerSpec, files: str, material: Material, folder: Path, python: Path | None
) -> str | None:
    line = [str(python or sys.executable), "-m", "bench.peers.make", spec.module, files]
    line += [str(material.folder), str(folder), *spec.tools]
    log = folder / "log.txt"
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                line,
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"not made within {_LIMIT} s"
        except OSError as error:
            return f"{line[0]}: {error.strerror}"
    if not done.returncode:
        return None
    lines = [text.strip() for text in log.read_text(errors="replace").splitlines()]
    last = next(filter(None, reversed(lines)), f"status {done.returncode}, without a word")
    if "No module named" in last:
        return f"{last}; {spec.elsewhere or INSTALL}"
    return f"its tool failed: {last}"


def _search_path() -> list[str]:
    """Returns where the Python of another environment finds this project."""
    return list(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
