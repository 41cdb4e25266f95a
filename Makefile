# make demo · test · lint · bench · bench-peers · chaos · test-all · test-pairs, each with ARGS="…" for the program behind it.
# Each makes what it needs in .venv first; a machine needs Python ≥ 3.11 with venv and pip, nothing else.
.DEFAULT_GOAL := test
.SECONDEXPANSION:
.PHONY: demo test lint bench bench-peers chaos test-all test-pairs pairs

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Whatever the shell was set up for, this is another project.
unexport DJANGO_SETTINGS_MODULE PYTHONPATH
# The tests start their own servers; TEST_SERVER=/path/to/redis-server says of which program.
export TEST_SERVER

PYTHON = .venv/bin/python
PYTHONS = python3 python3.14 python3.13 python3.12 python3.11

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

# Each in an environment of its own, all of one Python; a peer whose environment cannot be made is left out.
PEERS = ours edx django-event-bus faststream celery $(OUTBOXES)
OUTBOXES = django-outbox-pattern django-jaiminho django-broadcaster django-domain-events
PEER_PYTHONS = python3.13 python3.14 python3.12 python3.11 python3

bench-peers: .venv/dev.stamp
	@$(MAKE) --no-print-directory --keep-going $(PEERS:%=.venvs/peers-%/stamp) || echo "Going on without those."
	@exec $(PYTHON) -m benchmarks.peers $(ARGS)

chaos: .venv/test.stamp
	@exec $(PYTHON) -m tests.chaos $(ARGS)

# $(call venv,FOLDER,PYTHONS): a virtual environment of the first of PYTHONS that will do.
define venv
	@for python in $(2); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if $$python -c 'import ensurepip, venv' 2>/dev/null; then exec $$python -m venv $(1); fi; \
	  echo "$$python has no venv; on Debian and Ubuntu: apt-get install $$python-venv" >&2; \
	done; \
	echo "This needs Python 3.11 or newer with venv; found none among: $(2)" >&2; exit 1
endef

# $(call install,FOLDER,EXTRA,MORE): this checkout, editable, with what EXTRA lists.
define install
	@echo "Installing into $(1): redis_events[$(2)] $(3)"
	@$(1)/bin/python -m pip install --quiet --editable '.[$(2)]' $(3)
	@touch $@
endef

.venv/bin/python:
	$(call venv,.venv,$(PYTHONS))

# A changed pyproject.toml installs again. What the tests install holds what the demo needs, and so on.
.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(call install,.venv,embedded)

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(call install,.venv,browser)
	@touch .venv/demo.stamp

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(call install,.venv,dev)
	@touch .venv/demo.stamp .venv/test.stamp

.PRECIOUS: .venvs/peers-%/stamp .venvs/peers-%/bin/python
.venvs/peers-%/stamp: benchmarks/peers/requirements/%.txt | .venvs/peers-%/bin/python
	@echo "Installing into .venvs/peers-$*: $<"
	@.venvs/peers-$*/bin/python -m pip install --quiet --requirement $<
	@touch $@

.venvs/peers-%/bin/python:
	$(call venv,.venvs/peers-$*,$(PEER_PYTHONS))

# Python-Django-redis-py, each lane in an environment of its own; those whose Python is not here are left out.
LANES = 3.11-5.2-6.4 3.11-5.2-8.1 3.12-6.0-7.4 3.12-6.1-8.1 3.13-5.2-8.1 3.13-6.1-8.1
part = $(word $(1),$(subst -, ,$(2)))
here = $(foreach lane,$(LANES),$(if $(shell python$(call part,1,$(lane)) -V 2>/dev/null),$(lane)))

test-all:
	@$(MAKE) --no-print-directory --keep-going $(addprefix lane-,$(here))
	@echo "All of: $(here). Without their Python: $(or $(filter-out $(here),$(LANES)),none)."

lane-%: .venvs/%/stamp
	@echo "Python $(call part,1,$*), Django $(call part,2,$*), redis-py $(call part,3,$*)"
	@.venvs/$*/bin/python -m pytest $(ARGS)

# redis-py, the protocol its users write into their URLs, and the server: what speaks to a server, on each.
PAIRS = 6.4-2-redis 7.4-2-valkey 8.1-3-redis 8.1-3-valkey
SPEAKING = client transports sender subscribing interop listening stream trimming replaying cleaning inspection

test-pairs:
	@$(MAKE) --no-print-directory --keep-going $(addprefix pair-,$(PAIRS))

pairs:
	@echo $(addprefix pair-,$(PAIRS))

# Each remembers its own failures, for --last-failed.
pair-%: .venvs/redis-py-$$(call part,1,$$*)/stamp
	@echo "redis-py $(call part,1,$*), RESP$(call part,2,$*), $(call part,3,$*)"
	@TEST_PROTOCOL=$(call part,2,$*) TEST_SERVER=$(if $(filter redis,$(call part,3,$*)),redis-server) \
	  .venvs/redis-py-$(call part,1,$*)/bin/python -m pytest -o cache_dir=.pytest_cache/$* $(SPEAKING:%=tests/test_%.py) $(ARGS)

.venvs/redis-py-%/stamp: pyproject.toml | .venvs/redis-py-%/bin/python
	$(call install,.venvs/redis-py-$*,test,'redis~=$*.0')

.venvs/redis-py-%/bin/python:
	$(call venv,.venvs/redis-py-$*,$(PYTHONS))

.PRECIOUS: .venvs/%/stamp .venvs/%/bin/python .venvs/redis-py-%/stamp .venvs/redis-py-%/bin/python
.venvs/%/stamp: pyproject.toml | .venvs/%/bin/python
	$(call install,.venvs/$*,browser,'django~=$(call part,2,$*).0' 'redis~=$(call part,3,$*).0')

.venvs/%/bin/python:
	$(call venv,.venvs/$*,python$(call part,1,$*))
