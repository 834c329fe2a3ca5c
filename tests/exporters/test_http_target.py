"""HTTPExporter against a real web server whose replies are scripted: keys, verdicts, halving, secrets."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.exceptions import (
    ExportError,
    InvalidConfigError,
    MissingModuleError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters.http import HTTPExporter
from resilient_exporters.records import Batch

MakeBatch = Callable[..., Batch]
MakeExporter = Callable[..., HTTPExporter]


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


@dataclass
class Reply:
    """What the server does with a request; status 0 = take it and hang up, -1 = never answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0


class Server:
    """A web server that answers from a list, then with 200; `judge` decides instead when it is given."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.judge: Callable[[Request], Reply] | None = None
        self.connections = 0
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.answer(self, Request(self.command, self.path, headers, body))

            do_POST = do_PUT = do_PATCH = answer  # names that http.server asks for

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # type: ignore[method-assign]  # clients hang up on purpose
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        self.requests.append(request)
        reply = self.judge(request) if self.judge else self.replies.pop(0) if self.replies else Reply()
        if reply.status == -1:
            self.over.wait()
        if reply.status <= 0:
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body) + reply.cut))
        handler.end_headers()
        handler.wfile.write(reply.body)
        handler.close_connection = bool(reply.cut)

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def exporter(server: Server) -> Iterator[MakeExporter]:
    """Makes exporters to the server, and closes them."""
    with ExitStack() as stack:

        def make(path: str = "/in", **options: Any) -> HTTPExporter:
            made = HTTPExporter(server.url + path, **options)
            stack.callback(made.close)
            return made

        yield make


def lines(request: Request) -> list[Any]:
    return [json.loads(line) for line in request.body.splitlines()]


# What is sent


@pytest.mark.parametrize(
    ("data", "body", "kind"),
    [
        ("caf\u00e9\n", "caf\u00e9\n".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        (b"\xff", b"\xff", "application/octet-stream"),
        ({"a": [1]}, b'{"a":[1]}', "application/json"),
        (5, b"5", "application/json"),
    ],
)
def test_one_request_per_record(
    server: Server, exporter: MakeExporter, batch: MakeBatch, data: Any, body: bytes, kind: str
) -> None:
    """A record is the body of a request, with the type that fits and the record's id as key."""
    exporter().export(batch(data, run=255, first=16))
    (request,) = server.requests
    assert ("POST", "/in", body) == (request.method, request.target, request.body)
    assert kind == request.headers["content-type"]
    assert "00000000000000ff-10" == request.key


