# `make demo` and `make test` set up .venv by themselves; neither installs again while pyproject.toml and constraints.txt stand.
PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/installed
# Unless the user sets AGEBENCH_CACHE, caches stay in this repository.
export AGEBENCH_CACHE ?= $(CURDIR)/.cache

.PHONY: demo test test-fast browser lint clean

demo: $(INSTALLED)
	$(BIN)/agebench run --train synth --test synth --test synth-shift --model tiny --out runs/demo

test: $(INSTALLED) browser
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[detect,test,lint]'
	touch $@

clean:
	rm -rf .venv .cache runs/demo
