# `make help` lists the targets.

SHELL := /bin/bash -o pipefail
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed.lock
# Where torch is a build for NVIDIA GPUs it asks for packages that no other machine needs.
ASKS_FOR_CUDA := import importlib.metadata as m, sys; \
  sys.exit(sys.platform != "linux" or not any(line.startswith("nvidia-") for line in m.requires("torch") or []))
# More than the two cores of CI: tests spend a quarter of their time waiting for processes they started.
TESTS_AT_ONCE ?= 3
WITHOUT_CHROMIUM := command -v "$${CHROMIUM:-chromium}" google-chrome >/dev/null \
  || echo "The browser tests were left out: there is no Chromium here. Name one in CHROMIUM, or install it."

# What a person gives as `make run PORT=8001 LISTEN=0.0.0.0` reaches the command as the environment does.
export PORT LISTEN TUTELAGE_HOME

.PHONY: help setup run demo test test-all test-asan check format docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv, with exact versions

# A copy of the lock that is installed; where only the file's time changed there is nothing to do.
$(INSTALLED): requirements.lock
	@if cmp -s $< $@; then touch $@; else $(MAKE) --no-print-directory install; fi

.PHONY: install
install:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Tutelage needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them. Name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || { echo "Making .venv"; rm -rf .venv; $(PYTHON) -m venv .venv; }
	@echo "Installing $$(grep -c == requirements.lock) packages; the first time takes a few minutes"
	@if $(BIN)/python -m pip install --no-deps --require-hashes --quiet --quiet --quiet -r requirements-cpu.lock 2>/dev/null; \
	  then echo "  with torch's build for CPUs"; fi
	@$(BIN)/python -m pip install --no-deps --require-hashes --progress-bar off -r requirements.lock 2> >(grep -v '^WARNING: Location .* is ignored' >&2) \
	  | awk '/^(Collecting|Requirement already).* -r requirements.lock/ { if (++n % 40 == 0) { print "  looked up " n; fflush() } } \
	         /^Installing collected/ { print "  unpacking"; fflush() } /^ERROR/ { print; fflush() }'
	@if $(BIN)/python -c '$(ASKS_FOR_CUDA)'; then \
	  echo "Installing what torch needs for NVIDIA GPUs"; \
	  $(BIN)/python -m pip install --no-deps --require-hashes --quiet -r requirements-cuda.lock; fi
	@cp requirements.lock $(INSTALLED)
	@echo "Installed"

run: setup ## install what is missing and start everything
	@exec $(BIN)/python manage.py up

demo: setup ## take a sample project once round the loop, and leave its site running
	@exec $(BIN)/python manage.py demo

check: setup ## lint, types, templates and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/djlint --lint --quiet templates
	$(BIN)/mypy .
	$(BIN)/lint-imports

# Small models gain nothing from more threads than one, and tests side by side do.
test test-all: export OMP_NUM_THREADS = 1

# The browser's tests go apart: Playwright keeps an event loop in its thread, in which no test of asynchronous code can run.
test: check ## all checks and tests that CI runs
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) -m 'not slow and not browser'
	$(BIN)/python -m pytest -m 'browser and not slow'
	@$(WITHOUT_CHROMIUM)

test-all: check ## the slow tests too
	$(BIN)/python -m pytest -m 'not browser'
	$(BIN)/python -m pytest -m 'browser'
	@$(WITHOUT_CHROMIUM)

# Python itself is not compiled with the sanitizer, so its library is loaded first; what Python keeps until it ends is no leak.
test-asan: setup ## the tests of the C++ kernels, with every read and write of memory checked
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 \
	  CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -static-libubsan -fno-omit-frame-pointer -g -O1" \
	  $(BIN)/python -m pytest --capture=sys tests/training/kernels tests/training/engine --ignore tests/training/kernels/test_heap.py

format: setup ## format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: ## build the documentation site into build/docs
	@test -x .venv-docs/bin/mkdocs || { $(PYTHON) -m venv .venv-docs && .venv-docs/bin/python -m pip install --quiet -r docs/requirements.txt; }
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html, or run: .venv-docs/bin/mkdocs serve"

# The newest versions that pyproject.toml allows, tried in an environment of their own; then `make test` judges them.
lock: ## pin the newest versions that pyproject.toml allows
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --quiet --upgrade pip uv
	@.venv-lock/bin/python -m pip install --quiet '.[web,embedded,train,dev]'
	@.venv-lock/bin/python -m pip freeze --all --exclude tutelage --exclude uv 2>/dev/null | .venv-lock/bin/python .ci/lock.py
	@rm -rf .venv-lock build tutelage.egg-info
	@echo "Now: make test"

clean: ## remove .venv and caches
	rm -rf .venv .venv-docs build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
