from __future__ import annotations

import dataclasses
import subprocess
import sys

from models.machine import this_machine


def test_this_machine_is_described_without_torch() -> None:
    code = (
        "import sys; from models.machine import this_machine; m = this_machine(); "
        "assert m.cpu and m.cores >= 1 and m.kernel; print(sorted(m.versions)); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout


def test_key_stays_until_a_fact_changes() -> None:
    machine = this_machine()
    newer = dataclasses.replace(machine, versions={**machine.versions, "onnxruntime": "99"})
    assert this_machine().key == machine.key
    assert newer.key != machine.key
