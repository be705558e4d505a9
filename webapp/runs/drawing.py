"""The picture of a model's descent: boxes and lines with their places, for the template to write as SVG."""

from __future__ import annotations

from typing import NamedTuple

from webapp.runs.lineage import COLUMNS, Lineage, Node

WIDTH, HEIGHT = 210, 52  # of a box
GAP, LEAD = 42, 22  # between columns, between rows
TOP = 34  # room for the columns' titles
LETTERS = 22  # what fits in a box
TITLES = {"labels": "Labels", "snapshot": "Snapshot", "run": "Run", "model": "Model", "deployment": "Deployment"}


class Box(NamedTuple):
    node: Node
    title: str
    x: int
    y: int
    text_x: int
    title_y: int
    detail_y: int


class Title(NamedTuple):
    text: str
    x: int


class Picture(NamedTuple):
    width: int
    height: int
    boxes: list[Box]
    lines: list[str]
    titles: list[Title]
    box_width: int = WIDTH
    box_height: int = HEIGHT


def draw_lineage(lineage: Lineage) -> Picture:
    """Columns stand side by side in the order of COLUMNS; those without a box are left out."""
    used = sorted({node.column for node in lineage.nodes})
    x_of_column = {column: 2 + index * (WIDTH + GAP) for index, column in enumerate(used)}
    boxes = {node.key: box(node, x_of_column[node.column]) for node in lineage.nodes}
    lines = [
        line(boxes[edge.source], boxes[edge.target], index) for index, edge in enumerate(sorted(set(lineage.edges)))
    ]
    rows = 1 + max(node.row for node in lineage.nodes)
    names = {column: TITLES[kind] for kind, column in COLUMNS.items()}
    return Picture(
        width=(WIDTH + GAP) * len(used) - GAP + 4,
        height=TOP + (HEIGHT + LEAD) * rows,
        boxes=list(boxes.values()),
        lines=lines,
        titles=[Title(names[column], x_of_column[column]) for column in used],
    )


def box(node: Node, x: int) -> Box:
    y = TOP + node.row * (HEIGHT + LEAD)
    title = node.title if len(node.title) <= LETTERS else node.title[: LETTERS - 1] + "…"
    return Box(node, title, x, y, x + 12, y + (22 if node.detail else 31), y + 40)


def line(source: Box, target: Box, index: int) -> str:
    """The path of an SVG line: across to the next column, or down the channel between two columns."""
    if target.x > source.x:
        start, end = (source.x + WIDTH, source.y + HEIGHT // 2), (target.x - 5, target.y + HEIGHT // 2)
        middle = (start[0] + end[0]) // 2
        return f"M{start[0]} {start[1]} C{middle} {start[1]} {middle} {end[1]} {end[0]} {end[1]}"
    shift = 6 + 4 * (index % 4)
    if target.x == source.x:  # a run that reads what another run wrote: down the channel on the left
        side, channel, arrive = source.x, source.x - shift, target.x - 5
    else:  # a model that a later run starts from: down the channel between runs and models
        side, channel, arrive = source.x, source.x - shift, target.x + WIDTH + 5
    return f"M{side} {source.y + HEIGHT - 12} H{channel} V{target.y + HEIGHT - 12} H{arrive}"
