"""Architecture tests: a package imports only from lower layers, and no import circle exists, late imports included."""

import ast
from pathlib import Path

import pytest

import agebench

# From the lowest layer to the highest; packages of one layer do not import one another.
LAYERS = (
    ("types", "_version", "_deprecated"),
    ("errors",),
    ("utils",),
    ("config",),
    ("registry",),
    ("data", "models", "metrics"),
    ("training",),
    ("estimators",),
    ("export",),
    ("reports",),
    ("runs",),
    ("analysis", "leaderboard"),
    ("suites",),
    ("inference", "hub"),
    ("api", "plugins"),
    ("cli", "integrations"),
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}
# Entry points stand above the layers and may import any of them lazily.
ENTRY_POINTS = {"__init__", "__main__"}
PACKAGE = Path(agebench.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported_modules(path: Path, *, type_checking: bool = False) -> set[str]:
    """The agebench modules that a file imports anywhere, function bodies included; those for type checkers alone if asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ignored = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING" and not type_checking
        for node in ast.walk(block)
    }
    modules = set()
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "agebench":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                modules.add(name if name in SOURCES else node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name in SOURCES}
    return modules


@pytest.mark.parametrize("module", SOURCES)
def test_imports_lower_layers_only(module: str) -> None:
    package = [*module.split("."), "__init__"][1]
    if package in ENTRY_POINTS:
        return
    assert package in RANK, f"agebench/{package} has no layer: give it one here and in docs/explanation/architecture.md"
    for imported in imported_modules(SOURCES[module], type_checking=True):
        other = [*imported.split("."), "__init__"][1]
        if other in ("_version", "__init__") or other == package:
            continue
        assert RANK[other] < RANK[package], f"{module} imports {imported} from its own layer or a higher one"


def test_no_import_circle() -> None:
    graph = {module: imported_modules(path) - {module, "agebench"} for module, path in SOURCES.items()}
    finished: set[str] = set()

    def visit(module: str, stack: tuple[str, ...]) -> None:
        assert module not in stack, f"import circle: {' -> '.join((*stack[stack.index(module) :], module))}"
        if module not in finished:
            for imported in sorted(graph[module]):
                visit(imported, (*stack, module))
            finished.add(module)

    for module in graph:
        visit(module, ())


def test_metrics_imports_no_torch() -> None:
    for path in (PACKAGE / "metrics").rglob("*.py"):
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {name for name in names if name.split(".")[0] in ("torch", "timm", "torchvision")}, path


def test_the_architecture_page_names_every_package() -> None:
    page = (PACKAGE.parent / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    packages = {[*module.split("."), "__init__"][1] for module in SOURCES}
    assert not {name for name in packages if f"`{name}`" not in page and not name.startswith("_")}
