"""The server: OpenAI's API over one engine.

It only translates. A body becomes requests (`unitok.openai_wire`), requests become jobs of the
model's driver, and the driver's events become bodies and streams. The life of a request:

1. `gate` gives it an id, checks its headers and its key, and counts it.
2. `admission` takes it in, or refuses it with 503 or 429, before its body is read.
3. `bodies` reads the body within limits.
4. An endpoint (`completions`, `generations`, ...) makes requests of it and hands them to `running`.
5. `running` waits for results, or passes events on, and cancels all if the client goes away.
6. `sending` sends the response. The request counts until its client has taken all of it.
"""
