"""The project's own files: workflows, forms, container, citation, changelog and the pages for contributors."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from manual_site import load_hooks

from agebench import __version__
from agebench.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
PAGES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
HOOKS = load_hooks()
TUTORIALS = (ROOT / "docs" / "tutorials").glob("*.md")
# Pages and notebooks that the build of the site writes.
GENERATED = {ROOT / "docs" / page for page in HOOKS.PAGES} | {page.with_suffix(".ipynb") for page in TUTORIALS}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
# Programs that workflows may start beside make and agebench.
PROGRAMS = {"cp", "echo", "gh", "git", "grep", "head", "mkdir", "tail", "tee", "test", "tr", "xargs"}


class OneValueLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, as GitHub does; PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice} twice"
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    content = yaml.load(path.read_text(encoding="utf-8"), OneValueLoader)
    assert isinstance(content, dict), path
    return content


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None, f"constraints.txt does not pin {package}"
    return found[1]


def shell_blocks(page: Path) -> list[str]:
    return re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def check_commands(script: str) -> int:
    """Check all calls of make and agebench in a shell script; return their number."""
    parser, count = build_parser(COMMANDS), 0
    for line in script.splitlines():
        command = re.split(r"  +#| 2>&1| < | > ", line.strip())[0].split(" | ")[0]
        words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "VALUE", command))
        if "make" in words[:1]:
            targets = [word for word in words[1:] if "=" not in word]
            assert targets, line
            assert set(targets) <= TARGETS, line
            count += 1
        at = next((index for index, word in enumerate(words) if Path(word).name == "agebench"), None)
        if at is not None and (at == 0 or words[0] == "xargs"):
            parser.parse_args([*words[at + 1 :], *(["FILE"] if words[0] == "xargs" else [])])
            count += 1
    return count


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in load_yaml(workflow)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_jobs_and_least_rights(workflow: Path) -> None:
    content = load_yaml(workflow)
    assert True in content, "no key `on` (YAML reads it as true)"
    assert content["permissions"], "the token needs explicit rights"
    for job in content["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w./-]+@[\w./-]+", step["uses"]), step


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_commands_that_exist(workflow: Path) -> None:
    for step in steps(workflow):
        script = step.get("run", "")
        check_commands(script)
        # No value of an event is pasted into a script: a branch may be called `$(command)`.
        assert not re.search(r"\$\{\{ *github\.(event|head_ref)", script), step
        for line in filter(None, script.splitlines()):
            program = shlex.split(re.sub(r"^\w+=\$\(|^\{ ", "", line.strip()).replace("'", ""), posix=False)[0]
            name = Path(program).name
            assert name in PROGRAMS | {"make", "agebench", "python"}, line


def test_records_are_checked_without_rights_of_the_repository() -> None:
    records, comment = (load_yaml(GITHUB / "workflows" / f"{name}.yml") for name in ("records", "records-comment"))
    assert records["permissions"] == {"contents": "read"}
    assert comment[True]["workflow_run"]["workflows"] == [records["name"]]
    # The workflow that may write does not check out the pull request.
    assert not any("checkout" in step.get("uses", "") for step in steps(GITHUB / "workflows" / "records-comment.yml"))
    scripts = " ".join(step.get("run", "") for step in steps(GITHUB / "workflows" / "records.yml"))
    assert "agebench results check" in scripts
    assert "agebench results row" in scripts


def test_tests_run_on_every_python_version_that_is_announced() -> None:
    matrix = load_yaml(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    meta = project()["project"]
    announced = re.findall(r"Python :: (3\.\d+)", " ".join(meta["classifiers"]))
    assert matrix["python"] == announced
    assert meta["requires-python"] == f">={announced[0]}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for dependencies in [*matrix["dependencies"], *(entry["dependencies"] for entry in matrix["include"])]:
        assert f"\nINSTALL_{dependencies} = " in makefile


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_form_has_the_fields_that_github_requires(form: Path) -> None:
    content = load_yaml(form)
    assert content["name"]
    assert content["description"]
    fields = content["body"]
    assert all(field["type"] in ("input", "textarea", "dropdown", "checkboxes", "markdown") for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert len({field["attributes"]["label"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_citation_agrees_with_the_package() -> None:
    citation, meta = load_yaml(ROOT / "CITATION.cff"), project()["project"]
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert citation["title"] == meta["name"]
    assert citation["version"] == __version__
    assert citation["license"] == meta["license"]
    assert citation["keywords"] == meta["keywords"]


def test_hooks_use_the_pinned_ruff_and_the_prose_check() -> None:
    ruff, local = load_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert ruff["rev"] == f"v{pinned('ruff')}"
    (prose,) = local["hooks"]
    assert (ROOT / prose["entry"].split()[1]).is_file()
    assert re.match(prose["files"], "agebench/cli/run.py")
    assert re.match(prose["files"], "docs/how-to/submit.md")


def test_coverage_has_a_threshold_and_a_pinned_tool() -> None:
    assert project()["tool"]["coverage"]["report"]["fail_under"] == 90
    extra = " ".join(project()["project"]["optional-dependencies"]["test"])
    assert "coverage>=" in extra
    assert pinned("coverage")


def test_development_container_installs_by_existing_targets() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert check_commands(container["postCreateCommand"]) == 1


def test_dockerfile_copies_what_exists_and_runs_without_root() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    context = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert set(sources) == context
    assert all((ROOT / source).exists() for source in sources)
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER agebench"]
    assert lines.index(users[0]) > max(index for index, line in enumerate(lines) if line.startswith("RUN "))
    # The comment at the top shows how to use the image.
    shown = [line.partition(" agebench ")[2] for line in lines if line.startswith("#   docker run")]
    parser = build_parser(COMMANDS)
    for line in shown:
        words = shlex.split(line)
        if "--help" not in words:
            assert parser.parse_args(words).command == words[0]
    assert any(line.startswith("demo ") for line in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_links_to_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        target = (page.parent / link).resolve()
        assert link.startswith("https://") or target in GENERATED or target.exists(), link


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/how-to/submit.md"])
def test_page_for_contributors_shows_commands_that_exist(page: str) -> None:
    assert sum(check_commands(block) for block in shell_blocks(ROOT / page)) >= 3


def test_pages_that_the_code_names_exist() -> None:
    sources = [ROOT / "Makefile", *(ROOT / "agebench").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    sources += [*(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "registry").rglob("*.toml")]
    named = {
        (page, source.name)
        for source in sources
        for page in re.findall(r"\bdocs/[\w/-]+\.md", source.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    assert [entry for entry in sorted(named) if not (ROOT / entry[0]).is_file()] == []


def test_the_walk_through_shows_a_valid_card(tmp_path: Path) -> None:
    from agebench.registry.catalog import load_catalog

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (card,) = re.findall(r"^ *```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "meadow.toml").write_text(card)
    catalog = load_catalog([tmp_path])
    assert catalog.datasets.broken() == {}
    assert catalog.datasets.get("meadow").count == 120


def test_changelog_keeps_the_form_and_fixes_only_releases() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    headings = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    # Before the first release nothing can be fixed that a release had.
    assert len(versions) > 1 or "Fixed" not in headings
    assert not re.search(r"^- (Fixed|Changed)\b", text, re.MULTILINE)


def test_no_package_archive_or_large_file_is_tracked() -> None:
    """The model that ships with the package is the largest file; a wheel or an archive in a folder is an accident."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 1000
    archives = {".whl", ".gz", ".zip", ".tar", ".tgz", ".xz", ".7z"}
    wrong = [path for path in files if path.suffix in archives or (path.is_file() and path.stat().st_size > 8_000_000)]
    assert not wrong
