"""What is served and what is not, over real sockets."""

import contextlib
import http.client
import os
import socket
import threading

import pytest

from mednovelty.errors import OutputError, SettingsError, StoppedError
from mednovelty.page_server import ADDRESS, Pages, PageServer


@pytest.fixture
def folder(tmp_path):
    """A folder of ours, with something outside that must not be seen."""
    root = tmp_path / "out"
    (root / "sub-01" / "dwi").mkdir(parents=True)
    (root / "index.html").write_text("<p>cohort</p>")
    (root / "sub-01" / "dwi" / "sub-01.html").write_text("<p>scan</p>")
    (root / "sub-01" / "dwi" / "a b.nii.gz").write_bytes(b"\x1f\x8b" * 4)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "key").write_text("secret")
    (root / ".secret").write_text("secret")
    (tmp_path / "outside.html").write_text("secret")
    (tmp_path / "out-too").mkdir()
    (tmp_path / "out-too" / "x.html").write_text("secret")
    return root


@pytest.fixture
def server(folder):
    with PageServer(Pages.of(folder, folder / "index.html")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, *, method="GET", host=None, headers=()):
    """Return status, headers and body of one request."""
    connection = http.client.HTTPConnection(ADDRESS, server.port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"{ADDRESS}:{server.port}" if host is None else host)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def told(server, path, **how):
    return ask(server, f"/{server.pages.token}/{path}", **how)


def test_its_pages_are_served_with_their_kind_and_are_kept_nowhere(server):
    status, headers, body = told(server, "sub-01/dwi/sub-01.html")
    assert (status, body) == (200, b"<p>scan</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Content-Length"] == str(len(body))
    status, headers, body = told(server, "sub-01/dwi/a%20b.nii.gz")
    assert (status, body, headers["Content-Type"]) == (200, b"\x1f\x8b" * 4, "application/gzip")


def test_the_address_to_open_is_on_this_machine_and_works(server):
    start = f"http://127.0.0.1:{server.port}"
    assert server.url == f"{start}/{server.pages.token}/index.html"
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, server.url.removeprefix(start))[2] == b"<p>cohort</p>"
    assert told(server, "index.html", host=f"localhost:{server.port}")[0] == 200


def test_a_signal_ends_it_even_while_a_connection_is_taken(folder, monkeypatch):
    def stopped(*_):
        raise StoppedError("now")

    with PageServer(Pages.of(folder, folder / "index.html")) as server:
        monkeypatch.setattr(server, "process_request", stopped)
        with socket.create_connection((ADDRESS, server.port)), pytest.raises(StoppedError):
            server.handle_request()


def test_head_sends_no_body(server):
    status, headers, body = told(server, "index.html", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "13", b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "//index.html", "/wrong/index.html", "/{short}/index.html", "/{token}x/index.html",
     "http://127.0.0.1/{token}/index.html"],
)  # fmt: skip
def test_without_the_token_nothing_is_served(server, path):
    token = server.pages.token
    status, _, body = ask(server, path.format(token=token, short=token[:-1]))
    assert status == 403
    assert b"cohort" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "",
                                  "localhost.evil.example:{port}"])  # fmt: skip
def test_another_host_is_refused_even_with_the_token(server, host):
    assert told(server, "index.html", host=host.format(port=server.port))[0] == 403


def test_two_hosts_are_refused(server):
    assert told(server, "index.html", headers=[("Host", "evil.example")])[0] == 403


@pytest.mark.parametrize(
    "path",
    ["", "sub-01", "sub-01/", "sub-01/dwi/", "none.html", ".secret", ".hidden/key", "sub-01/../.secret",
     "../outside.html", "sub-01/../../outside.html", "%2e%2e/outside.html", "..%2foutside.html",
     "sub-01/%2e%2e/%2e%2e/outside.html", "../out-too/x.html", "%2fetc%2fpasswd", "/etc/passwd",
     "..%5coutside.html", "index.html%00.png", "index.html/", "x" * 5000],
)  # fmt: skip
def test_nothing_else_is_served(server, path):
    status, _, body = told(server, path)
    assert status == 404
    assert b"secret" not in body
    assert body == b"no such file\n"


def test_links_out_of_the_folder_lead_nowhere(server, folder):
    (folder / "out.html").symlink_to(folder.parent / "outside.html")
    (folder / "away").symlink_to(folder.parent)
    (folder / "hidden.html").symlink_to(folder / ".secret")
    (folder / "in.html").symlink_to(folder / "index.html")
    assert told(server, "out.html")[0] == 404
    assert told(server, "away/outside.html")[0] == 404
    assert told(server, "hidden.html")[0] == 404
    assert told(server, "in.html")[2] == b"<p>cohort</p>"


def test_what_is_no_file_is_not_waited_for(server, folder):
    os.mkfifo(folder / "pipe.html")
    assert told(server, "pipe.html")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_nothing_can_be_changed(server, method):
    assert told(server, "index.html", method=method)[0] == 501


def test_a_query_is_not_looked_at(server):
    assert told(server, "index.html?../../outside.html")[2] == b"<p>cohort</p>"


def test_nonsense_is_answered_and_the_server_goes_on(server):
    with socket.create_connection((ADDRESS, server.port), timeout=10) as raw:
        raw.sendall(b"\x00\xff nonsense\r\n\r\n")
        assert b"Bad HTTP" in raw.recv(4096)
    with socket.create_connection((ADDRESS, server.port), timeout=10) as raw:
        raw.sendall(b"GET /x HTTP/1.1\r\nHost")
    assert told(server, "index.html")[0] == 200


def test_one_who_waits_does_not_hold_up_another(server):
    with socket.create_connection((ADDRESS, server.port), timeout=10):
        assert told(server, "index.html")[0] == 200


def test_names_that_addresses_may_not_hold(tmp_path):
    name = "sub-01 100% ä?#.html"
    (tmp_path / name).write_text("here")
    with PageServer(Pages.of(tmp_path, tmp_path / name)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with contextlib.closing(http.client.HTTPConnection(ADDRESS, server.port, timeout=10)) as connection:
            connection.request("GET", "/" + server.url.split("/", 3)[3])
            assert connection.getresponse().read() == b"here"
        server.shutdown()
        thread.join()


def test_a_port_that_is_taken_is_told(folder):
    pages = Pages.of(folder, folder / "index.html")
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=rf"^port {port} of 127\.0\.0\.1 cannot be had \(.*\); choose"):
            PageServer(pages, port)
    with pytest.raises(SettingsError, match=r"^--port 70000: give one from 1 to 65535"):
        PageServer(pages, 70_000)


def test_tokens_are_long_and_new_each_time(folder):
    tokens = {Pages.of(folder, folder / "index.html").token for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) >= 21 for token in tokens)
