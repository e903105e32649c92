"""Tables of artifacts for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from artifact.artifact import Artifact
from artifact.gates import Gate
from artifact.records import Metrics
from artifact.siblings import other_thresholds
from artifact.store import StoredArtifact, graph_facts
from core.image_size import size_text
from report.format import plural

if TYPE_CHECKING:
    from export.build import Outcome

_SHOWN = 8  # of a long list of names
_RANDOM = (
    "Random weights: the logits of all classes lie close together, so in int8 the first one often "
    "is another one. That says little of the network with weights that are trained."
)


def outcome_table(networks: Iterable[tuple[str, Sequence[Outcome]]]) -> Table:
    """Returns a table with a row for each target: the artifact built, or the reason why not."""
    networks = list(networks)
    column = _accuracy_column(each.artifact for _, outcomes in networks for each in outcomes)
    table = _table("network", "artifact", accuracy=column)
    for name, outcomes in networks:
        if any(outcome.artifact and _says_little(outcome.artifact) for outcome in outcomes):
            table.caption, table.caption_justify = _RANDOM, "left"
        said: dict[str | None, str] = {}  # reason to the target it was first given for
        for index, outcome in enumerate(outcomes):
            first = said.setdefault(outcome.reason, outcome.target)
            reason = outcome.reason if first == outcome.target else f"as {first}"
            state = f"{'failed' if outcome.failed else 'not built'}: {reason}"
            cells = _cells(outcome.artifact, column) if outcome.artifact else ("", "", "", state)
            table.add_row("" if index else name, outcome.target, *cells)
        table.add_section()
    return table


def shelf_table(entries: Iterable[StoredArtifact]) -> Table:
    """Returns a table with a row for each stored artifact, valid or not."""
    entries = list(entries)
    column = _accuracy_column(entry.artifact for entry in entries)
    table = _table("artifact", accuracy=column)
    for entry in entries:
        if entry.artifact is None:
            table.add_row(str(entry.path), "", "", "", f"refused: {entry.reason}")
        else:
            table.add_row(str(entry.path), *_cells(entry.artifact, column))
    return table


def gate_table(gates: Iterable[Gate]) -> Table:
    """Returns a table with a row for each gate: figure, limit, and on what it was measured."""
    table = Table("gate", "measured", "must be", "of", title="gates", title_justify="left")
    for gate in gates:
        table.add_row(gate.name, gate.figure, gate.bound, gate.measured)
    return table


def show_tables(artifact: Artifact) -> list[Table]:
    """Returns tables of one artifact: facts, gates, operators, files."""
    facts = Table.grid("name", "value", padding=(0, 2))
    opset, ops = graph_facts(artifact)
    for name, value in _facts(artifact, opset):
        facts.add_row(name, value)
    nodes = Table("operator", "nodes", title="graph", title_justify="left")
    for op, count in ops.items():
        nodes.add_row(op, str(count))
    files = Table("file", "bytes", "sha256", title="files", title_justify="left")
    for file, digest in sorted(artifact.sha256s.items()):
        files.add_row(file, f"{(artifact.path / file).stat().st_size:,}", digest[:16])
    return [facts, *([gate_table(artifact.gates)] if artifact.gates else []), nodes, files]


def _facts(artifact: Artifact, opset: int) -> Iterable[tuple[str, str]]:
    pre, (low, high) = artifact.preprocess, artifact.batch_range
    yield "artifact", str(artifact.path)
    yield "network", f"{artifact.model}, {artifact.source.origin}"
    yield "format", f"{artifact.format} {artifact.precision}, ONNX opset {opset}"
    yield "input", f"{artifact.input.dtype} {list(artifact.input.shape)}, batch {low} to {high}"
    yield "output", f"{artifact.output.dtype} {list(artifact.output.shape)}"
    yield "classes", _few(artifact.labels)
    yield (
        "preprocess",
        f"resize {size_text(pre.resize)}, crop {size_text(pre.crop)} ({pre.crop_mode}), "
        f"{pre.interpolation}",
    )
    for assumed in artifact.source.reading.assumed if artifact.source.reading else ():
        yield "assumed", assumed
    yield (
        "cost",
        f"{artifact.macs / 1e6:,.1f} M MACs, {artifact.parameters / 1e6:,.2f} M parameters",
    )
    if artifact.shape_nodes:
        yield "shapes", f"{artifact.shape_nodes} nodes compute with nothing but sizes"
    if metrics := artifact.metrics:
        name = "top-1" if metrics.mean_ap is None else "mAP"
        figure = metrics.top1 if metrics.mean_ap is None else metrics.mean_ap
        yield name, f"{figure:.1%} of {plural(metrics.images, f'{metrics.part} image')}"
    if artifact.thresholds:
        pairs = zip(artifact.labels, artifact.thresholds, strict=True)
        yield "thresholds", _few([f"{label} {each:.3f}" for label, each in pairs])
        if words := other_thresholds(artifact):
            yield "warning", words
    if abstention := artifact.abstention:
        yield (
            "abstention",
            f"below a score of {abstention.threshold:.3f}: then {abstention.precision:.1%} of the "
            f"answers are right, to {abstention.coverage:.1%} of {abstention.images} images",
        )
    yield "state", _state(artifact)
    if artifact.precision != "fp32":
        yield _left(artifact), _few(artifact.fp32_layers) or "no layer"
    if artifact.quantization:
        yield "calibration", calibration(artifact)
    if artifact.rewrites:
        yield "rewritten", ", ".join(f"{count} {name}" for name, count in artifact.rewrites.items())
    if engine := artifact.fingerprint:
        yield "built by", f"{artifact.format} {engine.version}, driver {engine.driver or 'none'}"
        yield "built for", f"compute capability {', '.join(engine.capabilities)}"
        yield "batches", ", ".join("-".join(map(str, sorted(set(p)))) for p in engine.profiles)
    yield "made with", ", ".join(f"{name} {number}" for name, number in artifact.versions.items())


def calibration(artifact: Artifact) -> str:
    """Returns one line that says how an int8 graph was calibrated."""
    made = artifact.quantization
    if made is None:
        return "not recorded"
    tried = ", ".join(f"{name} {top1:.1%}" for name, top1 in made.top1.items())
    figure = "top-1" if made.labelled else "agreement"
    if artifact.task == "multi":
        figure = f"agreement with {'the true' if made.labelled else 'the float32'} labels (Jaccard)"
    return (
        f"{made.calibration} ({figure} on {made.images} calibration images: {tried}), weights of "
        f"{made.weight_bits} bits"
    )


def _accuracy_column(artifacts: Iterable[Artifact | None]) -> str:
    """Returns what the column of accuracies is called: mAP if all images have several labels."""
    return "mAP" if {each.task for each in artifacts if each} == {"multi"} else "top-1"


def _table(*names: str, accuracy: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, no_wrap=name == "artifact")
    for name in ("size", accuracy, "agrees"):
        table.add_column(name, justify="right")
    table.add_column("state")
    return table


def _cells(artifact: Artifact, column: str) -> tuple[str, ...]:
    parity, metrics = artifact.parity, artifact.metrics
    return (
        f"{artifact.size / 1e6:.1f} MB",
        _accuracy(metrics, column),
        f"{parity.top1_agreement:.1%}" if parity else "-",
        _state(artifact),
    )


def _accuracy(metrics: Metrics | None, column: str) -> str:
    """Returns top-1, or, of several labels, mAP, which is named in a column of another name."""
    if metrics is None:
        return "-"
    if metrics.mean_ap is None:
        return f"{metrics.top1:.1%}"
    return f"{metrics.mean_ap:.1%}" + (" mAP" if column != "mAP" else "")


def _says_little(artifact: Artifact) -> bool:
    return artifact.weights == "random" and artifact.precision == "int8"


def _state(artifact: Artifact) -> str:
    if artifact.parity is None:
        return f"unverified: {artifact.unverified}"
    gates = ", ".join(gate.name for gate in artifact.gates)
    layers = f"; {_left(artifact)}: {len(artifact.fp32_layers)}" if artifact.fp32_layers else ""
    return f"passed on {artifact.parity.runtime}: {gates}{layers}"


def _left(artifact: Artifact) -> str:
    """Returns what its :attr:`Manifest.fp32_layers` are: Core ML has those of int8 in float16."""
    return "left in fp32" if artifact.precision == "fp16" else "not in int8"


def _few(names: Sequence[str]) -> str:
    """Returns ``names`` in one line; only the first ones if there are many."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
