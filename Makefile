# Everything a person runs here. `make` lists it.
#   PYTHON=/path/to/python3.12   the interpreter for new virtual environments (default: the first one that serves)
#   STAGES="ruff mypy"           only these stages of `make test`

# Nothing of the caller's Ansible, Python or cloud configuration may leak into a run.
# Bytecode is kept: every playbook of the tests starts Ansible anew, and to compile that costs 0.3 s each time.
unexport PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE VIRTUAL_ENV MAKEFLAGS
RUN = env $$(env | sed -n 's/^\(A[NW]S[A-Z]*_[A-Za-z0-9_]*\)=.*/-u \1/p') \
	ANSIBLE_HOME="$(CURDIR)/.ansible" ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/.ansible/collections" \
	PYTHONPATH="$(CURDIR):$(CURDIR)/.ansible/collections"

.PHONY: help demo test bench stages clean

help:
	@echo 'make demo          damage an agent'"'"'s memory on this machine and rebuild it, step by step, by ansible-playbook'
	@echo 'make test          everything that continuous integration runs (STAGES="ruff mypy": only these stages)'
	@echo 'make bench         speed and memory beside the peers, SQLite alone some 15 minutes (BENCH_RECORDS=100000: a smaller run)'
	@echo 'make stages        the names of the stages of `make test`'
	@echo 'make clean         remove all that the other targets made (environments, demo, caches)'

demo:
	@sh tests/support/venv.sh core requirements-demo.txt
	@$(RUN) .venv/core/bin/python -m demo

test:
	@sh tests/support/venv.sh test requirements-test.txt
	@$(RUN) .venv/test/bin/python tests/support/stages.py $(STAGES)

bench:
	@sh tests/support/venv.sh test requirements-test.txt
	@$(RUN) .venv/test/bin/python -m tests.bench

stages:
	@python3 tests/support/stages.py --list

clean:
	@echo 'Removing .venv, .ansible, .demo, build and the tools'"'"' caches'
	@rm -rf .venv .ansible .demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
