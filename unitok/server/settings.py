"""What a server is told when it starts."""

from dataclasses import dataclass

MEBI = 2**20


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

    max_requests: int = 256
    max_per_key: int | None = None
    max_n: int = 16
    max_body: int = 32 * MEBI
    max_bodies: int = 256 * MEBI
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024
    head_seconds: float = 30.0
    body_seconds: float = 60.0
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    heartbeat_seconds: float = 15.0
    send_seconds: float = 60.0
    allowed_origins: tuple[str, ...] = ()
    local_only: bool = False
    allowed_hosts: tuple[str, ...] = ()
    shares_address: bool = False
    max_responses: int = 10_000
    max_responses_per_key: int = 2000
    max_response_bytes: int = 512 * MEBI
    keep_seconds: float = 24 * 3600.0
    max_file: int = 200 * MEBI
    max_files: int = 1000
    max_stored: int = 2048 * MEBI
    upload_seconds: float = 600.0
    max_lines: int = 50_000
    max_batches: int = 100
