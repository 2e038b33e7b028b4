"""Draw the house from the package's own imports: `python docs/make_house_picture.py`.

Writes docs/house.svg: the folders in the order of the contract in pyproject.toml, what is in each,
and an arrow for every import between folders that does not follow from the other arrows.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGE = "groupnorm_bench"
PICTURE = ROOT / "docs" / "house.svg"
WIDTH, LEFT, BOX, LINE, GAP = 960, 20, 600, 17, 10
NAME = 110  # where the modules of a folder begin
LETTERS = 66  # of one line of module names


def layers() -> list[list[str]]:
    """Return the names in each layer, the top one first, as the contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (house,) = [contract for contract in contracts if contract["type"] == "layers"]
    return [
        [name.strip() for name in line.replace(":", "|").split("|")]
        for line in house["layers"]
        if not line.startswith("(")
    ]


def imports(graph: grimp.ImportGraph, names: list[str]) -> dict[str, set[str]]:
    """Return whom each folder imports, less what follows from the rest."""
    direct: dict[str, set[str]] = {name: set() for name in names}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            one, other = (_folder(part) for part in (module, imported))
            if one in direct and other in direct and one != other:
                direct[one].add(other)
    reached: dict[str, set[str]] = {}
    for name in reversed(names):  # from the bottom of the house up
        reached[name] = set().union(*({n} | reached.get(n, set()) for n in direct[name]), set())
    return {
        name: {
            one
            for one in direct[name]
            if not any(one in reached.get(other, set()) for other in direct[name] - {one})
        }
        for name in names
    }


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def content(graph: grimp.ImportGraph, name: str) -> list[str]:
    """Return the lines that tell what is in a folder."""
    inside = sorted(
        module.rpartition(".")[2] + ("/" if graph.find_children(module) else "")
        for module in graph.find_children(f"{PACKAGE}.{name}")
    )
    lines = [""]
    for word in (word for word in inside if word != "__main__"):
        if len(lines[-1]) + len(word) > LETTERS:
            lines.append("")
        lines[-1] += word + ", "
    return [line.rstrip(", ") for line in lines]


def draw() -> str:
    """Return the picture as SVG."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    rows = layers()
    names = [name for row in rows for name in row]
    lines = {name: content(graph, name) for name in names}
    places: dict[str, tuple[float, float]] = {}
    y, parts = 20.0, []
    for row in rows:
        for name in row:
            height = 14 + LINE * len(lines[name])
            places[name] = (y, height)
            parts.append(
                f'<rect x="{LEFT}" y="{y:g}" width="{BOX}" height="{height}" rx="6" class="box"/>'
                f'<text x="{LEFT + 12}" y="{y + 20:g}" class="name">{escape(name)}</text>'
            )
            parts += [
                f'<text x="{LEFT + NAME + 20}" y="{y + 20 + LINE * i:g}" class="in">'
                f"{escape(line)}</text>"
                for i, line in enumerate(lines[name])
            ]
            y += height + GAP
        y += GAP / 2
    parts += _arrows(imports(graph, names), places)
    style = (
        "text{font-family:Helvetica,Arial,sans-serif}.box{fill:#f6f8fa;stroke:#8c959f}"
        ".name{font-size:14px;font-weight:bold;fill:#1f2328}.in{font-size:12px;fill:#59636e}"
        ".arrow{fill:none;stroke:#0969da;stroke-width:1.2}.tip{fill:#0969da}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10:g}" '
        f'width="{WIDTH}" height="{y + 10:g}">\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _arrows(edges: dict[str, set[str]], places: dict[str, tuple[float, float]]) -> list[str]:
    """Return an arc, right of the boxes, for each import; the farther it goes, the wider."""
    order = list(places)
    parts = []
    right = LEFT + BOX
    for name in order:
        wanted = sorted(edges[name], key=order.index)
        for i, other in enumerate(wanted):
            top, height = places[name]
            start = top + height * (i + 1) / (len(wanted) + 1)
            callers = [one for one in order if other in edges[one]]
            top, height = places[other]
            # the nearest caller arrives highest, so that arcs to one box do not cross
            rank = callers[::-1].index(name)
            end = top + height * (rank + 1) / (len(callers) + 1)
            bend = right + 24 + 22 * abs(order.index(other) - order.index(name))
            parts.append(
                f'<path class="arrow" d="M{right} {start:.1f}C{bend} {start:.1f} '
                f'{bend} {end:.1f} {right + 7} {end:.1f}"/>'
                f'<path class="tip" d="M{right} {end:.1f}l8 -3.5v7z"/>'
            )
    return parts


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
