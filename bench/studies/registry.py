"""The registry of studies: the question, the flags and the function of each."""

from __future__ import annotations

from dataclasses import dataclass

from core.registry import Registry

TIMING = ("batch", "threads", "seconds", "fresh")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySpec:
    """A study that ``python -m bench study NAME`` runs.

    Attributes:
        name: name on the command line.
        summary: what it compares, for ``--help``.
        run: ``module:callable`` that takes the name, the output folder and the given flags, and
            returns the path of the page that it has written.
        flags: names of the flags of :class:`bench.studies.command.Study` that it takes.
    """

    name: str
    summary: str
    run: str = "bench.studies.sections:run_paper_study"
    flags: tuple[str, ...] = TIMING


STUDIES = Registry[StudySpec]("study")

# Studies of papers: each has a file bench/studies/<name>.py with a STUDY.
for _name, _summary in (
    ("guidelines", "ShuffleNetV2's G1 to G4"),
    ("resnet_tweaks", "ResNet-50 A to D"),
    ("width_resolution", "MobileNetV1's multipliers"),
    ("scaling", "EfficientNet's scaling"),
    ("se", "squeeze-and-excitation"),
    ("grouped", "ResNeXt's cardinality"),
    ("fused_mbconv", "EfficientNetV2's blocks"),
):
    STUDIES.register(StudySpec(name=_name, summary=_summary))
STUDIES.register(
    StudySpec(
        name="ablation",
        summary="what six variations of resnet14 cost and reach",
        run="bench.studies.ablation:run",
        flags=("data", "epochs"),
    )
)
STUDIES.register(
    StudySpec(
        name="decoding",
        summary="what shrinking large images first saves and changes",
        run="bench.studies.decoding:run",
        flags=("images", "seconds"),
    )
)
STUDIES.register(
    StudySpec(
        name="servers",
        summary="our server beside BentoML's plain endpoint and LitServe",
        run="bench.studies.servers:run",
        flags=("artifact", "rounds", "seconds"),
    )
)
STUDIES.register(
    StudySpec(
        name="rewrites",
        summary="what each graph rewrite gains",
        run="bench.studies.rewrites:run",
        flags=("seconds", "fresh"),
    )
)
