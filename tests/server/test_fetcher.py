"""Pictures are fetched from hosts that are listed, at public addresses, and from nowhere else."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.server.live import Live, png, served
from unitok import Model
from unitok.cli import app
from unitok.server.errors import ApiError
from unitok.server.fetcher import PictureFetcher, host_name, is_public
from unitok.server.settings import ServerSettings

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1::1"
PICTURE = png(Image.new("RGB", (8, 8), "red"))
OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"content-length: %d\r\n\r\n" % len(PICTURE) + PICTURE
PARAM = "messages[0].content[0].image_url.url"


class Internet:
    """A resolver, and hosts at public addresses which all are one local server."""

    def __init__(self, answers: Mapping[str, bytes], names: Mapping[str, Sequence[Any]]) -> None:
        self.answers = answers  # by path
        self.names = {name: list(found) for name, found in names.items()}
        self.asked: list[str] = []  # the requests that came
        self.dialled: list[tuple[str, int, Any]] = []
        self.port = 0

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """What a name leads to: each of the answers once, and the last one from then on."""
        found = self.names[host]
        return found.pop(0) if len(found) > 1 else found[0]

    async def connect(self, address: str, port: int, **more: Any) -> Any:
        self.dialled.append((address, port, more.get("server_hostname")))
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(request)
        answer = self.answers[request.split(" ")[1]]
        if answer:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            await reader.read()  # it never answers

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield


def fetched(internet: Internet, url: str, **options: Any) -> bytes:
    async def work() -> bytes:
        async with internet.listening():
            fetcher = PictureFetcher(
                ["pictures.example", "other.example"],
                internet.resolve,
                internet.connect,
                **options,
            )
            return await fetcher.fetch(url, PARAM)

    return asyncio.run(work())


def refused(internet: Internet, url: str, code: str, **options: Any) -> str:
    """The message with which an address is refused."""
    with pytest.raises(ApiError) as caught:
        fetched(internet, url, **options)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, PARAM, code)
    return caught.value.message


def internet(answer: bytes = WHOLE, found: Sequence[Any] = ([PUBLIC],), **more: bytes) -> Internet:
    answers = {"/a.png?b=c": answer, **{f"/{name}": text for name, text in more.items()}}
    return Internet(answers, {"pictures.example": found, "other.example": found})


URL = "https://pictures.example/a.png?b=c"


def test_the_address_that_was_checked_is_dialled_under_the_hosts_name():
    net = internet(found=[[OTHER, PUBLIC], ["127.0.0.1"]])  # the name leads elsewhere later
    assert fetched(net, URL) == PICTURE
    assert net.dialled == [(OTHER, 443, "pictures.example")]
    (request,) = net.asked
    assert request.startswith("GET /a.png?b=c HTTP/1.1\r\nhost: pictures.example\r\n")
    assert "cookie" not in request and "authorization" not in request


def test_plain_http_has_no_tls():
    net = internet()
    assert fetched(net, "http://pictures.example/a.png?b=c#d") == PICTURE
    assert net.dialled == [(PUBLIC, 80, None)]


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\n" + PICTURE,
        OK
        + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\n"
        + PICTURE[:5]
        + b"\r\n%X\r\n" % (len(PICTURE) - 5)
        + PICTURE[5:]
        + b"\r\n0\r\n\r\n",
    ],
)
def test_bodies_of_unknown_length(answer: bytes):
    assert fetched(internet(answer), URL) == PICTURE


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.png",
        "https://pictures.example.evil.example/a.png",
        "https://pictures.example:8443/a.png",
        "https://pictures.example./a.png",
        "https://evil.example#@pictures.example/",
        "https://evil.example\\@pictures.example/",
        "https://user@pictures.example/a.png",
        "https://127.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://2130706433/a.png",
        "https://pictures.example/a b.png",
        "https://pictures.example/a\r\nhost: evil.example",
        "https://pictures.example:99999/a.png",
        "https://[pictures.example/a.png",
        "https:///a.png",
        "ftp://pictures.example/a.png",
        "file:///etc/hostname",
        "https://pictures.example/" + "a" * 9000,
    ],
)
def test_no_other_host_is_asked(url: str):
    net = internet()
    refused(net, url, "invalid_image_url")
    assert net.dialled == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        f"::ffff:{PUBLIC}",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "no address",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str):
    assert not is_public(address)
    for found in ([address], [PUBLIC, address]):
        net = internet(found=[found])
        assert "not public" in refused(net, URL, "invalid_image_url")
        assert net.dialled == []


def test_public_addresses_are_public():
    assert is_public(PUBLIC) and is_public(OTHER)


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nlocation: {to}\r\n\r\n".encode()


def test_redirects_are_followed_and_checked_anew():
    net = internet(redirect("//other.example/b", 308), b=redirect("c"), c=redirect("/d"), d=WHOLE)
    assert fetched(net, URL) == PICTURE
    assert [name for _, _, name in net.dialled] == ["pictures.example"] + 3 * ["other.example"]


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/",
        "https://evil.example/",
        "file:///etc/hostname",
        "http://[",
        "https://pictures.example@evil.example/",
    ],
)
def test_a_redirect_leads_to_no_other_host(to: str):
    net = internet(redirect(to))
    refused(net, URL, "invalid_image_url")
    assert len(net.dialled) == 1


def test_a_redirect_to_a_name_that_is_private_by_now_is_refused():
    net = internet(redirect("/b"), found=[[PUBLIC], ["127.0.0.1"]], b=WHOLE)
    assert "not public" in refused(net, URL, "invalid_image_url")
    assert len(net.dialled) == 1


def test_redirects_end():
    net = internet(redirect("/a.png?b=c"))
    assert "more than 3" in refused(net, URL, "failed_to_download_image")
    assert len(net.dialled) == 4


LARGE = b"x" * 1001


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (OK + b"content-length: 1001\r\n\r\n", "image_file_too_large"),
        (OK + b"\r\n" + LARGE, "image_file_too_large"),
        (OK + b"transfer-encoding: chunked\r\n\r\nfffffff\r\n", "image_file_too_large"),
        (OK + b"transfer-encoding: chunked\r\n\r\nno\r\n", "failed_to_download_image"),
        (OK + b"transfer-encoding: chunked\r\n\r\n1\r\nabc", "failed_to_download_image"),
        (OK + b"transfer-encoding: gzip\r\n\r\n", "failed_to_download_image"),
        (OK + b"content-encoding: gzip\r\n\r\n", "failed_to_download_image"),
        (OK + b"content-length: -1\r\n\r\n", "failed_to_download_image"),
        (OK + b"content-length: 9\r\n\r\nabc", "failed_to_download_image"),
        (OK + b"x: y\r\n" * 200 + b"\r\n", "failed_to_download_image"),
        (OK + b"x: " + b"y" * 100_000, "failed_to_download_image"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "failed_to_download_image"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "failed_to_download_image"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "failed_to_download_image"),
        (b"\r\n", "failed_to_download_image"),
    ],
)
def test_answers_that_are_no_picture_of_bounded_size(answer: bytes, code: str):
    refused(internet(answer), URL, code, max_bytes=1000)


def test_a_host_that_is_too_slow_is_given_up():
    told = refused(internet(b""), URL, "failed_to_download_image", seconds=0.2)
    assert "within 0.2 s" in told


def test_a_host_that_takes_no_connection_is_told():
    net = internet()

    async def connect(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError

    net.connect = connect
    refused(net, URL, "failed_to_download_image")


@pytest.mark.parametrize(
    "name", ["", "https://a.example", "a.example/b", "a b", "*.example", "a:0"]
)
def test_what_is_no_host_cannot_be_allowed(name: str):
    with pytest.raises(ValueError, match="is no host"):
        host_name(name)


def test_the_command_refuses_what_is_no_host_before_it_loads_a_model():
    result = CliRunner().invoke(app, ["serve", "--allow-picture-host", "https://a.example"])
    assert result.exit_code == 2
    assert "'https://a.example' is no host: give a name such as example.org" in result.stderr


def test_a_question_about_a_picture_of_an_allowed_host(model: Model):
    """The server fetches what the chat shows, and refuses other hosts with the place."""
    net = internet()

    def part(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url}}

    settings = ServerSettings(allowed_hosts=("pictures.example",))
    with served(model, settings=settings) as live:
        fetcher = live.app.services.fetcher
        assert isinstance(fetcher, PictureFetcher)
        fetcher._resolve, fetcher._connect = net.resolve, _to(net)
        answers = [_asked(live, part(url)) for url in (URL, "https://evil.example/a.png")]
    assert answers[0].status_code == 200
    assert (answers[1].status_code, answers[1].json()["error"]["param"]) == (400, PARAM)


def _to(net: Internet) -> Callable[..., Awaitable[Any]]:
    async def connect(address: str, port: int, **_: Any) -> Any:
        net.dialled.append((address, port, None))
        server = await asyncio.start_server(net.answer, "127.0.0.1", 0)
        return await asyncio.open_connection(*server.sockets[0].getsockname())

    return connect


def _asked(live: Live, part: dict[str, Any]) -> Any:
    body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 2}
    with live.http() as http:
        return http.post("/v1/chat/completions", json=body)


class Slow(PictureFetcher):
    """Takes less time for each picture than one may take."""

    async def fetch(self, url: str, param: str) -> bytes:
        await asyncio.sleep(0.8)
        return PICTURE


def test_all_pictures_of_a_request_have_a_time_together(model: Model):
    settings = ServerSettings(fetch_seconds=2)
    picture = {"type": "image_url", "image_url": {"url": "http://pictures.example/a.png"}}
    question = {"type": "text", "text": "what is this?"}
    with served(model, settings=settings) as live, live.http() as http:
        object.__setattr__(live.app.services, "fetcher", Slow(["pictures.example"]))
        for count, status in ((1, 200), (4, 400)):
            content = [*[picture] * count, question]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
            response = http.post("/v1/chat/completions", json=body)
            assert response.status_code == status, response.text
        error = response.json()["error"]
        assert error["code"] == "failed_to_download_image" and "within 2 s" in error["message"]
        assert error["param"].startswith("messages[0].content[")
        assert live.app.services.admission._bytes == 0
