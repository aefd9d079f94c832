"""The settings of the API program: environment variables `CODEPODS_…`; docs/api.md lists them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from state.logs import LogFormat


def _base_url(value: str) -> str:
    scheme, separator, rest = value.rstrip("/").partition("://")
    if scheme not in ("https", "http") or not separator or not rest or "/" in rest or "?" in rest:
        raise ValueError("must be https://HOST or https://HOST:PORT, without a path")
    return f"{scheme}://{rest}"


class ApiSettings(BaseSettings):
    """What the API program is told. Every setting has a description; amounts carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix="CODEPODS_", extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr = Field(description="PostgreSQL connection URL for the role of the API.")
    keyring: Path = Field(description="File with the keys that seal links; nginx reads the same file.")
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default="https://localhost:8443", description="Where browsers reach nginx, without a path."
    )
    url_shape: Literal["path", "subdomain"] = Field(
        default="path",
        description="Links as /pods/<id>/, or as a host name per pod (needs wildcard DNS and TLS).",
    )
    link_lifetime_s: int = Field(
        default=300, ge=10, le=86_400, description="How long a link can be opened after it was made."
    )
    link_reuse: Literal["any", "browser", "once"] = Field(
        default="any",
        description="How often a link opens, unless `:open` says: until it expires, in one browser, once.",
    )
    key_rotation_h: int = Field(
        default=24,
        ge=1,
        le=720,
        description="How old the key that seals links gets. Two are accepted: keep half a day and more.",
    )
    port_sharing: Literal["off", "link", "public"] = Field(
        default="link",
        description="How far users may open their applications' ports: not at all, by link, to everybody.",
    )
    ports_directory: Path | None = Field(
        default=None, description="Directory of the files that tell nginx which ports are open; unset: none."
    )
    extension_s_max: int = Field(
        default=28_800, ge=60, le=31_536_000, description="For how long a pod can be kept by one `:extend`."
    )
    default_image: str = Field(
        default="codepods/pod:latest", description="Image of pods that are created without naming one."
    )
    api_host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(
        default=8080, ge=0, le=65_535, description="Port the API listens on; 0 takes a free one."
    )
    database_connections_max: int = Field(
        default=8,
        ge=2,
        le=100,
        description="Connections to the database, and requests that use it at a time.",
    )
    requests_per_s_max: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Requests a second of one token; more get a 429.",
    )
    waiting_requests_max: int = Field(
        default=500,
        ge=1,
        le=20_000,
        description="Requests that may wait for a pod at a time; more get a 429.",
    )
    gateway_url: str = Field(
        default="http://127.0.0.1:7081",
        description="The reconciler's gateway, through which downloads come from the nodes.",
    )
    downloads_max: int = Field(default=20, ge=1, le=1000, description="Downloads at a time; more get a 429.")
    stop_timeout_s: int = Field(
        default=10, ge=1, le=120, description="How long open requests may take at a stop."
    )
    log_format: LogFormat = Field(default="json", description="Log lines for machines or for people.")
