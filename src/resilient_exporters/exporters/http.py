"""Sends records to a web server, one request each or many lines in one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.exceptions import (
    ExportError,
    InvalidConfigError,
    MissingModuleError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.http_parts import Address, Meaning, Scrubber, checked_headers, meaning, retry_after
from resilient_exporters.exporters.lines import as_json, as_text, rendered
from resilient_exporters.records import Batch

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

__all__ = ["HTTPExporter"]

_CONNECT = 5.0
"""Seconds to connect: a server that is up answers far sooner."""
_BODY = 1 << 16
"""Bytes of an answer that are read to keep the connection; a longer one costs the connection instead."""
_EXCERPT = 200
"""Characters of an answer that go into the reason of a refusal."""


@dataclass(slots=True)
class _Progress:
    """How far a batch has come that is sent in parts.

    Attributes:
        token: The batch.
        parts: Indexes of the records of each request still to be made.
        refused: Index -> reason so far.
    """

    token: str
    parts: list[list[int]]
    refused: dict[int, str] = field(default_factory=dict)


class HTTPExporter(Exporter):
    """Sends each record to a URL, or each batch as lines of JSON.

    One request per record carries a str as text, bytes as they are, anything else as JSON. With `batch=True` a request
    carries a line of JSON per record (NDJSON), and the server takes or refuses it as a whole. Each request has an
    `Idempotency-Key` that stays the same when it is repeated: the record's id, or the name of the batch or part of it.

    ================== ==========================================================================================
    guarantee          at least once; no duplicates while the server remembers the keys, if it honours them
    batching           one record per request, or with `batch=True` up to `batch_records` in one
    per-send keywords  `path`: joined to the path of the URL
    down               no connection, no answer in time, 408, 409 (the same key is still being worked on), 421, 423,
                       425, 429, 5xx; a `Retry-After` is honoured, up to an hour
    misconfigured      a certificate that does not verify, 501, 505, redirects (they are not followed), every other
                       4xx, above all 401, 403, 404, 405 and 407
    refused            400, 413, 422, 451; without `batch` also 415; with `path=` also 404, 405, 410 and 414; data
                       without a form in JSON. A batch that is refused is halved until the records to blame are alone
    ================== ==========================================================================================

    User, password and query of the URL appear neither in names nor in errors; where the path is a secret, give `name=`.
    No proxies are used, and certificates are verified with those of the system (`SSL_CERT_FILE` adds others).

    Args:
        url: Where to send to, http or https.
        method: Method of the requests.
        headers: Sent with each request; a `Content-Type` replaces the one chosen by the data.
        batch: Whether a request carries many records.
        **options: As for every exporter, see `Exporter`; `timeout` bounds the whole batch.

    Raises:
        InvalidConfigError: An argument is wrong.
        MissingModuleError: urllib3 is not installed.
    """

    guarantee: ClassVar[str] = "at least once"
    batch_bytes: int = 1 << 19
    """Half of what web servers commonly take: JSON is larger than what is counted here."""

    def __init__(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        batch: bool = False,
        **options: Any,
    ) -> None:
        if find_spec("urllib3") is None:
            raise MissingModuleError('HTTPExporter needs urllib3: pip install "resilient-exporters[http]"')
        if not _names_method(method):
            raise InvalidConfigError(f"method must be the name of a method such as 'POST', not {method!r}")
        if not isinstance(batch, bool):
            raise InvalidConfigError(f"batch must be True or False, not {batch!r}")
        self._address = Address.parse(url)
        self._headers = checked_headers(headers, self._address)
        self._scrubbed = Scrubber([*self._address.secrets, *self._headers.values()])
        self._typed = "content-type" in {name.lower() for name in self._headers}
        self._method = method.upper()
        self._batches = batch
        self._progress: _Progress | None = None
        self._pool: HTTPConnectionPool | None = None
        if not batch:
            self.batch_records = 1  # so that each request has the whole time-out, and each answer counts by itself
        self.stable_batches = batch  # a request of its own has the record's id, whatever batch it is in
        super().__init__(**options)

    def target_name(self) -> str:
        """The URL without user, password and query."""
        return self._address.public

    def open(self) -> None:
        """Prepare the connection; it is made with the first request."""
        from urllib3 import connection_from_url

        self._drop()
        self._pool = connection_from_url(self._address.origin, maxsize=1)

    def close(self) -> None:
        """Drop the connection."""
        self._drop()

    def export(self, batch: Batch, *, path: str = "") -> None:
        """Send a batch; see the class."""
        try:
            target = self._address.target(_checked_path(path))
        except ValueError as error:
            raise RecordsRefused(permanent=dict.fromkeys(range(len(batch)), str(error))) from error
        if self._pool is None:
            self.open()
        bodies, refused = rendered(batch, as_json) if self._batches else rendered(batch, _as_body)
        progress = self._resumed(batch, list(bodies))
        progress.refused |= refused
        try:
            while progress.parts:
                self._send_part(batch, bodies, progress, target, own_path=bool(path))
        except ExportError:
            self._progress = progress
            raise
        self._progress = None
        if progress.refused:
            raise RecordsRefused(permanent=progress.refused)

    def _resumed(self, batch: Batch, indexes: list[int]) -> _Progress:
        """Where an earlier attempt at the same batch stopped, or the beginning."""
        if self._progress is not None and self._progress.token == batch.token:
            return self._progress
        if self._batches:
            return _Progress(batch.token, [indexes] if indexes else [])
        return _Progress(batch.token, [[index] for index in indexes])

    def _send_part(
        self, batch: Batch, bodies: dict[int, bytes], progress: _Progress, target: str, *, own_path: bool
    ) -> None:
        """Make one request, and strike its records off; those of a refused one are halved first."""
        part = progress.parts[0]
        response = self._request(batch, part, bodies, target)
        excerpt = self._finish(response)
        verdict = meaning(response.status, alone=not self._batches, path=own_path)
        text = self._scrubbed(f"{self.name} answered {response.status} {response.reason or ''}".rstrip())
        if verdict is Meaning.DOWN:
            raise TargetDown(text, retry_after=retry_after(response.headers))
        if verdict is Meaning.MISCONFIGURED:
            raise TargetMisconfigured(f"{text}; check the URL, its path, and how it is authorized")
        if verdict is Meaning.REFUSED and len(part) > 1:
            middle = len(part) // 2
            progress.parts[:1] = [part[:middle], part[middle:]]
            return
        if verdict is Meaning.REFUSED:
            progress.refused[part[0]] = f"{text}: {excerpt}" if excerpt else text
        del progress.parts[0]

    def _request(self, batch: Batch, part: list[int], bodies: dict[int, bytes], target: str) -> BaseHTTPResponse:
        """Send the records of one part, and wait for the head of the answer."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        assert self._pool is not None
        left = batch.deadline - time.monotonic()
        if left <= 0:
            raise TargetDown(f"{self.name}: there was no time left for all of the batch")
        try:
            return self._pool.urlopen(
                self._method,
                target,
                body=self._body(part, bodies),
                headers=self._headers_of(batch, part),
                retries=False,  # and no redirects
                timeout=Timeout(connect=min(_CONNECT, left), read=left),
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _body(self, part: list[int], bodies: dict[int, bytes]) -> bytes:
        return b"".join(bodies[index] + b"\n" for index in part) if self._batches else bodies[part[0]]

    def _headers_of(self, batch: Batch, part: list[int]) -> dict[str, str]:
        """Headers with the key of this part, the same whenever the part is sent."""
        if self._batches:
            kind = "application/x-ndjson"
            numbers = [batch.numbers[index] for index in part]
            key = Batch([], lane=batch.lane, run=batch.run, numbers=numbers, deadline=batch.deadline).token
        else:
            kind = _content_type(batch.records[part[0]].data)
            key = str(batch.records[part[0]].id)
        chosen = {} if self._typed else {"Content-Type": kind}
        return {**self._headers, **chosen, "Idempotency-Key": key}

    def _finish(self, response: BaseHTTPResponse) -> str:
        """Read the answer so that the connection can be used again; an excerpt for people."""
        from urllib3.exceptions import HTTPError

        try:
            body = response.read(_BODY)
            if response.read(1):
                response.close()
            response.release_conn()
        except (HTTPError, OSError) as error:
            if 200 <= response.status < 300:
                response.close()
                return ""  # the head said that it has them: sending again could only double them
            raise self._unreachable(error) from error
        text = self._scrubbed(body.decode("utf-8", "replace")[: 10 * _EXCERPT])
        return " ".join(text.split())[:_EXCERPT]

    def _unreachable(self, error: Exception) -> ExportError:
        """What a failure below HTTP means."""
        text = f"{self.name}: {self._scrubbed(str(error)) or type(error).__name__}"
        if _unverified(error):
            return TargetMisconfigured(f"{text}; if the certificate is right, add its authority (SSL_CERT_FILE)")
        return TargetDown(text)

    def _drop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


def _names_method(method: Any) -> bool:
    return isinstance(method, str) and method.isascii() and method.isalpha()


def _checked_path(path: Any) -> str:
    if not isinstance(path, str):
        raise ValueError(f"path must be a str, not {type(path).__name__}")
    return path


def _as_body(data: Any) -> bytes:
    """The body of a request for one record."""
    if isinstance(data, str):
        return as_text(data)
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else as_json(data)


def _content_type(data: Any) -> str:
    if isinstance(data, str):
        return "text/plain; charset=utf-8"
    return "application/octet-stream" if isinstance(data, bytes | bytearray | memoryview) else "application/json"


def _unverified(error: BaseException) -> bool:
    """Whether a certificate that did not verify is behind an error."""
    while not isinstance(error, ssl.SSLCertVerificationError):
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None) or error.__cause__
        if inner is None:
            return False
        error = inner
    return True
