"""Networks that are down, cut, intercepted or slow, met by the command line. What is certain is a refusal, the rest is
looked into; nothing is bought twice and no secret shows."""

from __future__ import annotations

import base64
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchctl.files import lines
from batchctl.providers import patience
from tests.faults.test_lost_answers import finished
from tests.support.jobs import JobFolder
from tests.support.middlebox import Middlebox, forward
from tests.support.provider import Provider

SECRET = "proxy-password"


def test_nobody_listens(job: JobFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    job.run("prepare", code=0)
    done = job.run("submit", code=10, OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert f"127.0.0.1:{port}" in done.err
    assert job.check_balance()["queued"] == 6
    assert job.sql("SELECT count(*) FROM intent") == [(0,)], "nothing left this machine: nothing is unknown"
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_name_with_a_dead_address_and_a_living_one(job: JobFolder, provider: Provider) -> None:
    """`localhost` is ::1 as well on most machines, where nobody listens."""
    job.env["OPENAI_BASE_URL"] = provider.base_url.replace("127.0.0.1", "localhost")
    job.run("run", "--wait", code=0)
    finished(job)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_create_that_was_cut_on_its_way(job: JobFolder, provider: Provider, share: float) -> None:
    """The provider never saw the whole request, and the client cannot know: it looks, fences, and sends again."""
    struck: list[bytes] = []

    def handle(client: socket.socket, asked: bytes) -> None:
        first = asked.startswith(b"POST /v1/batches ") and not struck
        if first:
            struck.append(asked)
        forward(client, asked, provider.url, most=int(len(asked) * share) if first else None)

    with Middlebox(handle) as between:
        job.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{between.port}/v1"
        job.run("run", "--wait", code=0)
    assert struck
    finished(job)
    assert len(job.books.creates) == 2


def untrusted(directory: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that its own key signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    pem = directory / "untrusted.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_nobody_vouches_for(job: JobFolder, tmp_path: Path) -> None:
    """Said once, without a storm of attempts, and without a request that carries the key."""
    job.run("prepare", code=0)
    with Middlebox(lambda *_: None, tls=untrusted(tmp_path)) as between:
        done = job.run("submit", code=10, OPENAI_BASE_URL=f"https://127.0.0.1:{between.port}/v1")
        assert between.heads == []
    assert "TLS certificate" in done.err
    assert job.check_balance()["queued"] == 6
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_proxy_is_used_and_its_password_is_not_shown(job: JobFolder) -> None:
    def refuse(client: socket.socket, asked: bytes) -> None:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    job.run("prepare", code=0)
    with Middlebox(refuse) as proxy:
        job.env["HTTPS_PROXY"] = f"http://somebody:{SECRET}@127.0.0.1:{proxy.port}"
        done = job.run("submit", code=(10, 11), OPENAI_BASE_URL="https://provider.invalid/v1")
        assert proxy.heads[0].startswith(b"CONNECT provider.invalid:443 ")
        token = base64.b64encode(f"somebody:{SECRET}".encode())
        assert token in proxy.heads[0]
        seen = len(proxy.heads)
        job.run("submit", code=8)  # the emulator is on this machine, before which no proxy stands
        assert len(proxy.heads) == seen
    kept = b"".join(path.read_bytes() for path in job.state.rglob("*") if path.is_file())
    for secret in (SECRET, token.decode()):
        assert secret not in done.err + done.out
        assert secret.encode() not in kept
    job.run("run", "--wait", code=0)
    finished(job)


def test_an_answer_that_drips_on_and_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read is in time; all of them together are not. A large file that arrives steadily is another matter."""
    import httpx2

    clock = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])

    class Dripping(httpx2.SyncByteStream):
        def __init__(self, size: int, seconds: float) -> None:
            self.size, self.seconds = size, seconds

        def __iter__(self):  # type: ignore[no-untyped-def]
            for _ in range(5_000):
                clock[0] += self.seconds
                yield b"x" * self.size

    with pytest.raises(httpx2.ReadTimeout):
        list(patience.Patient(Dripping(1, 1.0)))
    assert 600 <= clock[0] < 700
    assert sum(map(len, patience.Patient(Dripping(100_000, 1.0)))) == 500_000_000
    assert list(lines(patience.Patient(Dripping(1, 0.0))))
