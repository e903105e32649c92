"""The studies, by name: what each asks, which flags it takes, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import UserError, closest

TIMING = ("batch", "threads", "seconds", "fresh")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySpec:
    """A question that ``python -m bench study NAME`` answers on this machine.

    Attributes:
        name: what it is asked for by.
        summary: what it asks, for ``--help``.
        run: ``module:callable`` that takes the name, the folder for what it writes, and the flags
            that were given; it returns the page that says what came of it.
        flags: names of the flags of :class:`bench.studies.command.Study` that it takes.
    """

    name: str
    summary: str
    run: str = "bench.studies.page:run_paper_study"
    flags: tuple[str, ...] = TIMING


STUDIES: dict[str, StudySpec] = {}


def register_study(spec: StudySpec) -> StudySpec:
    """Makes ``spec`` known by its name, and returns it."""
    assert spec.name not in STUDIES, f"study {spec.name} is registered twice"
    STUDIES[spec.name] = spec
    return spec


def find_spec(name: str) -> StudySpec:
    """Returns the spec of a study.

    Raises:
        UserError: there is none of that name.
    """
    if name not in STUDIES:
        raise UserError(f"unknown study {name!r}: {closest(name, STUDIES)}")
    return STUDIES[name]


# Of a paper: each is a file bench/studies/<name>.py that holds a STUDY.
for _name, _summary in (
    ("guidelines", "ShuffleNetV2's G1 to G4"),
    ("resnet_tweaks", "ResNet-50 A to D"),
    ("width_resolution", "MobileNetV1's multipliers"),
    ("scaling", "EfficientNet's scaling"),
    ("se", "squeeze-and-excitation"),
    ("grouped", "ResNeXt's cardinality"),
    ("fused_mbconv", "EfficientNetV2's blocks"),
):
    register_study(StudySpec(name=_name, summary=_summary))
register_study(
    StudySpec(
        name="ablation",
        summary="what six variations of resnet14 cost and reach",
        run="bench.studies.ablation:run",
        flags=("data", "epochs"),
    )
)
register_study(
    StudySpec(
        name="decoding",
        summary="what shrinking large images first saves and changes",
        run="bench.studies.decoding:run",
        flags=("images", "seconds"),
    )
)
register_study(
    StudySpec(
        name="servers",
        summary="our server beside BentoML's plain endpoint and LitServe",
        run="bench.studies.servers:run",
        flags=("artifact", "rounds", "seconds"),
    )
)
