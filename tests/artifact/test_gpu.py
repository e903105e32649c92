from __future__ import annotations

import pytest
from fake_cuda import FakeDriver

from artifact.runtimes.base import RuntimeUnavailable
from artifact.runtimes.gpu import Gpu, require_gpu


def test_the_driver_says_what_gpu_there_is(driver: FakeDriver) -> None:
    assert require_gpu("any") == Gpu(name="a GPU", capability="8.6", driver="13.0")
    driver.cuda, driver.capability = 12080, (12, 0)
    assert require_gpu("any") == Gpu(name="a GPU", capability="12.0", driver="12.8")


@pytest.mark.parametrize(
    "function",
    [
        *("cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName"),
        *("cuDeviceGetAttribute", "cuDriverGetVersion"),
    ],
)
def test_a_driver_that_fails_is_no_gpu(driver: FakeDriver, function: str) -> None:
    driver.failing[function] = 100
    with pytest.raises(RuntimeUnavailable, match=rf"any: .*\({function} answers CUDA error 100\)"):
        require_gpu("any")


def test_a_hidden_gpu_is_no_gpu(driver: FakeDriver) -> None:
    driver.count = 0
    with pytest.raises(RuntimeUnavailable, match=r"any: .* reports no GPU; .*CUDA_VISIBLE_DEVICES"):
        require_gpu("any")
