"""A phone in a folder, with an ``adb`` on PATH that reaches it."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

PROGRAMS = Path(__file__).with_name("phone")
SERIAL = "1A2B3C4D5E6F"
PROPERTIES = {
    "ro.build.display.id": "TQ3A.230805.001",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.product.model": "Pixel 6",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor",
}
# First core, number of cores, highest clock in kHz, capacity.
CLUSTERS = ((0, 4, 1803000, 250), (4, 2, 2253000, 620), (6, 2, 2802000, 1024))
COMMANDS = {
    "getprop": 'cat "$FAKE_PHONE/properties"',
    "dumpsys": """\
test "$1" = thermalservice || exit 1
{ read -r celsius; cat > "$FAKE_PHONE/next"; } < "$FAKE_PHONE/celsius"
test -s "$FAKE_PHONE/next" && mv "$FAKE_PHONE/next" "$FAKE_PHONE/celsius"
echo "IsStatusOverride: false"
echo "Thermal Status: $(cat "$FAKE_PHONE/throttling")"
echo "Cached temperatures:"
echo "	Temperature{mValue=99.0, mType=0, mName=BIG, mStatus=3}"
echo "HAL Ready: true"
echo "Current temperatures from HAL:"
echo "	Temperature{mValue=31.5, mType=2, mName=battery, mStatus=0}"
echo "	Temperature{mValue=$celsius, mType=0, mName=BIG, mStatus=0}"
echo "	Temperature{mValue=30.1, mType=0, mName=LITTLE, mStatus=0}"
echo "Current cooling devices from HAL:"
echo "	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-2}"
""",
    "taskset": 'FAKE_MASK="$1"; export FAKE_MASK; shift; exec "$@"',
    "logcat": 'cat "$FAKE_PHONE/log"; rm -f "$FAKE_PHONE/log"',
}


class FakePhone:
    """A phone, and what is wrong with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings: dict[str, Any] = {
            "serial": SERIAL,
            "pulled_after": "",  # commands until the cable is pulled
            "room": "",  # bytes of the largest file that fits
            "masks": "c0 30 f",  # of its clusters, the fastest first
            "broken": "",  # networks that fail
            "iterations": 1,  # whether executor_runner logs each call
        }
        for folder in ("bin", "host", "ms", "answers", "data/local/tmp", "proc"):
            (root / folder).mkdir(parents=True)
        shutil.copy(PROGRAMS / "adb", root / "host/adb")
        shutil.copy(PROGRAMS / "tool", root / "tool")
        lines = [f"[{name}]: [{value}]" for name, value in PROPERTIES.items()]
        (root / "properties").write_text("\n".join(lines) + "\n")
        for name, body in COMMANDS.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
            (root / "bin" / name).chmod(0o755)
        self.heat(35.0)
        (root / "throttling").write_text("0\n")
        (root / "proc/loadavg").write_text("0.52 0.58 0.59 2/3456 12345\n")
        (root / "proc/meminfo").write_text("MemTotal:        7737820 kB\nMemFree: 1 kB\n")
        cpu = root / "sys/devices/system/cpu"
        for first, count, khz, capacity in CLUSTERS:
            for core in range(first, first + count):
                clocks = cpu / f"cpu{core}" / "cpufreq"
                clocks.mkdir(parents=True)
                for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
                    (clocks / name).write_text(f"{khz}\n")
                (clocks / "scaling_governor").write_text("sched_pixel\n")
                (cpu / f"cpu{core}" / "cpu_capacity").write_text(f"{capacity}\n")
        (cpu / "online").write_text("0-7\n")
        self.connect(self.listed())
        self.save()

    @staticmethod
    def listed(state: str = "device", serial: str = SERIAL) -> str:
        """Returns a line of ``adb devices -l``."""
        about = "product:oriole model:Pixel_6 device:oriole " if state == "device" else ""
        return f"{serial:<22} {state} usb:1-1 {about}transport_id:1"

    def connect(self, *lines: str) -> None:
        """Sets what ``adb devices -l`` lists."""
        (self.root / "phones").write_text("".join(f"{line}\n" for line in lines) + "\n")

    def heat(self, *celsius: float) -> None:
        """Sets what the processor's temperature is each time it is asked; the last one stays."""
        (self.root / "celsius").write_text("".join(f"{value}\n" for value in celsius))

    def save(self, **changes: Any) -> None:
        """Writes the settings, with these changes."""
        self.settings.update(changes)
        lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in self.settings.items()]
        (self.root / "settings").write_text("".join(lines))

    def takes(self, **ms: float) -> None:
        """Sets how long a call of a network takes on the fastest cores, on data ``toy``."""
        for model, value in ms.items():
            (self.root / "ms" / f"{model}-toy").write_text(f"{value}\n")

    def answers(self, model: str, logits: npt.NDArray[np.float32]) -> None:
        """Sets what tools write that can write their outputs; until then, none can."""
        logits.tofile(self.root / "answers" / f"{model}-toy")

    def commands(self) -> list[str]:
        """Returns the command lines that its shell was given."""
        return (self.root / "commands").read_text().splitlines()

    def program(self, name: str, machine: int = 183) -> Path:
        """Returns a file that begins like a program for an ARM phone of 64 bits."""
        path = self.root / "host" / name
        path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine))
        return path


@pytest.fixture
def fake_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """A phone that ``adb`` on PATH reaches."""
    phone = FakePhone(tmp_path / "phone")
    monkeypatch.setenv("FAKE_PHONE", str(phone.root))
    monkeypatch.setenv("PATH", f"{phone.root / 'host'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return phone
