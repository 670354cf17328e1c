# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""The conversation format as a chat template, for folders that bring none of their own."""

import hashlib
import json
from pathlib import Path

from unitok.families.janus import JanusFolder
from unitok.saving import write_whole

# As `Template`: a blank line ends a user's turn, end-of-sentence the model's. vLLM puts a picture's
# placeholder on a line of its own.
TEMPLATE = """
{%- set turns = messages -%}
{%- set system = SYSTEM -%}
{%- if messages and messages[0].role == "system" -%}
{%- set system = messages[0].content -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
{{- BOS -}}
{%- if system.strip() -%}{{- system.lstrip() + "\\n\\n" -}}{%- endif -%}
{%- for turn in turns -%}
{%- if turn.role == "user" -%}
{{- USER + ": " + turn.content.strip() + "\\n\\n" -}}
{%- elif turn.role == "assistant" -%}
{{- ASSISTANT + ": " + turn.content.strip() + EOS -}}
{%- else -%}
{{- raise_exception("a message is of user, assistant, or first of all of system") -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT + ":" -}}{%- endif -%}
"""


def chat_template(folder: JanusFolder) -> str:
    """The conversation format of a folder, as Jinja."""
    template, text = folder.template, TEMPLATE.strip()
    words = {
        "SYSTEM": folder.defaults.system,
        "BOS": template.bos,
        "USER": template.user,
        "ASSISTANT": template.assistant,
        "EOS": template.eos,
    }
    named = "".join(
        f"{{%- set {name} = {json.dumps(word, ensure_ascii=False)} -%}}\n"
        for name, word in words.items()
    )
    return named + text


def write_template(folder: JanusFolder) -> Path:
    """A file with the format, in vLLM's cache, as vLLM takes templates by their paths."""
    from vllm import envs

    text = chat_template(folder).encode()
    name = hashlib.sha256(text).hexdigest()[:16]
    path = Path(envs.VLLM_CACHE_ROOT) / "unitok" / f"{name}.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(text, path)  # another server may be reading it
    return path
