"""Fetching: from a mirror, and from a server on this machine's loopback."""

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from iadsr.errors import UserError
from iadsr.ingest.official_files import (
    MOVIELENS_100K,
    DatasetSize,
    OfficialFile,
    amazon_meta,
    check_counts,
    fetch,
    mirror_folder,
)

CONTENT = b"0123456789" * 100
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
Answer = tuple[int, int | None, bytes]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers` (status, declared length or None, body), the last one forever."""

    daemon_threads = True

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.requests = 0

    def official(self, name: str = "file.bin", **known: Any) -> OfficialFile:
        return OfficialFile(name, f"http://127.0.0.1:{self.server_port}/{name}", **known)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, length, body = self.server.answers[min(self.server.requests, len(self.server.answers) - 1)]
        self.server.requests += 1
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    servers = []

    def start(*answers: Answer) -> Server:
        servers.append(Server(*answers))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


WHOLE = (200, len(CONTENT), CONTENT)
BUSY = (503, 0, b"")


def test_no_mirror_is_named() -> None:
    assert mirror_folder({}) is None
    assert mirror_folder({"IADSR_MIRROR": ""}) is None


def test_a_mirror_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"IADSR_MIRROR=.*nowhere: expected a folder"):
        mirror_folder({"IADSR_MIRROR": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("name", ["https://me:s3cr3t@host/data", "https://me:s 3cr3t@host", "me:s3cr3t@host:/data"])
def test_a_mirror_is_no_address(name: str) -> None:
    with pytest.raises(UserError, match=r"IADSR_MIRROR=.*: expected a folder of official files") as error:
        mirror_folder({"IADSR_MIRROR": name})
    assert "3cr3t" not in str(error.value)


def test_missing_from_the_mirror(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ml-100k.zip: missing from the mirror"):
        fetch(MOVIELENS_100K, tmp_path / "cache", tmp_path)


def test_a_mirrors_own_sum_replaces_the_official_one(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(CONTENT)
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(CONTENT)}  ml-100k.zip\n")
    assert fetch(MOVIELENS_100K, tmp_path / "cache", tmp_path) == tmp_path / "ml-100k.zip"


def test_a_wrong_sum_in_the_mirror_names_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(CONTENT)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64} *ml-100k.zip\n")
    with pytest.raises(UserError, match=rf"ml-100k.zip: wrong checksum: expected sha256 0{{64}}.*{sha256(CONTENT)}"):
        fetch(MOVIELENS_100K, tmp_path / "cache", tmp_path)


def test_a_broken_list_of_sums_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(CONTENT)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other\n\nnonsense\n")
    with pytest.raises(UserError, match=r"SHA256SUMS, row 3: .*'nonsense'"):
        fetch(MOVIELENS_100K, tmp_path / "cache", tmp_path)


def test_without_own_sums_the_official_one_holds(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"expected md5 0e33842e24a9c977be4e0107933c0723, found"):
        fetch(MOVIELENS_100K, tmp_path / "cache", tmp_path)


def test_a_merely_reported_sum_is_a_warning_with_both_sums(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "meta_Beauty.json.gz").write_bytes(CONTENT)
    fetch(amazon_meta("Beauty"), tmp_path / "cache", tmp_path)
    assert "99,156,148 bytes, sha256 c7977dc0" in caplog.text
    assert f"1,000 bytes, {sha256(CONTENT)}" in caplog.text


def test_an_unknown_sum_is_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "meta_Books.json.gz").write_bytes(CONTENT)
    fetch(amazon_meta("Books"), tmp_path / "cache", tmp_path)
    assert f"no checksum is known for it; this copy has sha256 {sha256(CONTENT)}" in caplog.text


def test_a_download_is_kept_and_not_repeated(serve: Serve, tmp_path: Path) -> None:
    server = serve(WHOLE)
    file = server.official(checksum=MD5, size=1000, verified=True)
    for _ in range(2):
        assert fetch(file, tmp_path / "cache").read_bytes() == CONTENT
    assert server.requests == 1


def test_a_failed_download_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(BUSY, (200, len(CONTENT), CONTENT[:10]), WHOLE)
    assert fetch(server.official(checksum=MD5, verified=True), tmp_path).read_bytes() == CONTENT
    assert server.requests == 3


@pytest.mark.parametrize(
    ("answer", "known", "why"),
    [
        (BUSY, {}, "503"),
        ((200, len(CONTENT), CONTENT[:10]), {}, "10 bytes read, 990 more expected"),
        ((200, None, CONTENT[:10]), {"checksum": MD5, "verified": True}, "expected md5"),
        ((200, None, CONTENT[:10]), {"size": 1000, "verified": True}, "expected 1,000 bytes, found 10"),
        ((200, None, gzip.compress(CONTENT)[:-9]), {"name": "reviews.json.gz"}, "not a whole gzip file"),
        ((200, None, b"<html>please log in</html>"), {"name": "reviews.json.gz"}, "not a whole gzip file"),
        ((200, 0, b""), {"name": "reviews.json.gz"}, "nothing in the gzip file"),
        ((200, None, gzip.compress(b"")), {"name": "reviews.json.gz"}, "nothing in the gzip file"),
    ],
)
def test_a_download_that_fails_for_good_leaves_nothing(
    serve: Serve, tmp_path: Path, answer: Answer, known: dict[str, Any], why: str
) -> None:
    server = serve(answer)
    with pytest.raises(UserError, match=rf"could not be downloaded from http.*in 4 attempts .*{why}.*IADSR_MIRROR"):
        fetch(server.official(**known), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert server.requests == 4


def test_a_damaged_file_in_the_cache_is_downloaded_anew(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"damaged")
    assert fetch(serve(WHOLE).official(checksum=MD5, verified=True), tmp_path).read_bytes() == CONTENT


GZIP = gzip.compress(CONTENT, mtime=0)  # the tests' names hold it


@pytest.mark.parametrize("damaged", [b"", GZIP[:-9], b"damaged", gzip.compress(b"another", mtime=0)])
def test_a_download_of_unknown_checksum_that_was_damaged_is_fetched_anew(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    """Once; its checksum is noted beside it."""
    server = serve((200, len(GZIP), GZIP))
    file = server.official("reviews.json.gz")
    path = fetch(file, tmp_path)
    path.write_bytes(damaged)
    for _ in range(2):
        assert fetch(file, tmp_path).read_bytes() == GZIP
    assert server.requests == 2
    assert "damaged since it was downloaded; downloading it again" in caplog.text


@pytest.mark.parametrize(("content", "requests"), [(GZIP, 0), (GZIP[:-9], 1), (b"", 1)])
def test_a_download_without_a_noted_checksum(serve: Serve, tmp_path: Path, content: bytes, requests: int) -> None:
    """As of earlier versions: it is kept if it is whole."""
    (tmp_path / "reviews.json.gz").write_bytes(content)
    server = serve((200, len(GZIP), GZIP))
    assert fetch(server.official("reviews.json.gz"), tmp_path).read_bytes() == GZIP
    assert server.requests == requests


def test_a_proxys_password_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("http_proxy", "http://me:s3cr3t@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UserError, match="could not be downloaded") as error:
        fetch(OfficialFile("file.bin", "http://me:s3cr3t@example.invalid/file.bin?token=s3cr3t"), tmp_path)
    assert "s3cr3t" not in str(error.value)


def test_an_unverified_size_and_sum_warn_only(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = serve(WHOLE).official(checksum="sha256:" + "0" * 64, size=7)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert "expected 7 bytes" in caplog.text


def test_unexpected_counts_warn(caplog: pytest.LogCaptureFixture) -> None:
    check_counts(MOVIELENS_100K, DatasetSize(943, 1682, 100_000))
    assert caplog.text == ""
    check_counts(MOVIELENS_100K, DatasetSize(942, 1682, 99_999))
    assert "expected 943 users, 1,682 items, 100,000 interactions, found 942 users" in caplog.text
