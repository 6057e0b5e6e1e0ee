# `make demo` shows homing at work, `make test` proves it, `make check` reads the code. Each installs what it needs.

.PHONY: help demo test soak check bench gen format requirements dist release clean

help:
	@echo 'make demo          deploy the example functions and invoke them now and later; with BROKER=embedded'
	@echo '                   RUNTIME=process, or one of them, without RabbitMQ and Docker'
	@echo 'make test          run every test, on real RabbitMQ and real containers (ARGS=… goes to pytest)'
	@echo 'make soak          what takes longer: runs of 35 minutes, many storms, mutants (ARGS=… goes to pytest)'
	@echo 'make check         lint, types, protos, import rules, generated code'
	@echo 'make bench         measure it, beside Celery and taskiq (ARGS=--quick for a short run; ARGS=--million, --schedules or --fairness)'
	@echo 'make gen           generate the Python and Go code of proto/ and the synchronous half of the SDK'
	@echo 'make format        format code and protos'
	@echo 'make requirements  renew the pinned requirements (ARGS=--upgrade for newer versions)'
	@echo 'make dist          build wheels and source distributions into dist/'
	@echo 'make release       check, test and build the version in VERSION, and tag it; publishes nothing'
	@echo 'make clean         remove what these make in this folder'

demo:
	@BROKER='$(BROKER)' RUNTIME='$(RUNTIME)' scripts/demo

test:
	@scripts/test $(or $(ARGS),--cov)

soak:
	@scripts/soak $(ARGS)

check:
	@scripts/check

bench:
	@scripts/bench $(ARGS)

gen:
	@scripts/gen
	@scripts/venv dev
	@.venv/bin/python scripts/unasync.py
	@.venv/bin/python scripts/shared_types.py
	@.venv/bin/python scripts/reasons.py
	@.venv/bin/python scripts/openapi.py

format:
	@scripts/venv dev
	@.venv/bin/ruff check --fix-only --quiet
	@.venv/bin/ruff format --quiet
	@.venv/bin/buf format proto --write

requirements:
	@scripts/requirements $(ARGS)

dist:
	@scripts/dist

release:
	@scripts/release

clean:
	rm -rf .venv .venv-gen .venv-polyglot .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
