"""Fetches pictures from hosts that the server's owner allows, and from no others.

Whoever sends an address chooses where this server connects to, so nothing is left to the address:
its host is one that is listed, every address that the host's name leads to is public, and one of
these very addresses is dialled, so that the name cannot lead elsewhere in between. All of that is
checked anew for each redirect. Proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from unitok.server.errors import ApiError
from unitok.server.fetched_body import FetchError, Reply, read_body, read_head

MAX_URL = 8192  # characters
MAX_REDIRECTS = 3
MAX_BYTES = 20_000_000  # of a picture
SECONDS = 20.0  # for a picture, redirects included
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}
# Ways to write an IPv4 address as one of IPv6, which might lead to any of them.
TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9]\d{0,4})?")
_PLAIN = re.compile(r"[\x21-\x7e]+")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Connect = Callable[..., Awaitable[Streams]]


@dataclass(frozen=True)
class Target:
    """Where a picture is.

    Attributes:
        scheme: "http" or "https".
        host: The name of the host.
        port: Its port.
        path: What is asked for there, with its query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Where an address leads.

        Raises:
            FetchError: It is no address of a picture.
        """
        if len(url) > MAX_URL or not _PLAIN.fullmatch(url):
            raise FetchError("the address is too long, or has characters that an address has not")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise FetchError("the address is damaged") from None
        if parts.scheme not in PORTS or not parts.hostname:
            raise FetchError("the address must begin with https:// and a host")
        if parts.username is not None or parts.password is not None:
            raise FetchError("the address has a user name or a password")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname.lower(), port or PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """The host, with the port if it is not the usual one."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"


class PictureFetcher:
    """Fetches pictures. It is a `unitok.server.picture_parts.Fetcher`.

    Attributes:
        hosts: The hosts that are allowed, with a port if it is not the usual one.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        resolve: Resolve | None = None,
        connect: Connect = asyncio.open_connection,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Allow hosts.

        Args:
            hosts: Their names; see `host_name`.
            resolve: Gives the addresses of a host; by default the system's.
            connect: Opens a connection, as `asyncio.open_connection` does.
            seconds: The most seconds that a picture may take.
            max_bytes: The most bytes that it may have.

        Raises:
            ValueError: A name is none of a host.
        """
        self.hosts = frozenset(map(host_name, hosts))
        self._resolve, self._connect = resolve or addresses_of, connect
        self._seconds, self._max_bytes = seconds, max_bytes
        self._tls = ssl.create_default_context()

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes of a picture. What they are is not looked at.

        Args:
            url: Its address.
            param: The place of the address in the body.

        Raises:
            ApiError: The host is not allowed, or the picture cannot be had.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(url)
        except FetchError as error:
            raise _error(param, str(error), error.code) from None
        except TimeoutError:
            raise _error(param, f"the picture did not arrive within {self._seconds:g} s") from None
        except (OSError, EOFError, asyncio.LimitOverrunError):
            raise _error(
                param, "the host of the picture gives no answer that can be read"
            ) from None

    async def _follow(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            reply = await self._get(Target.of(url))
            if reply.status == 200:
                return reply.body
            if reply.status not in REDIRECTS or not reply.location:
                told = f"the host of the picture answers with the status {reply.status}"
                raise FetchError(told, "failed_to_download_image")
            url = _next(url, reply.location)
        told = f"the address leads to more than {MAX_REDIRECTS} others"
        raise FetchError(told, "failed_to_download_image")

    async def _get(self, target: Target) -> Reply:
        if target.authority not in self.hosts:
            raise FetchError("the server fetches no pictures from this host")
        addresses = await self._resolve(target.host, target.port)
        if not addresses or not all(map(is_public, addresses)):
            raise FetchError("the host of the picture has an address that is not public")
        reader, writer = await self._open(target, addresses)
        try:
            writer.write(_request(target))
            await writer.drain()
            status, headers = await read_head(reader)
            body = await read_body(reader, headers, self._max_bytes) if status == 200 else b""
            return Reply(status, headers.get("location", ""), body)
        finally:
            writer.transport.abort()

    async def _open(self, target: Target, addresses: Sequence[str]) -> Streams:
        """A connection to the first address that takes one."""
        tls = target.scheme == "https"
        more = {"ssl": self._tls, "server_hostname": target.host} if tls else {}
        for address in addresses[:-1]:
            try:
                return await self._connect(address, target.port, **more)
            except OSError:
                continue
        return await self._connect(addresses[-1], target.port, **more)


def host_name(text: str) -> str:
    """A host that pictures may be fetched from, as it is compared.

    Raises:
        ValueError: It is none.
    """
    host = text.lower()
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} is no host: give a name such as example.org, without https://")
    return host


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a host's name leads to, by the system's resolver.

    Raises:
        OSError: There are none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, and of no machine near this one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None
        or address.sixtofour is not None
        or address.teredo is not None
        or address.is_site_local
        or any(address in network for network in TRANSLATED)
    ):
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def _next(url: str, location: str) -> str:
    """Where a redirect leads."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise FetchError("the address leads to one that is damaged") from None


def _request(target: Target) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"host: {target.authority}",
        "accept: image/*",
        "accept-encoding: identity",
        "user-agent: unitok",
        "connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _error(param: str, message: str, code: str = "failed_to_download_image") -> ApiError:
    return ApiError(400, f"{param}: {message}", param=param, code=code)
