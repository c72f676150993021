"""Which files of this project a module imports, directly or not: what a DVC stage must list as its dependencies."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("iadsr", "stages")


def import_closure(module: str) -> set[str]:
    """Paths, relative to the root, of `module` and all project files that it imports, also inside functions.

    Imports under `if TYPE_CHECKING` do not run and do not count.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = module_file(waiting.pop())
        if path and str(path.relative_to(ROOT)) not in found:
            found.add(str(path.relative_to(ROOT)))
            waiting += imported(path)
    return found


def module_file(module: str) -> Path | None:
    """The file of a module or package of this project, None for any other name."""
    if module.split(".")[0] not in PACKAGES:
        return None
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)


def imported(path: Path) -> list[str]:
    """Names that a file imports: each may be a module; its parent packages run too."""
    names: list[str] = []
    for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [".".join(name.split(".")[: depth + 1]) for name in names for depth in range(name.count(".") + 1)]


def running_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    nodes: list[ast.AST] = [tree]
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            nodes += running_nodes(child)
    return nodes
