"""What an HTTP exporter needs to know of the protocol: addresses without secrets, headers, what an answer means."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from resilient_exporters.exceptions import InvalidConfigError

__all__ = ["Address", "Meaning", "Scrubber", "checked_headers", "meaning", "retry_after"]

_IN_PATH = "/%:@!$&'()*+,;=-._~"
"""Characters that a path may hold as they are; `%` because it may be quoted already."""
_IN_QUERY = _IN_PATH + "?"
_OURS = {"idempotency-key", "content-length", "transfer-encoding"}
_SECRET = 4
"""Characters: what is shorter is no secret, and would be found in every word."""
_LONGEST_PAUSE = 3600.0
"""Seconds: a server that asks for more is asked once an hour, since its clock or ours may be wrong."""

_DOWN = {408, 409, 421, 423, 425, 429}
_UNABLE = {501, 505}
"""Server errors that say that it will never be able to."""
_REFUSED = {400, 413, 422, 451}
_REFUSED_ALONE = {415}
_REFUSED_WITH_PATH = {404, 405, 410, 414}


class Meaning(Enum):
    """What a status means for the records of the request."""

    TAKEN = auto()
    DOWN = auto()
    MISCONFIGURED = auto()
    REFUSED = auto()


def meaning(status: int, *, alone: bool, path: bool) -> Meaning:
    """What a status means.

    Args:
        status: Of the answer, 200 to 599.
        alone: Whether the request carried one record in a form of its own, so that the form may be to blame.
        path: Whether the record was sent with a path of its own, so that the path may be to blame.
    """
    if 200 <= status < 300:
        return Meaning.TAKEN
    if status in _DOWN or (status >= 500 and status not in _UNABLE):
        return Meaning.DOWN
    if status in _REFUSED or (alone and status in _REFUSED_ALONE) or (path and status in _REFUSED_WITH_PATH):
        return Meaning.REFUSED
    return Meaning.MISCONFIGURED


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, 0 to 3600, or None if it does not say or not comprehensibly.

    A date is read against the server's own clock when the answer tells it.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _until(value, headers.get("Date"))
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def _until(moment: str, now: str | None) -> float:
    then = parsedate_to_datetime(moment).timestamp()
    try:
        return then - (parsedate_to_datetime(now).timestamp() if now else time.time())
    except (TypeError, ValueError):
        return then - time.time()


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go, with what may be shown apart from what may not.

    Attributes:
        origin: Scheme, host and port.
        path: Path of the URL, quoted, with the slash in front.
        query: Query of the URL with its question mark, or nothing.
        authorization: Value of the header for user and password, or None.
        secrets: Texts that must not be shown.
    """

    origin: str
    path: str
    query: str = field(repr=False)
    authorization: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart.

        Raises:
            InvalidConfigError: It is none; the message does not show it, since it may hold a password.
        """
        if not isinstance(url, str):
            raise InvalidConfigError(f"url must be a str, not {type(url).__name__}")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
        except ValueError:  # not named as the cause, because its text may hold a part of the password
            raise InvalidConfigError("url cannot be understood: it has an impossible host or port") from None
        if parts.scheme not in ("http", "https") or not host or " " in host or parts.fragment:
            raise InvalidConfigError("url must be http:// or https://, with a host and without a fragment")
        shown = f"[{host}]" if ":" in host else host
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        basic = b64encode(f"{user}:{password}".encode()).decode("ascii")
        query = quote(parts.query, safe=_IN_QUERY)
        values = [pair.partition("=")[2] for pair in parts.query.split("&")]
        return cls(
            origin=f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else ""),
            path=quote(parts.path, safe=_IN_PATH) or "/",
            query=f"?{query}" if query else "",
            authorization=f"Basic {basic}" if parts.username is not None else None,
            secrets=(query, parts.query, *values, password, basic),
        )

    @property
    def public(self) -> str:
        """The URL without user, password and query."""
        return self.origin + (self.path if self.path != "/" else "")

    def target(self, path: str) -> str:
        """What goes into the request line, for a path that is joined to that of the URL.

        Raises:
            ValueError: It would lead out of the path of the URL.
        """
        if not path:
            return self.path + self.query
        if ".." in unquote(path).split("/"):
            raise ValueError("path holds '..', which would lead elsewhere")
        return f"{self.path.rstrip('/')}/{quote(path.lstrip('/'), safe=_IN_PATH)}{self.query}"


class Scrubber:
    """Takes secrets out of texts, in case a server repeats them.

    Args:
        secrets: Texts that must not be shown; those of less than four characters are not looked for.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({text for text in secrets if len(text) >= _SECRET}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with stars in place of the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def checked_headers(headers: Any, address: Address) -> dict[str, str]:
    """The headers of each request.

    Raises:
        InvalidConfigError: One is impossible, or one that the exporter sets itself; values are not shown.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidConfigError(f"headers must be a mapping or None, not {type(headers).__name__}")
    checked: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not name or not name.isascii() or any(c in " :\r\n\t\0" for c in name):
            raise InvalidConfigError(f"headers has an impossible name: {name!r}")
        if not isinstance(value, str) or any(c in "\r\n\0" for c in value) or not _in_latin1(value):
            raise InvalidConfigError(f"headers has an impossible value for {name!r}")
        if name.lower() in _OURS:
            raise InvalidConfigError(f"headers has {name!r}, which the exporter sets itself")
        checked[name] = value
    if address.authorization is not None:
        if "authorization" in {name.lower() for name in checked}:
            raise InvalidConfigError("both url and headers say how to authorize; give one of them")
        checked["Authorization"] = address.authorization
    return checked


def _in_latin1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
