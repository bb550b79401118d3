# `make demo` and `make test` set up .venv by themselves; neither installs again while pyproject.toml and constraints.txt stand.
PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/installed
# Unless the user sets AGEBENCH_CACHE, caches stay in this repository.
export AGEBENCH_CACHE ?= $(CURDIR)/.cache

# One more than the two cores that tests need at least: a fifth of their time is spent waiting for servers, browsers and other processes.
WORKERS ?= 3
PYTEST = -m pytest -n $(WORKERS) --dist worksteal
# Tests start many processes: without files of bytecode, each would compile all modules of agebench.
export PYTHONDONTWRITEBYTECODE =

# The versions that are installed: pinned (constraints.txt), newest, or lowest (the lowest that pyproject.toml allows, resolved by uv).
# `make clean` before a change of DEPENDENCIES.
DEPENDENCIES ?= pinned
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL_pinned = $(PIP) --constraint constraints.txt
INSTALL_newest = $(PIP) --upgrade
INSTALL_lowest = $(PIP) uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --resolution lowest-direct
INSTALL = $(or $(INSTALL_$(DEPENDENCIES)),$(error DEPENDENCIES is pinned, newest or lowest))

.PHONY: install demo test test-fast coverage browser lint docs records leaderboard wheel wheel-check clean

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/agebench run --train synth --test synth --test synth-shift --model tiny --out runs/demo

test: $(INSTALLED) browser
	$(BIN)/python $(PYTEST)

test-fast: $(INSTALLED)
	$(BIN)/python $(PYTEST) -m "not slow"

# Not by pytest-cov: agebench's own pytest plugin is imported before it starts, and those lines would not count.
# Fails below the share of covered lines that pyproject.toml requires (`fail_under`); lists the files that are not covered completely.
coverage: $(INSTALLED) browser
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run $(PYTEST)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --show-missing

# The manual as a site, in site/: fails on a link, an anchor or a page that does not exist. Loads nothing from other hosts. Pages open from the disk;
# the search needs a server: `python -m http.server --directory site`.
docs: $(INSTALLED)
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The seals of all records, and all figures whose estimates and datasets are here.
records: $(INSTALLED)
	$(BIN)/agebench results check

# The leaderboard's pages, and the tables of the manual that are made of the records.
leaderboard: $(INSTALLED)
	$(BIN)/agebench leaderboard --site reports/site
	$(BIN)/python docs/tables.py

wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

# The wheel in a new environment, used from an empty folder.
wheel-check: wheel
	set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check dist/*.whl; \
	mkdir "$$folder/empty"; cd "$$folder/empty"; export AGEBENCH_CACHE="$$folder/cache"; \
	printf 'sample_id,age,age_pred\na,20,22\nb,30,29\nc,40,43\n' > estimates.csv; \
	"$$folder/venv/bin/agebench" list; \
	"$$folder/venv/bin/agebench" score estimates.csv; \
	mkdir records; cp "$(CURDIR)"/reports/results/*-on-fgnet-*.json records; \
	"$$folder/venv/bin/agebench" leaderboard --results records --site site; \
	"$$folder/venv/bin/python" -c "from PIL import Image; Image.new('RGB', (300, 300), 'tan').save('photo.png')"; \
	"$$folder/venv/bin/agebench" predict photo.png --align none; \
	"$$folder/venv/bin/agebench" run --train synth --test synth --model tiny --epochs 1 --limit 200 --out run

# A browser for the tests of the leaderboard's page and of the demonstration. Where there is none and none can be installed, they are skipped.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	echo "no Chromium, and it cannot be installed here: the pages are not tested in a browser"

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python tests/lint/prose.py && $(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agebench needs Python 3.11 or later; say which with PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[detect,dlib,test,lint]'
	touch $@

clean:
	rm -rf .venv .cache .coverage .coverage.* dist site runs/demo
