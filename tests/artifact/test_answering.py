"""Logits become one class, none where that is unsure, or any number of labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from artifact.answering import Answering, agreement, answering_of
from artifact.artifact import MANIFEST, Artifact, digest_of
from artifact.records import Abstention
from artifact.validation import ArtifactError
from core.errors import UserError

MakeArtifact = Callable[..., Path]

LOGITS = np.array([2.0, -3.0, 1.0, 0.5], dtype=np.float32)
ABSTENTION = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.5, images=40)


def test_one_class_is_the_likeliest_or_none_where_that_is_unsure() -> None:
    scores, chosen, shown = Answering().answer(LOGITS, 3)
    assert (chosen, shown) == ((0,), (0, 2, 3))
    assert scores.sum() == pytest.approx(1)
    best = float(scores[0])
    assert Answering(least=best).answer(LOGITS, 3).chosen == (0,)
    assert Answering(least=best + 1e-6).answer(LOGITS, 3)[1:] == ((), (0, 2, 3))


def test_labels_are_all_above_their_own_threshold() -> None:
    several = Answering(task="multi", thresholds=(0.9, 0.04, 0.5, 0.9))
    scores, chosen, shown = several.answer(LOGITS, 1)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-LOGITS.astype(float))))
    assert chosen == (2, 1)  # by score; the likeliest is below its threshold, and shown
    assert shown == (0, 2, 1)
    assert several.sets(LOGITS[None]).tolist() == [[False, True, True, False]]
    none = Answering(task="multi", thresholds=(1.0,) * 4).answer(LOGITS + 1000, 2)
    assert none.chosen == ()  # a threshold of 1 is never exceeded
    assert none.shown == (0, 1)


def test_agreement_is_what_both_have_of_what_either_has() -> None:
    rows = [([1, 1, 0], [1, 0, 0], 0.5), ([0, 0, 0], [0, 0, 0], 1), ([1, 0, 0], [0, 1, 0], 0)]
    first, second = (np.array([row[at] for row in rows], dtype=bool) for at in (0, 1))
    assert agreement(first, second) == pytest.approx(np.mean([row[2] for row in rows]))
    logits = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)
    same = (logits[0].argmax(axis=1) == logits[1].argmax(axis=1)).mean()
    assert agreement(*map(Answering().sets, logits)) == pytest.approx(same)


def test_a_manifest_says_what_is_answered(make_artifact: MakeArtifact) -> None:
    path = make_artifact(task="multi", thresholds=(0.2, 0.3, 0.4))
    assert answering_of(Artifact.load(path)).thresholds == (0.2, 0.3, 0.4)
    with pytest.raises(UserError, match="any number of labels"):
        answering_of(Artifact.load(path), abstain=True)
    path = make_artifact(abstention=ABSTENTION)
    assert answering_of(Artifact.load(path)).least is None
    assert answering_of(Artifact.load(path), abstain=True).least == 0.9


def test_a_manifest_of_an_earlier_version_has_one_class(make_artifact: MakeArtifact) -> None:
    file = make_artifact() / MANIFEST
    fields = json.loads(file.read_text())
    for new in ("task", "thresholds", "abstention", "digest"):
        del fields[new]
    file.write_text(json.dumps({**fields, "digest": digest_of(fields)}))
    artifact = Artifact.load(file.parent)
    assert answering_of(artifact) == Answering()
    with pytest.raises(UserError, match=r"--recipe\.answer-precision"):
        answering_of(artifact, abstain=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "multi"},
        {"task": "multi", "thresholds": (0.5, 0.5)},
        {"thresholds": (0.5, 0.5, 0.5)},
        {"task": "multi", "thresholds": (0.5, 0.5, 1.5)},
        {"task": "multi", "thresholds": (0.5, 0.5, 0.5), "abstention": ABSTENTION},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    make_artifact: MakeArtifact, changes: dict[str, object]
) -> None:
    with pytest.raises(ArtifactError, match=r"thresholds|task"):
        make_artifact(**changes)
