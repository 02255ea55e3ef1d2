"""Settings: environment variables `BROKER_SIMULATOR_*`; the command line overrides them."""

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BROKER_SIMULATOR_"
DEFAULT_KEY_ID = "simulator"
DEFAULT_SECRET_KEY = "simulator-secret"

Deduplication = Literal["forever", "while_open", "none"]
ActivityIds = Literal["same", "different"]
Reversals = Literal["listed", "unlisted"]
Oversell = Literal["refuse", "allow", "refuse_closes"]


class Settings(BaseSettings):
    """Everything that can be chosen at the start. Descriptions are what `--help` shows."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8090, description="port to listen on")
    state_path: Path = Field(Path("broker-simulator.sqlite3"), description="SQLite file with the broker's memory")
    key_id: str = Field(DEFAULT_KEY_ID, min_length=1, description="API key id that clients must send")
    secret_key: str = Field(DEFAULT_SECRET_KEY, min_length=1, description="API secret that clients must send")
    secret_key_file: Path | None = Field(None, description="read the API secret from this file instead")
    account: str | None = Field(None, description="take only this account_id's rows of the positions file")
    positions_csv: Path | None = Field(None, description="positions to start with (same file as closectl imports)")
    seed: int = Field(1, description="seed of the quotes' random walks")
    tick_ms: Annotated[int, Field(ge=10, le=60_000)] = Field(500, description="milliseconds between quote moves")
    deduplication: Deduplication = Field("forever", description="how long a client order id stays taken")
    activity_ids: ActivityIds = Field("same", description="do FILL activities carry the stream's execution id")
    reversals: Reversals = Field("listed", description="are busts and corrections among the FILL activities")
    stream_frames: Literal["binary", "text"] = Field("binary", description="websocket frames (Alpaca: binary)")
    oversell: Oversell = Field("refuse", description="what more than is held becomes")
    tls_certificate_path: Path | None = Field(None, description="serve https and wss with this PEM certificate")
    tls_key_path: Path | None = Field(None, description="PEM file of the certificate's key, without a password")
    log_format: Literal["json", "console"] = Field("json", description="shape of the log lines on stdout")

    @model_validator(mode="after")
    def _keys_fit_the_address(self) -> "Settings":
        local = self.host == "localhost" or (_is_address(self.host) and ip_address(self.host).is_loopback)
        default = self.secret_key == DEFAULT_SECRET_KEY and self.secret_key_file is None
        if default and not local:
            raise ValueError(
                f"the default secret is only for loopback: set {PREFIX}SECRET_KEY to listen on {self.host}"
            )
        return self

    @model_validator(mode="after")
    def _a_certificate_has_its_key(self) -> "Settings":
        if (self.tls_certificate_path is None) is not (self.tls_key_path is None):
            raise ValueError(f"{PREFIX}TLS_CERTIFICATE_PATH and {PREFIX}TLS_KEY_PATH go together: set both, or none")
        return self

    def tls(self) -> ssl.SSLContext | None:
        """What to serve https with; None for plain text. Raises OSError where the files cannot be used."""
        if self.tls_certificate_path is None or self.tls_key_path is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_certificate_path, self.tls_key_path, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise OSError(f"{self.tls_certificate_path}, {self.tls_key_path}: {error}") from None
        return context

    def secret(self) -> str:
        """The secret key, from its file where one is given."""
        return self.secret_key_file.read_text().strip() if self.secret_key_file else self.secret_key


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
