# Everything sets itself up from nothing but Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.stamp-installed
BUNDLE ?= minilm-balanced
FLOORS := ir passes backends tools

# Broken when the environment's Python is gone, or it imports graphwright from somewhere else.
BROKEN := $(shell $(RUN) -c 'import graphwright, os; assert os.path.samefile(graphwright.__path__[0], ".")' \
	>/dev/null 2>&1 || echo reinstall)

.DELETE_ON_ERROR:
.PHONY: help demo test check format clean reinstall

help:
	@echo "make demo    a real sentence encoder made faster on this machine, with the evidence"
	@echo "make test    format, lint, types and the whole test suite"
	@echo "make check   format, lint and types only"
	@echo "make format  rewrite the files as the formatter wants them"
	@echo "make clean   remove the environment and the caches"

demo: $(STAMP)
	$(VENV)/bin/optimize demo -o $(BUNDLE) --force

# What tests need of Debian's (qemu-user and such, chromium) is installed where that is allowed, and named else.
test: check
	$(RUN) tests/support/emulated.py || true
	$(RUN) tests/support/browser.py || true
	$(RUN) -m pytest -n 2 --no-loadscope-reorder

check: $(STAMP)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	@mkdir -p build && ln -sfn .. build/graphwright
	cd build && ../$(RUN) -m mypy --config-file ../pyproject.toml $(FLOORS:%=-p graphwright.%)

format: $(STAMP)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

# The stamp is written last, so an interrupted installation is taken up again by the next make.
$(STAMP): pyproject.toml constraints.txt $(BROKEN)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"graphwright needs Python 3.11 or newer and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" \
	% sys.version_info[:2])'
	@rm -f $@
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing graphwright and what it needs into $(VENV) (a few minutes the first time)"
	$(RUN) -m pip install --disable-pip-version-check --no-input -e ".[all]" -c constraints.txt
	@touch $@

reinstall:
