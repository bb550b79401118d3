"""Draw the import graph of the packages as Mermaid: `python tests/lint/architecture_diagram.py [--write]`.

`--write` replaces the diagram in docs/explanation/architecture.md. An arrow is an import that no longer path implies.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_architecture import LAYERS, SOURCES, imported_modules  # noqa: E402

_BLOCK = re.compile(r"```mermaid\n.*?```", re.DOTALL)


def import_graph() -> dict[str, set[str]]:
    """Return package -> packages that it imports at run time."""
    graph: dict[str, set[str]] = {}
    for module, path in SOURCES.items():
        package = [*module.split("."), "__init__"][1]
        others = {[*name.split("."), "__init__"][1] for name in imported_modules(path)}
        graph.setdefault(package, set()).update(others - {package})
    return graph


def _reachable(graph: dict[str, set[str]], package: str) -> set[str]:
    seen: set[str] = set()
    queue = [package]
    while queue:
        for other in graph.get(queue.pop(), set()) - seen:
            seen.add(other)
            queue.append(other)
    return seen


def diagram() -> str:
    """Return the Mermaid block: one box a layer, arrows from a package to what it imports."""
    shown = [[name for name in layer if not name.startswith("_")] for layer in LAYERS]
    known = {name for layer in shown for name in layer}
    graph = {name: others & known for name, others in import_graph().items()}
    lines = ["```mermaid", "flowchart TB"]
    for number, layer in reversed(list(enumerate(shown))):
        names = [name for name in layer if name in graph]
        if names:
            lines += [f"  subgraph layer{number}[ ]", *(f"    {name}" for name in names), "  end"]
    for package in (name for layer in reversed(shown) for name in layer):
        direct = graph.get(package, set())
        implied = set().union(*(_reachable(graph, other) for other in direct)) if direct else set()
        lines += [f"  {package} --> {other}" for other in sorted(direct - implied)]
    return "\n".join([*lines, "```"])


def main() -> int:
    """Print the diagram, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the diagram in docs/explanation/architecture.md")
    if parser.parse_args().write:
        PAGE.write_text(_BLOCK.sub(lambda _: diagram(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(diagram())
    return 0


if __name__ == "__main__":
    sys.exit(main())
