from __future__ import annotations

from pathlib import Path

import pytest

from core.cores import usable_cores
from core.errors import UserError
from serving.settings import CARRIED, Settings, describe, warn_of_unknown


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.artifact == CARRIED
    assert CARRIED.parent.name == "serving"
    assert settings.threads == usable_cores() >= 1
    assert (settings.max_bytes, settings.max_pixels) == (20_000_000, 50_000_000)
    assert (settings.host, settings.port, settings.top_k) == ("127.0.0.1", 3000, 5)


def test_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "POCKETNETS_ARTIFACT": str(tmp_path),
            "POCKETNETS_THREADS": " 3 ",
            "POCKETNETS_TOP_K": "",
            "POCKETNETS_ALLOW_UNVERIFIED": "1",
            "POCKETNETS_ROOT_PATH": "/tools/classifier-2",
            "POCKETNETS_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,fd00::/8,*",
            "POCKETNETS_CORS_ORIGINS": "https://app.example.com,http://[::1]:5173, *",
            "THREADS": "9",
        }
    )
    assert settings == Settings(
        artifact=tmp_path,
        threads=3,
        allow_unverified=True,
        root_path="/tools/classifier-2",
        trusted_proxies=("127.0.0.1", "10.0.0.0/8", "fd00::/8", "*"),
        cors_origins=("https://app.example.com", "http://[::1]:5173", "*"),
    )


def test_artifact_is_made_absolute() -> None:
    settings = Settings.from_environment({"POCKETNETS_ARTIFACT": "some/folder"})
    assert settings.artifact == Path.cwd() / "some/folder"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THREADS", "0"),
        ("THREADS", "two"),
        ("THREADS", "1.5"),
        ("MAX_BYTES", "-1"),
        ("MAX_PIXELS", "999999999999"),
        ("TOP_K", "0"),
        ("PORT", "65536"),
        ("HOST", "localhost"),
        ("RUNTIME", "ort"),
        ("RUNTIME", "torch"),
        ("ALLOW_UNVERIFIED", "yes"),
        ("HEAD_MS", "0"),
        ("MAX_CONNECTIONS", "many"),
        ("ROOT_PATH", "classifier"),
        ("ROOT_PATH", "/classifier/"),
        ("ROOT_PATH", "/"),
        ("ROOT_PATH", "//example.org"),
        ("ROOT_PATH", "/a/../b"),
        ("ROOT_PATH", "/a?b"),
        ("TRUSTED_PROXIES", "proxy"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://App.example.com"),
        ("CORS_ORIGINS", "https://*.example.com"),
        ("TRUNCATED", "yes"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(UserError) as error:
        Settings.from_environment({f"POCKETNETS_{name}": value})
    message = str(error.value)
    assert f"POCKETNETS_{name}" in message
    assert value in message
    assert "\n" not in message


def test_the_docs_list_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text()
    for name, default, text in describe():
        shown = default if default in ("-", "cores") else f"`{default}`"
        assert f"| `{name}` | {shown} | {text} |" in page


def test_the_token_is_not_shown() -> None:
    assert "s3cret" not in repr(Settings(token="s3cret"))


def test_threads_fill_the_cores_together() -> None:
    settings = Settings.from_environment(
        {"POCKETNETS_WORKERS": str(usable_cores()), "POCKETNETS_CALL_THREADS": "1"}
    )
    assert settings.threads == 1


@pytest.mark.parametrize(
    "values",
    [
        {"MAX_IMAGES": "65"},
        {"QUEUE_SIZE": "31"},
        {"TOKEN": "gehe\u00efm"},
        {"LOG_FILE_MB": "2000"},
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"POCKETNETS_{next(iter(values))}"):
        Settings.from_environment({f"POCKETNETS_{k}": v for k, v in values.items()})


def test_a_variable_that_is_no_setting_is_named_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mistaken = {"POCKETNETS_TREADS": "2", "POCKETNETS_DATA": "x", "POCKETNETS_PORT": "1", "A": ""}
    warn_of_unknown(mistaken)
    (line,) = capsys.readouterr().err.splitlines()
    assert "POCKETNETS_TREADS" in line
    assert "did you mean POCKETNETS_THREADS" in line
