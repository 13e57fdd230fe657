"""A run's report as one HTML file that needs nothing else: no server, no script, no asset from anywhere.

    page = Page("SFT on the demo world", "600 training samples, 100 held out")
    page.verdict("Quality gate: PASS", True, ["reward 0.93, lower bound 0.90 > 0.80"])
    page.text("## Training\\nLoss per supervised token.")
    page.figure("Training loss", line_chart(...))
    page.table(["stage", "seconds"], [["sft", 208.4]])
    page.write(run.path / "report.html")

Whatever goes in is text: it is escaped, and a content policy in the page forbids scripts and connections.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.report.plots import Image
from trainer.report.style import STYLE
from trainer.run_folder import write_atomic

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SCROLL = '<div class="scroll" tabindex="0">'  # wide content is scrolled here, by keyboard too
_INLINE = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\[([^\]]+)\]\((#[\w-]+|https?://[^\s)\"]+)\)")


class Page:
    """Collects the parts of a report in order; `html` or `write` ends it."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []

    def text(self, markdown: str) -> Page:
        """Adds prose: paragraphs, `## ` and `### ` headings, `- ` lists, fenced code, `code`, **bold**, [link](url)."""
        blocks = re.split(r"^```[^\n`]*\n(.*?)^```[ ]*$", markdown.strip("\n"), flags=re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            if number % 2:
                self._parts.append(f"<pre>{html.escape(block.rstrip())}</pre>")
            else:
                self._prose(block)
        return self

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Page:
        """Adds a table. Numbers are set right; floats get three decimals, None is a dash."""
        numeric = [
            all(row[column] is None or _is_number(row[column]) for row in rows) and bool(rows)
            for column in range(len(headers))
        ]
        marks = [' class="number"' if flag else "" for flag in numeric]
        head = "".join(f"<th{mark}>{_inline(name)}</th>" for mark, name in zip(marks, headers, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{mark}>{_cell(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
            for row in rows
        )
        title = f"<caption>{_inline(caption)}</caption>" if caption else ""
        self._parts.append(f"{_SCROLL}<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        return self

    def figure(self, caption: str, image: Image) -> Page:
        """Adds a figure (trainer.report.plots) with its caption, which also is its text for screen readers."""
        label = html.escape(re.sub(r"[`*]", "", caption), quote=True)
        drawing = image.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        self._parts.append(f"<figure>{_SCROLL}{drawing}</div><figcaption>{_inline(caption)}</figcaption></figure>")
        return self

    def figures(self, values: Mapping[str, object]) -> Page:
        """Adds the few numbers that a reader came for, big, side by side: name → value."""
        tiles = "".join(f"<div><dt>{_inline(name)}</dt><dd>{_cell(value)}</dd></div>" for name, value in values.items())
        self._parts.append(f'<dl class="tiles">{tiles}</dl>')
        return self

    def verdict(self, label: str, ok: bool | None, reasons: Sequence[str] = ()) -> Page:
        """Adds the big box. `ok` is True (passed), False (failed) or None (not decided)."""
        kind, sign = {True: ("passed", "✓"), False: ("failed", "✗"), None: ("open", "?")}[ok]
        items = "".join(f"<li>{_inline(reason)}</li>" for reason in reasons)
        body = f"<ul>{items}</ul>" if items else ""
        self._parts.append(
            f'<section class="verdict {kind}"><p class="sign" aria-hidden="true">{sign}</p>'
            f'<div><p class="label">{_inline(label)}</p>{body}</div></section>'
        )
        return self

    def html(self) -> str:
        """The whole page."""
        title = html.escape(self.title)
        subtitle = f'<p class="subtitle">{_inline(self.subtitle)}</p>' if self.subtitle else ""
        links = "".join(f'<a href="#{anchor}">{_inline(name)}</a>' for anchor, name in self._sections)
        contents = f'<nav aria-label="Sections">{links}</nav>' if len(self._sections) > 2 else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head>\n'
            f"<body><main><header><h1>{title}</h1>{subtitle}{contents}</header>\n"
            + "\n".join(self._parts)
            + "\n</main></body></html>\n"
        )

    def write(self, path: Path | str) -> Path:
        """Writes the page whole or not at all, readable by its owner (it may quote prompts); returns its path."""
        target = Path(path)
        write_atomic(target, self.html(), 0o600)
        return target

    def _prose(self, text: str) -> None:
        for block in re.split(r"\n\s*\n", text):
            waiting: list[str] = []
            items: list[str] = []
            for line in block.splitlines():
                heading = re.match(r"(#{2,3}) +(.+)", line)
                if heading or (items and not line.startswith(("- ", "  "))):
                    self._flush(waiting, items)
                if heading:
                    self._heading(len(heading[1]), heading[2])
                elif line.startswith("- "):
                    self._flush(waiting, [])
                    items.append(line[2:])
                elif items:
                    items[-1] += " " + line.strip()
                elif line.strip():
                    waiting.append(line.strip())
            self._flush(waiting, items)

    def _flush(self, lines: list[str], items: list[str]) -> None:
        if lines:
            self._parts.append(f"<p>{_inline(' '.join(lines))}</p>")
            lines.clear()
        if items:
            self._parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
            items.clear()

    def _heading(self, level: int, text: str) -> None:
        anchor = f"s{len(self._sections) + 1}"
        if level == 2:
            self._sections.append((anchor, text))
            self._parts.append(f'<h2 id="{anchor}">{_inline(text)}</h2>')
        else:
            self._parts.append(f"<h3>{_inline(text)}</h3>")


def _inline(text: str) -> str:
    """Escaped text with `code`, **bold** and [links](url)."""
    parts: list[str] = []
    position = 0
    for match in _INLINE.finditer(text):
        parts.append(html.escape(text[position : match.start()]))
        code, bold, label, url = match.groups()
        if code is not None:
            parts.append(f"<code>{html.escape(code)}</code>")
        elif bold is not None:
            parts.append(f"<strong>{html.escape(bold)}</strong>")
        else:
            parts.append(f'<a href="{html.escape(url, quote=True)}">{html.escape(label)}</a>')
        position = match.end()
    return "".join(parts) + html.escape(text[position:])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return _inline(str(value))
