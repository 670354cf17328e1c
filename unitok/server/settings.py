"""What a server is told when it starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

MEBI, GIBI = 2**20, 2**30


@dataclass(frozen=True)
class Limit:
    """What declares a setting that is a flag of `unitok serve`.

    Attributes:
        help: What the flag's help says.
        unit: What is counted.
        unset: What is said of its default, if that is None.
    """

    help: str
    unit: Literal["things", "bytes", "seconds"] = "things"
    unset: str = ""

    def shown(self, value: float | None) -> str:
        """A value of the setting, for people."""
        if value is None:
            return self.unset
        if self.unit == "bytes" and value % GIBI == 0:
            return f"{value // GIBI} GiB"
        if self.unit == "bytes" and value % MEBI == 0:
            return f"{value // MEBI} MiB"
        return f"{value:,g}" if self.unit == "seconds" else f"{value:,}"


@dataclass(frozen=True)
class LimitFlag:
    """A setting that is a flag of `unitok serve`.

    Attributes:
        name: Of the setting. The flag is `--` and the name, with dashes.
        kind: The type of its values.
        default: Its default.
        limit: What else is said of it.
    """

    name: str
    kind: type[int] | type[float]
    default: float | None
    limit: Limit


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The limits and the times of a server.

    Attributes:
        max_requests: The most answers and pictures that are on their way at once, those that wait
            included. A request for n pictures counts n.
        max_per_key: The most of them that one key may have; None for all.
        max_n: The most answers or pictures of one request.
        max_body: Bytes of a body.
        max_bodies: Bytes of all bodies that are being read and worked on.
        max_headers: The most headers of a request.
        max_header_bytes: Bytes of all its headers.
        head_seconds: The most seconds until the head of a request has arrived, also of the next one
            on a connection.
        body_seconds: The most seconds until a body has arrived.
        fetch_seconds: The most seconds for all pictures of a request that are fetched.
        request_seconds: The most seconds until a result; a request may ask for less.
        drain_seconds: The most seconds that running requests have after SIGTERM.
        heartbeat_seconds: How often a quiet stream shows that it lives.
        send_seconds: The most seconds that a client may take nothing of its response.
        allowed_origins: Web pages of other origins that may use the server (CORS).
        local_only: Whether the server answers only as localhost, or as an address of it.
        allowed_hosts: Host names that pictures may be fetched from; () for none.
        shares_address: Whether this is one of several replicas behind one address. Then nothing is
            kept from one request to the next, which may reach another replica.
        max_responses: The most responses that are kept.
        max_responses_per_key: The most of them that one key may have.
        max_response_bytes: Bytes of all of them.
        keep_seconds: How long a response is kept.
        max_file: Bytes of a file that is uploaded.
        max_files: The most files of one key.
        max_stored: Bytes of all files of one key. What its batches write may exceed that.
        upload_seconds: The most seconds until a file has arrived.
        max_lines: The most lines of a batch.
        max_batches: The most batches of one key that have not ended.
    """

    max_requests: Annotated[
        int, Limit("The most answers and pictures on their way at once, waiting ones included.")
    ] = 256
    max_per_key: Annotated[int | None, Limit("The most of them of one key.", unset="all")] = None
    max_n: Annotated[int, Limit("The most answers or pictures of one request.")] = 16
    max_body: Annotated[int, Limit("Of a request.", "bytes")] = 32 * MEBI
    max_bodies: int = 256 * MEBI
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024
    head_seconds: Annotated[
        float, Limit("The most seconds until the head of a request is there.", "seconds")
    ] = 30.0
    body_seconds: float = 60.0
    fetch_seconds: Annotated[
        float, Limit("The most seconds for all pictures of a request that are fetched.", "seconds")
    ] = 60.0
    request_seconds: Annotated[float, Limit("The most seconds until a result.", "seconds")] = 600.0
    drain_seconds: Annotated[
        float,
        Limit("The most seconds that running requests have after SIGTERM or Ctrl-C.", "seconds"),
    ] = 30.0
    heartbeat_seconds: float = 15.0
    send_seconds: float = 60.0
    allowed_origins: tuple[str, ...] = ()
    local_only: bool = False
    allowed_hosts: tuple[str, ...] = ()
    shares_address: bool = False
    max_responses: Annotated[int, Limit("The most responses that are kept.")] = 10_000
    max_responses_per_key: Annotated[int, Limit("The most of them of one key.")] = 2000
    max_response_bytes: Annotated[int, Limit("Of all responses that are kept.", "bytes")] = (
        512 * MEBI
    )
    keep_seconds: Annotated[float, Limit("How many seconds a response is kept.", "seconds")] = (
        24 * 3600.0
    )
    max_file: Annotated[int, Limit("Of an uploaded file.", "bytes")] = 200 * MEBI
    max_files: int = 1000
    max_stored: Annotated[int, Limit("Of all files of one key.", "bytes")] = 2048 * MEBI
    upload_seconds: float = 600.0
    max_lines: int = 50_000
    max_batches: int = 100


def limit_flags() -> Iterator[LimitFlag]:
    """The settings that are flags of `unitok serve`."""
    for name, hint in get_type_hints(ServerSettings, include_extras=True).items():
        for limit in getattr(hint, "__metadata__", ()):
            kind = float if limit.unit == "seconds" else int
            yield LimitFlag(name, kind, getattr(ServerSettings, name), limit)
