"""`unitok batch`: JSON lines become results and pictures, each result exactly once.

`source` reads lines, `entries` makes requests of them, `runner` runs these, and `journal` writes
what comes back. A line is in our own form (`own_lines`) or in that of OpenAI's Batch API
(`openai_lines`).
"""
