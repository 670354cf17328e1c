"""The bodies of OpenAI's API: what they ask for, and how results are told.

These are pure functions, from a body to a request and from a result to a body: `chat` for
/v1/chat/completions, `images` for /v1/images/generations, `edits` for /v1/images/edits,
`responses` for /v1/responses, and `body` for what all share. A key that is not supported is refused
by name, and one that is null counts as absent.
"""
