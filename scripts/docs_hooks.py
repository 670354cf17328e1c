"""What mkdocs does beside its own work to make the site of the documentation.

The pages are the Markdown files of the project as they are. So README.md is the start page, links
into the repository lead to pages, and comments such as `<!-- requests -->` become tables that are
made of the code.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.docs_tables import command_sections, recipe_sections, request_sections

ROOT = Path(__file__).resolve().parents[1]
MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
GENERATED: dict[str, Callable[[], str]] = {
    "<!-- requests -->": request_sections,
    "<!-- commands -->": command_sections,
    "<!-- recipe -->": recipe_sections,
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")  # the path of a link in Markdown


def on_config(config: MkDocsConfig) -> None:
    """Fill in the patterns of the navigation, each with the pages that nothing else names."""
    pages = sorted(
        p.relative_to(config.docs_dir).as_posix() for p in Path(config.docs_dir).rglob("*.md")
    )
    config.nav = filled_in(config.nav or [], pages)


def filled_in(nav: list[dict[str, Any]], pages: list[str]) -> list[dict[str, Any]]:
    """A navigation with patterns such as "guide/*.md" replaced by the pages that they match.

    Args:
        nav: Titles, each with a page or the list of its pages.
        pages: All pages. Those that the navigation names are not matched.
    """
    sections = [(title, inner) for entry in nav for title, inner in entry.items()]
    named = {
        name for _, inner in sections for name in ([inner] if isinstance(inner, str) else inner)
    }
    left = [page for page in pages if page not in named]
    return [
        {title: inner if isinstance(inner, str) else [p for n in inner for p in _matches(n, left)]}
        for title, inner in sections
    ]


def _matches(name: str, pages: list[str]) -> list[str]:
    """The page of that name or, for a pattern, all that match it."""
    if "*" not in name:
        return [name]
    folder = posixpath.dirname(name)
    return [page for page in pages if posixpath.dirname(page) == folder]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages from outside docs/, and a page for each source file that a page links to."""
    for source, target in MOVED.items():
        files.append(
            File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8"))
        )
    for path in sorted(linked_sources(files)):
        files.append(File.generated(config, page_of(path), content=shown_source(path)))


def linked_sources(files: Files) -> set[str]:
    """The files of the repository that pages link to, and that are no pages themselves."""
    linked = set()
    for file in files.documentation_pages():
        here = path_of(file.src_uri)
        for target in _LINK.findall(file.content_string):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
            if (ROOT / path).is_file() and page_of(path).startswith("source/"):
                linked.add(path)
    return linked


def shown_source(path: str) -> str:
    """A page that shows a file of the repository."""
    language = "python" if path.endswith(".py") else "text"
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# {path}\n\n````{language}\n{text}````\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made of the code, and lead links to where the site has their targets."""
    for mark, made in GENERATED.items():
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return with_links_of_the_site(markdown, page.file.src_uri)


def with_links_of_the_site(markdown: str, uri: str) -> str:
    """A page whose links are paths in the repository, with links that are paths in the site."""
    here = posixpath.dirname(path_of(uri))

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link[1]))
        if not (ROOT / path).exists():
            return link[1]  # mkdocs reports it
        return posixpath.relpath(page_of(path), posixpath.dirname(uri) or ".")

    return _LINK.sub(moved, markdown)


def page_of(path: str) -> str:
    """Where the site has a file of the repository.

    Args:
        path: From the root of the repository.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return MOVED.get(path, f"source/{path}.md")


def path_of(uri: str) -> str:
    """The file of the repository that a page is made of: `page_of` backwards."""
    back = {target: source for source, target in MOVED.items()}
    return back.get(uri, f"docs/{uri}")
