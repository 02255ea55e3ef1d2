"""What close-api refuses to start with."""

from __future__ import annotations

import pytest

from close_api.settings import Settings
from closeflow.settings import BadSetting, read

GOOD = {"CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x", "CLOSE_API_AUTH": "disabled"}
JWT = {
    "CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x",
    "CLOSE_API_AUTH": "jwt",
    "CLOSE_API_JWKS": "/etc/closeflow/jwks.json",
    "CLOSE_API_ISSUER": "https://issuer.example",
    "CLOSE_API_AUDIENCE": "close-api",
}


def test_two_settings_are_enough() -> None:
    settings = read(Settings, GOOD)
    assert (settings.http_host, settings.queue_capacity, settings.batch_size) == ("127.0.0.1", 1024, 64)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"CLOSE_API_HTTP_HOST": "0.0.0.0"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_HTTP_HOST": "close-api.internal"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_AUTH": "off"}, "CLOSE_API_AUTH"),
        ({"CLOSE_API_QUEUE_CAPACITY": "0"}, "CLOSE_API_QUEUE_CAPACITY"),
        ({"CLOSE_API_BATCH_SIZE": "0"}, "CLOSE_API_BATCH_SIZE"),
        ({"CLOSE_API_BATCHES_IN_FLIGHT": "6"}, "CLOSE_API_POSTGRES_POOL_SIZE: must be more than"),
        ({"CLOSE_API_REQUEST_DEADLINE_MS": "0"}, "CLOSE_API_REQUEST_DEADLINE_MS"),
        ({"CLOSE_API_QUEUE": "5"}, "CLOSE_API_QUEUE"),
        ({"CLOSE_API_RATE_LIMIT_CLOSES": "0"}, "CLOSE_API_RATE_LIMIT_CLOSES"),
        ({"CLOSE_API_RATE_LIMIT_WINDOW_S": "0.5"}, "CLOSE_API_RATE_LIMIT_WINDOW_S"),
        ({"CLOSE_API_TOKEN_CACHE_SIZE": "0"}, "CLOSE_API_TOKEN_CACHE_SIZE"),
        ({"CLOSE_API_TOKEN_LEEWAY_S": "-1"}, "CLOSE_API_TOKEN_LEEWAY_S"),
        ({"CLOSE_API_TOKEN_LEEWAY_S": "nan"}, "CLOSE_API_TOKEN_LEEWAY_S"),
        ({"CLOSE_API_JWKS_MAX_AGE_S": "inf"}, "CLOSE_API_JWKS_MAX_AGE_S"),
        ({"CLOSE_API_TLS_CERTIFICATE_PATH": "tls.crt"}, "CLOSE_API_TLS_KEY_PATH: set it too"),
        ({"CLOSE_API_TLS_KEY_PATH": "tls.key"}, "CLOSE_API_TLS_CERTIFICATE_PATH: set it too"),
        ({"CLOSE_API_TLS_CLIENT_CA_PATH": "ca.crt"}, "CLOSE_API_TLS_CERTIFICATE_PATH: set it too"),
    ],
)
def test_an_impossible_setting_is_named(changed: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        read(Settings, GOOD | changed)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"CLOSE_API_JWKS": None}, "CLOSE_API_JWKS: give the path or the URL of .*, because CLOSE_API_AUTH is jwt"),
        ({"CLOSE_API_ISSUER": None}, "CLOSE_API_ISSUER: give"),
        ({"CLOSE_API_AUDIENCE": None}, "CLOSE_API_AUDIENCE: give"),
        ({"CLOSE_API_ISSUER": ""}, "CLOSE_API_ISSUER is wrong"),
        ({"CLOSE_API_JWKS": ""}, "CLOSE_API_JWKS is wrong"),
        ({"CLOSE_API_JWKS": "http://issuer.example/jwks"}, "CLOSE_API_JWKS: .* use https"),
        ({"CLOSE_API_JWKS": "HTTP://issuer.example/jwks"}, "CLOSE_API_JWKS: .* use https"),
        ({"CLOSE_API_JWKS": "ftp://issuer.example/jwks"}, "CLOSE_API_JWKS is wrong: must be the path of a file, or"),
        ({"CLOSE_API_JWKS": "https://"}, "CLOSE_API_JWKS is wrong"),
        ({"CLOSE_API_JWKS": "https://issuer.example:0/"}, "CLOSE_API_JWKS is wrong: must have a port"),
        ({"CLOSE_API_JWKS": "https://me:secret@issuer.example/"}, "CLOSE_API_JWKS is wrong: must not have a user"),
        ({"CLOSE_API_JWKS_REFRESH_S": "3600"}, "CLOSE_API_JWKS_MAX_AGE_S: must be more than CLOSE_API_JWKS_REFRESH_S"),
        (
            {"CLOSE_API_HTTP_HOST": "0.0.0.0"},
            "CLOSE_API_HTTP_HOST: tokens and closes would go to .* without encryption",
        ),
        ({"CLOSE_API_HTTP_HOST": "close-api.internal"}, "CLOSE_API_HTTP_HOST"),
    ],
)
def test_tokens_need_an_issuer_and_a_way_nobody_listens_on(changed: dict[str, str | None], told: str) -> None:
    environ = {name: value for name, value in {**JWT, **changed}.items() if value is not None}
    with pytest.raises(BadSetting, match=told) as raised:
        read(Settings, environ)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"CLOSE_API_JWKS": "https://issuer.example/keys?client=a"},
        {"CLOSE_API_JWKS": "http://127.0.0.1:8080/jwks.json"},
        {"CLOSE_API_JWKS": "http://issuer.example/jwks", "CLOSE_API_ALLOW_PLAINTEXT": "true"},
        {"CLOSE_API_HTTP_HOST": "0.0.0.0", "CLOSE_API_ALLOW_PLAINTEXT": "true"},
        {
            "CLOSE_API_HTTP_HOST": "0.0.0.0",
            "CLOSE_API_TLS_CERTIFICATE_PATH": "tls.crt",
            "CLOSE_API_TLS_KEY_PATH": "tls.key",
            "CLOSE_API_TLS_CLIENT_CA_PATH": "ca.crt",
        },
    ],
)
def test_tokens_are_taken_in_these_ways(changed: dict[str, str]) -> None:
    settings = read(Settings, JWT | changed)
    assert (settings.auth, settings.issuer, settings.audience) == ("jwt", "https://issuer.example", "close-api")


def test_tls_does_not_make_up_for_tokens() -> None:
    tls = {"CLOSE_API_TLS_CERTIFICATE_PATH": "tls.crt", "CLOSE_API_TLS_KEY_PATH": "tls.key"}
    for trusted in ("true", "false"):
        with pytest.raises(
            BadSetting, match=r"CLOSE_API_AUTH: disabled would let everyone who reaches 0\.0\.0\.0 close"
        ):
            read(Settings, GOOD | tls | {"CLOSE_API_HTTP_HOST": "0.0.0.0", "CLOSE_API_ALLOW_PLAINTEXT": trusted})


def test_open_doors_have_to_be_asked_for() -> None:
    with pytest.raises(BadSetting, match="CLOSE_API_AUTH is not set"):
        read(Settings, {"CLOSE_API_POSTGRES_DSN": "postgresql://localhost/x"})
