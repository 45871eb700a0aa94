"""The packs and their reports, as a page shows them."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup, escape

from models.packs import Pack, PackError, load_pack, shipped_packs
from node.settings import Settings

REPORTS = (
    ("card", "MODEL_CARD.md", "Model card"),
    ("evaluation", "evaluation.md", "Evaluation"),
    ("explanations", "explanations.md", "Can its explanations be trusted?"),
)
"""Of each its anchor, its file in the pack and its title."""

_PICTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.png")
_LONGEST_REPORT = 2_000_000  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelved:
    """A pack, or why the folder is none."""

    folder: Path
    pack: Pack | None = None
    fault: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report of a pack, as HTML."""

    anchor: str
    title: str
    html: Markup


class Shelf:
    """The packs that the node would load; checked once, when somebody first asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._held: tuple[Shelved, ...] | None = None

    def all(self) -> tuple[Shelved, ...]:
        """Every pack, those that cannot be used too."""
        with self._lock:
            if self._held is None:
                folders = (*shipped_packs(), *self._settings.analysis.packs)
                self._held = tuple(_shelved(folder) for folder in folders)
            return self._held

    def packs(self) -> tuple[Pack, ...]:
        """Those that can be used."""
        return tuple(item.pack for item in self.all() if item.pack is not None)

    def find(self, name: str) -> Pack | None:
        """The pack of this name that the node would load."""
        found = [pack for pack in self.packs() if pack.manifest.name == name]
        return found[-1] if found else None


def shelf_of(state: Any, settings: Settings) -> Shelf:
    """The one of a site."""
    made: Shelf | None = getattr(state, "shelf", None)
    if made is None:
        made = state.shelf = Shelf(settings)
    return made


def reports_of(pack: Pack) -> tuple[Report, ...]:
    """The reports that a pack has and that can be read."""
    made = []
    for anchor, file, title in REPORTS:
        text = _read(pack.folder / file)
        if text:
            html = _to_html(text, pack.manifest.name, anchor)
            made.append(Report(anchor=anchor, title=title, html=html))
    return tuple(made)


def picture_path(pack: Pack, name: str) -> Path | None:
    """A picture of a pack's reports; None where there is none of this name."""
    path = pack.folder / name
    if not _PICTURE.fullmatch(name) or path.is_symlink() or not path.is_file():
        return None
    return path


def _shelved(folder: Path) -> Shelved:
    try:
        return Shelved(folder=folder, pack=load_pack(folder))
    except PackError as error:
        return Shelved(folder=folder, fault=str(error))


def _read(path: Path) -> str:
    try:
        if path.is_symlink() or path.stat().st_size > _LONGEST_REPORT:
            return ""
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _to_html(text: str, pack: str, anchor: str) -> Markup:
    """Markdown as HTML. What is HTML in it is shown as it is written, and does nothing."""
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    tokens = markdown.parse(text)
    environment = {"pack": pack, "anchor": anchor}
    # A template of ours puts it into a page; the renderer escapes all that is text.
    return Markup(markdown.renderer.render(tokens, markdown.options, environment))  # noqa: S704


class _Renderer(RendererHTML):
    """Headings below those of the page, pictures of the pack only, links that lead somewhere."""

    def heading_open(
        self, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: Any
    ) -> str:
        return f"<h{_level(tokens[index])}>"

    def heading_close(
        self, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: Any
    ) -> str:
        return f"</h{_level(tokens[index])}>\n"

    def table_open(
        self, _tokens: Sequence[Token], _index: int, _options: OptionsDict, _env: Any
    ) -> str:
        return '<div class="wide" role="group" aria-label="Table"><table>\n'

    def table_close(
        self, _tokens: Sequence[Token], _index: int, _options: OptionsDict, _env: Any
    ) -> str:
        return "</table></div>\n"

    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
        token = tokens[index]
        source = str(token.attrGet("src") or "")
        alternative = escape(self.renderInlineAsText(token.children, options, env))
        if not _PICTURE.fullmatch(source):
            return str(alternative)
        address = f"/packs/{quote(env['pack'])}/pictures/{quote(source)}"
        return f'<img src="{escape(address)}" alt="{alternative}" loading="lazy">'

    def link_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
        token = tokens[index]
        address = str(token.attrGet("href") or "")
        anchors = {file: anchor for anchor, file, _ in REPORTS}
        if address in anchors:
            token.attrSet("href", f"#{anchors[address]}")
        elif urlsplit(address).scheme in ("http", "https"):
            token.attrSet("rel", "noreferrer noopener external")
        else:
            token.attrSet("href", f"#{env['anchor']}")
        return self.renderToken(tokens, index, options, env)


def _level(token: Token) -> int:
    return min(6, int(token.tag[1:]) + 2)
