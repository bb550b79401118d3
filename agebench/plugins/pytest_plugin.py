"""pytest: `--agebench-check NAME` adds the contract check of a dataset, model, head or detector to the tests.

pytest loads this module in every environment that has agebench, so agebench is imported only if a check is requested.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --agebench-check and --agebench-registry."""
    group = parser.getgroup("agebench")
    group.addoption(
        "--agebench-check",
        metavar="NAME",
        action="append",
        default=[],
        help="check the contract of a dataset, model, head or detector (repeatable); `all`: of all of them",
    )
    group.addoption(
        "--agebench-registry",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="one more folder with datasets/*.toml and models/*.toml (repeatable)",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test item for each check."""
    names = config.getoption("--agebench-check")
    if not names:
        return
    from agebench.errors import UserError
    from agebench.plugins.testing import find_checks

    try:
        checks = find_checks([] if "all" in names else names, config.getoption("--agebench-registry"))
    except UserError as error:
        raise pytest.UsageError(f"--agebench-check: {error}") from error
    items.extend(
        _Item.from_parent(session, name=f"agebench {check.kind} {check.name}", check=check.run) for check in checks
    )


class _Item(pytest.Item):
    def __init__(self, *, check: Callable[[], str], **options: Any) -> None:
        super().__init__(**options)
        self._check = check

    def runtest(self) -> None:
        self._check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the sentence of a violation; other errors keep their traceback."""
        from agebench.errors import AgebenchError
        from agebench.plugins.testing import ContractViolation

        if isinstance(excinfo.value, ContractViolation | AgebenchError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name
