"""CLOSE_BOARD_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from closeflow.settings import HttpUrl, KafkaSettings, Port, check_pem, is_loopback
from closeflow.tls import ClientTls


class CloseBoardSettings(KafkaSettings):
    """`close_api_url` is where the board asks who a viewer is, what the topics do not tell, and for what an operator
    does, each with the viewer's own token; `close_api_ca_path` the authority of its certificate, if not one of the
    system's. `instance` names this installation on every screen. A close is stuck when close-api says so; one of which
    it was not asked, once nothing has happened to it for `still_after_s`. What is shown is called old `old_after_s`
    after the log was last read to its end. `behind_tls` says that something before the board ends TLS: its cookie is
    then for https alone."""

    model_config = SettingsConfigDict(env_prefix="CLOSE_BOARD_", frozen=True, extra="forbid")

    http_host: str = "127.0.0.1"
    http_port: Port = 8090
    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    behind_tls: bool = False
    close_api_url: HttpUrl
    close_api_ca_path: Path | None = None
    instance: Annotated[str, Field(min_length=1, max_length=60)]
    still_after_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    old_after_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    refresh_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    max_viewers: Annotated[int, Field(ge=1, le=10_000)] = 200

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        check_pem(self, "tls", ClientTls(None, self.tls_certificate_path, self.tls_key_path))
        check_pem(self, "close_api", self.close_api_tls)
        if self.tls_certificate_path is None and not self.allow_plaintext and not is_loopback(self.http_host):
            raise ValueError(
                f"http_host: tokens would go to {self.http_host} without encryption; set "
                "CLOSE_BOARD_TLS_CERTIFICATE_PATH and CLOSE_BOARD_TLS_KEY_PATH, or CLOSE_BOARD_ALLOW_PLAINTEXT=true "
                "if something before it ends TLS"
            )
        return self

    @property
    def close_api_tls(self) -> ClientTls:
        """Whom close-api's certificate must be of."""
        return ClientTls(self.close_api_ca_path)