def test_one_request_per_batch(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A batch is lines of JSON, whatever the data, with the name of the batch as key."""
    work = batch("a\nb", b"\xff", {"c": 1}, None)
    exporter(batch=True).export(work)
    (request,) = server.requests
    assert ["a\nb", "/w==", {"c": 1}, None] == lines(request)
    assert request.body.endswith(b"\n")
    assert "application/x-ndjson" == request.headers["content-type"]
    assert work.token == request.key


def test_method_and_headers(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Method and headers are those given; a content type given replaces ours."""
    exporter(method="put", headers={"X-Token": "t", "content-TYPE": "text/csv"}).export(batch("a"))
    (request,) = server.requests
    assert "PUT" == request.method
    assert "t" == request.headers["x-token"]
    assert "text/csv" == request.headers["content-type"]


def test_connection_is_kept(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Requests follow each other on one connection, also after refusals; a very long answer costs it."""
    server.replies = [Reply(), Reply(422, body=b"no" * 1000), Reply(200, body=b"x" * 100_000), Reply(), Reply()]
    target = exporter()
    target.export(batch("a"))
    with pytest.raises(RecordsRefused):
        target.export(batch("b", first=2))
    target.export(batch("c", first=3))
    assert 1 == server.connections
    target.export(batch("d", "e", first=4))
    assert 2 == server.connections


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", "", "/"),
        ("", "x", "/x"),
        ("/in", "x/y", "/in/x/y"),
        ("/in/", "/x", "/in/x"),
        ("/in?k=v", "", "/in?k=v"),
        ("/in?k=v&w", "x", "/in/x?k=v&w"),
        ("/in", "a b?c#d", "/in/a%20b%3Fc%23d"),
        ("/in", "a%20b", "/in/a%20b"),
        ("/\u00e9", "\u00e9", "/%C3%A9/%C3%A9"),
        ("/in", "//evil.example/x", "/in/evil.example/x"),
    ],
)
def test_path(server: Server, exporter: MakeExporter, batch: MakeBatch, base: str, path: str, target: str) -> None:
    """`path=` is joined to the path of the URL and leads nowhere else; the query stays."""
    exporter(base).export(batch("a"), path=path)
    assert [target] == [request.target for request in server.requests]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "%2e%2e/x", 5])
def test_impossible_path(server: Server, exporter: MakeExporter, batch: MakeBatch, path: Any) -> None:
    """A path that would lead out of the URL's is refused with its records."""
    with pytest.raises(RecordsRefused, match="path"):
        exporter().export(batch("a"), path=path)
    assert [] == server.requests


def test_unrenderable(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Data without a form is refused without a request, the others are sent; a batch of such makes none."""
    target = exporter(batch=True)
    with pytest.raises(RecordsRefused) as caught:
        target.export(batch("a", object(), "c"))
    assert [1] == list(caught.value.permanent)
    assert ["a", "c"] == lines(server.requests[0])
    with pytest.raises(RecordsRefused):
        target.export(batch(object(), first=4))
    assert 1 == len(server.requests)


# What answers mean


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("many", [False, True])
def test_taken(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int, many: bool) -> None:
    """2xx is taken."""
    server.replies = [Reply(status)]
    exporter(batch=many).export(batch("a"))
    assert 1 == len(server.requests)


@pytest.mark.parametrize("status", [408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 507, 599])
def test_down(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int) -> None:
    """These come again later: the whole batch, since nothing says that one record is to blame."""
    server.replies = [Reply(status)]
    with pytest.raises(TargetDown, match=str(status)):
        exporter(batch=True).export(batch("a", "b"))
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "status", [301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 406, 407, 410, 418, 426, 501, 505]
)
def test_misconfigured(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int) -> None:
    """These hold everything: nothing is dead-lettered for a wrong URL or password, and no redirect is followed."""
    server.replies = [Reply(status, {"Location": f"{server.url}/other"})]
    with pytest.raises(TargetMisconfigured, match=str(status)):
        exporter().export(batch("a"))
    assert ["/in"] == [request.target for request in server.requests]


@pytest.mark.parametrize("status", [400, 413, 415, 422, 451])
def test_refused(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int) -> None:
    """These refuse the record, with what the server said about it."""
    server.replies = [Reply(status, body=b'{"error":\n "no such  field"}')]
    with pytest.raises(RecordsRefused) as caught:
        exporter(name="hook").export(batch("a"))
    reason = caught.value.permanent[0]
    assert reason.startswith(f"hook answered {status} ")
    assert reason.endswith(': {"error": "no such field"}')


@pytest.mark.parametrize("status", [404, 405, 410, 414])
def test_refused_for_its_path(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int) -> None:
    """With a path of its own, a record can be to blame for what otherwise is the configuration's fault."""
    server.replies = [Reply(status), Reply(status)]
    with pytest.raises(RecordsRefused, match=str(status)):
        exporter().export(batch("a"), path="x")
    with pytest.raises(TargetMisconfigured):
        exporter().export(batch("a"))


def test_type_of_a_batch_is_no_records_fault(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """415 for lines of JSON is a matter of configuration: no record could change it."""
    server.replies = [Reply(415)]
    with pytest.raises(TargetMisconfigured):
        exporter(batch=True).export(batch("a", "b"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999", 3600.0),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after(
    server: Server, exporter: MakeExporter, batch: MakeBatch, value: str, seconds: float | None
) -> None:
    """Retry-After is honoured in both its forms, a date against the server's own clock, an hour at most."""
    server.server.RequestHandlerClass.date_time_string = lambda self: formatdate(1_000_000, usegmt=True)  # type: ignore[attr-defined]
    server.replies = [Reply(503, {"Retry-After": value})]
    with pytest.raises(TargetDown) as caught:
        exporter().export(batch("a"))
    assert seconds == caught.value.retry_after


# Below HTTP


def test_nobody_listens(batch: MakeBatch) -> None:
    """A refused connection is down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = HTTPExporter(f"http://127.0.0.1:{free.getsockname()[1]}/")
        with pytest.raises(TargetDown, match="refused"):
            target.export(batch("a"))


def test_unknown_host(batch: MakeBatch) -> None:
    """A host that cannot be found is down: name servers fail, too."""
    with pytest.raises(TargetDown):
        HTTPExporter("http://host.invalid/").export(batch("a"))


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reply_swallowed(server: Server, exporter: MakeExporter, batch: MakeBatch, method: str) -> None:
    """When a batch arrived but its answer was lost, only the next export repeats it, with the same key and body."""
    server.replies = [Reply(0)]
    target = exporter(batch=True, method=method)
    with pytest.raises(TargetDown):
        target.export(batch("a", "b"))
    target.export(batch("a", "b"))
    first, second = server.requests
    assert (first.key, first.body) == (second.key, second.body)


def test_no_answer_in_time(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A server that does not answer is down when the time of the batch is over."""
    server.replies = [Reply(-1)]
    work = batch("a")
    work.deadline = time.monotonic() + 0.2
    with pytest.raises(TargetDown, match="timed out"):
        exporter().export(work)


def test_no_time_left(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """After the deadline no request is begun."""
    work = batch("a")
    work.deadline = time.monotonic()
    with pytest.raises(TargetDown, match="no time left"):
        exporter().export(work)
    assert [] == server.requests


@pytest.mark.parametrize(("status", "taken"), [(200, True), (503, False), (422, False)])
def test_answer_cut_off(server: Server, exporter: MakeExporter, batch: MakeBatch, status: int, taken: bool) -> None:
    """An answer that breaks off after its head counts when it said that the record was taken, and only then."""
    server.replies = [Reply(status, body=b"half", cut=10)]
    target = exporter()
    if taken:
        target.export(batch("a"))
    else:
        with pytest.raises(TargetDown):
            target.export(batch("a"))
    target.export(batch("b", first=2))


def test_unverified_certificate(tmp_path: Path, batch: MakeBatch) -> None:
    """A certificate that does not verify is a matter of configuration, and nothing is sent."""
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    command = [*request, "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(context)
    try:
        with pytest.raises(TargetMisconfigured, match="certificate verify failed"):
            HTTPExporter(server.url).export(batch("a"))
        assert [] == server.requests
    finally:
        server.close()


# Parts of a batch


def refusing(*bad: Any, most: int = 1000) -> Callable[[Request], Reply]:
    """A server that refuses requests with a bad record in them, or with too many."""

    def judge(request: Request) -> Reply:
        if len(lines(request)) > most:
            return Reply(413)
        return Reply(422, body=b"bad") if set(bad) & set(lines(request)) else Reply()

    return judge


def taken(server: Server, judge: Callable[[Request], Reply]) -> list[Any]:
    """The records that a server took, once per key."""
    by_key = {request.key: lines(request) for request in server.requests if judge(request).status == 200}
    return sorted(item for part in by_key.values() for item in part)


def test_bad_records_are_found(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A refused batch is halved until the bad records are alone; all others are taken, in order, once."""
    server.judge = refusing(3, 12)
    with pytest.raises(RecordsRefused) as caught:
        exporter(batch=True).export(batch(*range(16)))
    assert {3, 12} == caught.value.permanent.keys()
    assert not caught.value.later
    accepted = [item for request in server.requests if server.judge(request).status == 200 for item in lines(request)]
    assert [item for item in range(16) if item not in (3, 12)] == accepted
    assert len({request.key for request in server.requests}) == len(server.requests)


def test_too_large(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A batch that is too large goes in parts; a record that is too large alone is refused."""
    server.judge = refusing(most=3)
    exporter(batch=True).export(batch(*range(10)))
    assert list(range(10)) == taken(server, server.judge)
    server.judge = lambda request: Reply(413)
    with pytest.raises(RecordsRefused, match="413"):
        exporter(batch=True).export(batch("x" * 100, first=20))


@pytest.mark.parametrize("failing", range(1, 8))
def test_goes_on_where_it_stopped(server: Server, exporter: MakeExporter, batch: MakeBatch, failing: int) -> None:
    """When a part fails, the repetition begins with that part and its key: what was taken is not sent again."""
    judge, count = refusing(5, most=2), 0

    def once(request: Request) -> Reply:
        nonlocal count
        count += 1
        return Reply(0) if count == failing else judge(request)

    server.judge = once
    target = exporter(batch=True)
    with pytest.raises(TargetDown):
        target.export(batch(*range(8)))
    lost = server.requests.pop()
    before = len(server.requests)
    with pytest.raises(RecordsRefused) as caught:
        target.export(batch(*range(8)))
    assert [5] == list(caught.value.permanent)
    assert (lost.key, lost.body) == (server.requests[before].key, server.requests[before].body)
    accepted = [item for request in server.requests if judge(request).status == 200 for item in lines(request)]
    assert [0, 1, 2, 3, 4, 6, 7] == accepted


def test_single_records_go_on_where_they_stopped(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Records sent one by one in one attempt are not sent again when a later one fails."""
    server.replies = [Reply(), Reply(422), Reply(503)]
    target = exporter()
    with pytest.raises(TargetDown):
        target.export(batch("a", "b", "c", "d"))
    with pytest.raises(RecordsRefused) as caught:
        target.export(batch("a", "b", "c", "d"))
    assert [1] == list(caught.value.permanent)
    assert [b"a", b"b", b"c", b"c", b"d"] == [request.body for request in server.requests]


def test_another_batch_begins_at_its_beginning(server: Server, exporter: MakeExporter, batch: MakeBatch) -> None:
    """What was learned of a batch that failed does not touch another."""
    server.replies = [Reply(413), Reply(), Reply(503)]
    target = exporter(batch=True)
    with pytest.raises(TargetDown):
        target.export(batch(*range(4)))
    target.export(batch(*range(4), run=9))
    assert [0, 1, 2, 3] == lines(server.requests[-1])


# Arguments and secrets


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": 5}, "url must be a str"),
        ({"url": "example.org"}, "url must be http"),
        ({"url": "ftp://example.org"}, "url must be http"),
        ({"url": "http://"}, "url must be http"),
        ({"url": "http://a b/"}, "url must be http"),
        ({"url": "http://x/#frag"}, "without a fragment"),
        ({"url": "http://x:port/"}, "impossible host or port"),
        ({"url": "http://x:99999/"}, "impossible host or port"),
        ({"url": "http://[::1/"}, "impossible host or port"),
        ({"url": "http://a..b/"}, "impossible host or port"),
        ({"url": "http://x", "method": "PO ST"}, "method"),
        ({"url": "http://x", "method": None}, "method"),
        ({"url": "http://x", "batch": "yes"}, "batch must be"),
        ({"url": "http://x", "headers": ["a"]}, "headers must be a mapping"),
        ({"url": "http://x", "headers": {"a b": "c"}}, "impossible name"),
        ({"url": "http://x", "headers": {"a": 5}}, "impossible value for 'a'"),
        ({"url": "http://x", "headers": {"a": "b\r\nc"}}, "impossible value for 'a'"),
        ({"url": "http://x", "headers": {"a": "\u4e16"}}, "impossible value for 'a'"),
        ({"url": "http://x", "headers": {"Idempotency-Key": "k"}}, "sets itself"),
        ({"url": "http://u:p@x", "headers": {"authorization": "k"}}, "both url and headers"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], named: str) -> None:
    """A wrong argument is named when the exporter is made."""
    with pytest.raises(InvalidConfigError, match=named):
        HTTPExporter(**arguments)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without urllib3 the constructor says how to install it."""
    monkeypatch.setattr("resilient_exporters.exporters.http.find_spec", lambda name: None)
    with pytest.raises(MissingModuleError, match=r'pip install "resilient-exporters\[http\]"'):
        HTTPExporter("http://x")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://Example.org", "http://example.org"),
        ("https://user:pass@example.org:8443/in?token=abc", "https://example.org:8443/in"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example"),
    ],
)
def test_name(url: str, name: str) -> None:
    """The name is the URL without secrets."""
    assert name == HTTPExporter(url).name


def test_user_and_password(server: Server, batch: MakeBatch) -> None:
    """User and password of the URL authorize each request."""
    HTTPExporter(server.url.replace("//", "//me:p%40ss@")).export(batch("a"))
    assert "Basic bWU6cEBzcw==" == server.requests[0].headers["authorization"]


@pytest.mark.parametrize("status", [0, -1, 302, 401, 404, 422, 503])
def test_no_secrets_shown(server: Server, batch: MakeBatch, status: int) -> None:
    """No error, cause or representation shows user, password, query or headers, even when the server repeats them."""
    secrets = ["hunter22", "s3cr3t", "me:hunter22", "bearer-1"]
    target = HTTPExporter(
        f"http://me:hunter22@127.0.0.1:{server.port}/in?token=s3cr3t&x=1", headers={"X-Key": "bearer-1"}
    )
    echo = f"no /in?token=s3cr3t&x=1 for me:hunter22 {target._headers['Authorization']} bearer-1".encode()
    server.replies = [Reply(status, {"Location": "http://x/?token=s3cr3t"}, echo)]
    work = batch("a")
    work.deadline = time.monotonic() + 0.5
    with pytest.raises(ExportError) as caught:
        target.export(work)
    reasons = str(getattr(caught.value, "permanent", ""))
    shown = "".join(traceback.format_exception(caught.value)) + reasons + repr(target) + target.name
    assert [] == [secret for secret in secrets if secret in shown]
    assert "token" not in shown


def test_no_secret_in_a_wrong_url() -> None:
    """A URL that cannot be understood is not shown, since a password may be the reason."""
    with pytest.raises(InvalidConfigError) as caught:
        HTTPExporter("http://me:hun#ter:22@example.org/")
    assert "hun" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_made_without_loading_anything() -> None:
    """Making an exporter loads no client library and opens no connection."""
    script = (
        "import sys, resilient_exporters as rex\n"
        "rex.exporters.HTTPExporter('http://127.0.0.1:1/')\n"
        "assert 'urllib3' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# With the library around it


def test_large_backlog_to_a_picky_server(server: Server) -> None:
    """A backlog reaches a server that loses answers and takes three records at a time: each once per key, in order."""
    count = 0

    def judge(request: Request) -> Reply:
        nonlocal count
        count += 1
        if count % 5 == 0:
            return Reply(503)
        return Reply(413) if len(lines(request)) > 3 else Reply(0) if count % 3 == 0 else Reply()

    server.judge = judge
    hook = HTTPExporter(server.url, batch=True, name="hook")
    with rex.ExporterPool([hook], manual_reexport=True) as pool:
        for number in range(40):
            pool.save_unsent_data(number, {}, "hook")
        for _ in range(100):
            pool.send_unsent_data()
            if not pool.has_unsent_data():
                break
        assert not pool.has_unsent_data()
    by_key = {request.key: lines(request) for request in server.requests if len(lines(request)) <= 3}
    assert list(range(40)) == [number for part in by_key.values() for number in part]


def test_outage_and_recovery(server: Server) -> None:
    """What a server did not take is kept and sent once, in order, when it answers again."""
    server.replies = [Reply(503)]
    with rex.ExporterPool([HTTPExporter(server.url, name="hook")], manual_reexport=True) as pool:
        assert (None, False) == pool.send("a")[0]
        assert [(None, True)] == pool.send_unsent_data()
        assert not pool.has_unsent_data()
        assert (None, True) == pool.send("b")[0]
    assert [b"a", b"a", b"b"] == [request.body for request in server.requests]
    assert server.requests[0].key == server.requests[1].key != server.requests[2].key
