"""Reports are one file, need nothing from outside, and show what they were given."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.report.page import Page
from trainer.report.plots import Image, bar_chart, heat_map, interval_chart, line_chart, smoothed

SVG = "{http://www.w3.org/2000/svg}"


def texts(image: Image) -> list[str]:
    """Every piece of text in a figure; fails where it is not well-formed XML."""
    return ["".join(node.itertext()).strip() for node in ElementTree.fromstring(image).iter(f"{SVG}text")]


class Reader(HTMLParser):
    """Checks that tags close in order, and collects text and addresses."""

    VOID = frozenset({"meta", "br", "path", "use", "rect", "image"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def sample_page() -> Page:
    page = Page("A run", "100 held-out prompts")
    page.verdict("Quality gate: FAIL", False, ["reward 0.70, lower bound **0.62** < 0.80"])
    page.figures({"reward": 0.7, "traces": 1200})
    page.text("## First\nSome `code`.\n\n- one\n- two\n\n## Second\n### Deeper\n```\n$ x <y>\n```\n## Third\nEnd.")
    page.figure("Loss", line_chart({"a": [(0, 1.0), (1, 0.5)]}, "step", "loss"))
    page.figure("Again", line_chart({"a": [(0, 1.0), (1, 0.7)]}, "step", "loss"))
    page.table(["stage", "seconds", "n"], [["sft", 208.4, 12345], ["ppo", None, 3]], "Stages")
    return page


def test_a_page_is_one_file_that_reaches_for_nothing(tmp_path: Path) -> None:
    file = sample_page().write(tmp_path / "run" / "report.html")
    content = file.read_text("utf-8")
    reader = Reader(content)
    assert all(address.startswith("#") for address in reader.addresses)
    assert not {"script", "link", "img", "iframe"}.intersection(reader.seen)
    assert "default-src 'none'" in content
    assert "@import" not in content
    assert "url(" not in re.sub(r"url\(#", "", content)
    assert file.stat().st_mode & 0o777 == 0o600


def test_every_part_is_on_the_page_in_order() -> None:
    content = sample_page().html()
    words = " ".join(" ".join(Reader(content).words).split())
    parts = [
        "Quality gate: FAIL",
        "0.62",
        "0.700",
        "1,200",
        "Some",
        "two",
        "$ x <y>",
        "End.",
        "Loss",
        "208.400",
        "12,345",
    ]
    places = [words.index(part) for part in parts]
    assert places == sorted(places)
    assert '<nav aria-label="Sections">' in content
    assert 'class="verdict failed"' in content
    assert '<td class="number">–</td>' in content


def test_ids_are_unique_within_a_page() -> None:
    ids = re.findall(r'\bid="([^"]+)"', sample_page().html())
    assert len(ids) == len(set(ids))


def test_what_is_not_decided_looks_neither_passed_nor_failed() -> None:
    content = Page("x").verdict("Blind test: INCONCLUSIVE", None, []).html()
    assert 'class="verdict open"' in content


@given(text=st.text(max_size=200))
def test_no_text_can_become_markup(text: str) -> None:
    page = Page(text, text)
    hostile = text + "<script>alert(1)</script><img src=x>"
    page.text(hostile).verdict(hostile, True, [hostile]).table([hostile], [[hostile]]).figures({hostile: hostile})
    page.figure(hostile, Image("<svg ></svg>"))
    seen = Reader(page.html()).seen
    assert "script" not in seen
    assert "img" not in seen


def test_links_are_web_addresses_or_anchors() -> None:
    content = Page("x").text("[a](https://example.org/a) [b](javascript:alert) [c](#s1)").html()
    assert Reader(content).addresses == ["https://example.org/a", "#s1"]


def test_curves_are_named_and_axes_labelled() -> None:
    image = line_chart(
        {"training": [(0, 3.0), (1, 1.0)], "validation": [(0, 3.1)]}, "step", "nats", lines={"floor": 0.5}
    )
    assert {"training", "validation", "step", "nats", "floor"} <= set(texts(image))
    assert "currentColor" in image
    assert "#010203" not in image


def test_a_logarithmic_curve_leaves_out_what_has_no_logarithm() -> None:
    image = line_chart({"loss": [(0, 10.0), (1, 0.0), (2, math.nan), (3, 0.1)]}, "step", "loss", log=True)
    assert {"10", "1", "0.1"} <= set(texts(image))


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(TrainerError, match="no finite point for 'loss'"):
        line_chart({"a": [(0, math.nan)]}, "step", "loss")
    with pytest.raises(TrainerError, match="2 groups, but values for a: 1"):
        bar_chart(["x", "y"], {"a": [1.0]})
    with pytest.raises(TrainerError, match="a matrix of 1 rows for 2 × 1 names"):
        heat_map([[1]], ["a", "b"], ["c"])


def test_bars_show_their_values_and_what_does_not_apply() -> None:
    image = bar_chart(
        ["tool use", "depth"],
        {"untrained": [-0.5, None], "SFT": [0.91, 0.8]},
        {"SFT": [(0.85, 0.96), None]},
        ylabel="component",
        limits=(-1, 1),
    )
    assert {"−0.50", "n/a", "0.91", "0.80", "tool use", "depth", "untrained", "SFT"} <= set(texts(image))


def test_a_heat_map_writes_its_numbers_and_names() -> None:
    image = heat_map(
        [[12, 1], [0, 7]], ["Bash", "Read"], ["Bash", "Read"], xlabel="student", ylabel="teacher", shares=True
    )
    found = texts(image)
    assert sorted(found) == sorted(["12", "1", "7", "Bash", "Read", "Bash", "Read", "student", "teacher"])


def test_the_same_figure_has_the_same_bytes() -> None:
    points = {"a": [(n, n * n % 17) for n in range(50)]}
    assert line_chart(points, "x", "y") == line_chart(points, "x", "y")


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), span=st.integers(1, 30))
def test_smoothing_stays_within_what_it_has_seen(values: list[float], span: int) -> None:
    for index, value in enumerate(smoothed(values, span)):
        seen = values[: index + 1]
        assert min(seen) - 1e-3 <= value <= max(seen) + 1e-3
    assert smoothed(values, 1) == values


def test_intervals_stand_beside_what_is_wanted() -> None:
    image = interval_chart(
        {"reward": (0.9, 0.85, 0.95), "alignment": (0.8, 0.7, 0.9)},
        "score",
        wanted={"reward": 0.8, "alignment": 0.85},
        marks={"floor": {"reward": -0.2}},
        line=("as before", 0.0),
    )
    shown = texts(image)
    assert {"reward", "alignment", "0.90", "0.80", "wanted", "floor", "as before", "score"} <= set(shown)
    assert image.startswith('<svg style="min-width: 0; max-width:'), "it shrinks to a phone"
    with pytest.raises(TrainerError, match="no interval"):
        interval_chart({})
