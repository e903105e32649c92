"""Clusters, clocks and warmth, as phones of several makers tell them."""

from __future__ import annotations

import pytest
from fake_phone import SERIAL, FakePhone

from bench.device.adb import Adb
from bench.device.phone import Cluster, Cooling, read_phone, read_state
from core.errors import UserError

BIG = Cluster(name="big", cores=(6, 7), mhz=2802.0)


def test_a_phone_is_read(fake_phone: FakePhone) -> None:
    phone = read_phone(Adb(SERIAL))
    assert (phone.model, phone.soc, phone.name) == (
        "Pixel 6",
        "Google Tensor",
        "pixel-6-1a2b3c4d5e6f",
    )
    assert phone.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
    assert phone.android == "Android 13 (API 33, TQ3A.230805.001)"
    assert phone.memory == 7737820 * 1024
    assert [(each.name, each.cores, each.mhz, each.mask) for each in phone.clusters] == [
        ("little", (0, 1, 2, 3), 1803.0, "f"),
        ("middle", (4, 5), 2253.0, "30"),
        ("big", (6, 7), 2802.0, "c0"),
    ]
    machine = phone.machine(phone.clusters[-1], {"benchmark_model": "abc"})
    assert (machine.cores, machine.governor) == (2, "sched_pixel")
    assert "Google Tensor in Pixel 6" in machine.cpu
    assert machine.key != phone.machine(phone.clusters[0], {"benchmark_model": "abc"}).key


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("online", "garbage 0-x"),
        ("online", ""),
        ("online", "0-99999999"),
        ("online", "7-0"),
        ("cpu6/cpufreq/cpuinfo_max_freq", "nan"),
        ("cpu6/cpu_capacity", "\x1b[2J"),
    ],
)
def test_cores_that_cannot_be_read_are_one_line(
    fake_phone: FakePhone, file: str, value: str
) -> None:
    (fake_phone.root / "sys/devices/system/cpu" / file).write_text(f"{value}\n")
    with pytest.raises(UserError, match=f"cores .* cannot be read: .*{file} is") as error:
        read_phone(Adb(SERIAL))
    assert str(error.value).isprintable()


def test_without_a_list_of_abis_the_only_one_is_taken(fake_phone: FakePhone) -> None:
    (fake_phone.root / "properties").write_text("[ro.product.cpu.abi]: [armeabi-v7a]\n")
    assert read_phone(Adb(SERIAL)).abis == ("armeabi-v7a",)
    (fake_phone.root / "properties").write_text("[ro.product.cpu.abilist\n\a]: []\n")
    with pytest.raises(UserError, match=f"ABI of phone {SERIAL} cannot be read"):
        read_phone(Adb(SERIAL))


def test_clusters_are_chosen_by_name(fake_phone: FakePhone) -> None:
    phone = read_phone(Adb(SERIAL))
    assert [each.name for each in phone.choose(["big", "little", "big"])] == ["big", "little"]
    with pytest.raises(UserError, match=r"'middel': did you mean middle\?.*core 4, 5 at 2253 MHz"):
        phone.choose(["middel"])


@pytest.mark.parametrize(
    ("clocks", "names"),
    [
        ({}, ["big"]),  # nothing told, as by an emulator
        (dict.fromkeys(range(8), 2000000), ["big"]),
        ({0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2}, ["little", "big"]),
        ({0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4}, ["little", "middle", "middle2", "big"]),
    ],
)
def test_any_number_of_clusters(
    fake_phone: FakePhone, clocks: dict[int, int], names: list[str]
) -> None:
    cpu = fake_phone.root / "sys/devices/system/cpu"
    for core in range(8):
        (cpu / f"cpu{core}/cpu_capacity").unlink()
        file = cpu / f"cpu{core}/cpufreq/cpuinfo_max_freq"
        file.write_text(f"{clocks[core]}\n") if core in clocks else file.unlink()
    clusters = read_phone(Adb(SERIAL)).clusters
    assert [each.name for each in clusters] == names
    assert sorted(core for each in clusters for core in each.cores) == list(range(8))


def test_cores_that_are_offline_are_left_out(fake_phone: FakePhone) -> None:
    (fake_phone.root / "sys/devices/system/cpu/online").write_text("0-3,6\n")
    clusters = read_phone(Adb(SERIAL)).clusters
    assert [each.cores for each in clusters] == [(0, 1, 2, 3), (6,)]


def test_a_state_is_of_its_cluster(fake_phone: FakePhone) -> None:
    clocks = fake_phone.root / "sys/devices/system/cpu/cpu6/cpufreq"
    (clocks / "scaling_cur_freq").write_text("1000000\n")
    (clocks / "scaling_max_freq").write_text("2000000\n")
    (fake_phone.root / "throttling").write_text("2\n")
    state = read_state(Adb(SERIAL), BIG)
    assert (state.mhz, state.cap_mhz) == (1901.0, 2401.0)
    assert state.celsius == 35.0  # neither the battery's, nor what was cached
    assert state.throttling == 2
    assert state.load_average == (0.52, 0.58, 0.59)
    assert state.conditions().cpu_mhz == 1901.0


def test_thermal_zones_are_read_where_android_tells_nothing(fake_phone: FakePhone) -> None:
    (fake_phone.root / "bin/dumpsys").write_text("#!/bin/sh\necho 'HAL Ready: false'\n")
    adb = Adb(SERIAL)
    assert read_state(adb, BIG).celsius is None
    zones = {"cpu0": "abc", "cpu-1-0-usr": "43500", "cpu-0-0": "41", "cpu1": "1.2.3"}
    zones |= {"battery": "99000", "gpuss-0-usr": "88000"}
    for number, (name, value) in enumerate(zones.items()):
        zone = fake_phone.root / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{value}\n")
    assert read_state(adb, BIG).celsius == 43.5


def test_what_is_rubbish_in_a_state_is_unknown(fake_phone: FakePhone) -> None:
    (fake_phone.root / "proc/loadavg").write_text("1.2.3 . 5 2/3456 12345\n")
    (fake_phone.root / "celsius").write_text("3.5.1\n")
    (fake_phone.root / "throttling").write_text("abc\n")
    state = read_state(Adb(SERIAL), BIG)
    assert (state.load_average, state.throttling) == (None, None)
    assert state.celsius == 30.1  # that of the little cores


def test_a_turn_waits_until_the_phone_is_cool(fake_phone: FakePhone) -> None:
    adb = Adb(SERIAL)
    fake_phone.heat(60, 50, 39, 60)
    state, _ = Cooling(celsius=40, pause=0).wait(adb, BIG)
    assert state.celsius == 39
    cooling = Cooling(celsius=40, patience=0, pause=0)
    state, _ = cooling.wait(adb, BIG)
    assert not cooling.allows(state)  # it stayed warm, and patience ended
    (fake_phone.root / "throttling").write_text("1\n")
    fake_phone.heat(20)
    assert not cooling.allows(read_state(adb, BIG))
