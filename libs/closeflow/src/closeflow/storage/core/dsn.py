"""What a DSN says, as the driver reads it: where it leads, whether the way is encrypted, and a password for it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url


class BadDsn(ValueError):
    """The DSN and what was given with it do not fit; the text has no password in it."""


def with_password(dsn: str, password: str | None) -> str:
    """The DSN with this password in it. Raises BadDsn where it has one already, or names no role to go with it."""
    if password is None:
        return dsn
    url = make_url(dsn)
    if url.password is not None or "password" in url.query:
        raise BadDsn("has a password in it, and one is given beside it; take one of them away")
    if url.username is None:
        raise BadDsn("must name the role whose password is given, as in postgresql://role@host:5432/database")
    return url.set(password=password).render_as_string(hide_password=False)


def hosts(dsn: str) -> list[str]:
    """Every host that the driver may connect to. None for a socket in a folder, which is on this machine. A service of
    libpq's file may be anywhere, so it is listed by its name."""
    url = make_url(dsn)
    found = [url.host or ""]
    for name in ("host", "hostaddr", "service"):
        found += [each for value in _all(url, name) for each in value.split(",")]
    return [host for host in found if host and not host.startswith("/")]


def check_encryption(dsn: str) -> str | None:
    """Why the server would not be verified, in words that end a sentence; None where it would be. Raises BadDsn where
    it cannot be, because the authority's file cannot be read."""
    url = make_url(dsn)
    authority = (_all(url, "sslrootcert") or [""])[-1]
    verified = (_all(url, "sslmode") or ["prefer"])[-1] == "verify-full"
    if authority not in ("", "system"):
        try:
            Path(authority).read_bytes()
        except OSError as error:
            raise BadDsn(
                f"sslrootcert={authority} cannot be read ({error.strerror}); give the authority's PEM file"
            ) from None
    if not verified:
        return "without sslmode=verify-full"
    return None if authority else "without sslrootcert, the authority's PEM file or `system`"


def _all(url: URL, name: str) -> list[str]:
    found = url.query.get(name, ())
    return [found] if isinstance(found, str) else list(found)
