# Everything a person runs here. `make` lists it.
#   PYTHON=/path/to/python3.12   the interpreter for new virtual environments (default: the first one that serves)
#   STAGES="ruff mypy"           only these stages of `make test`

# Nothing of the caller's Ansible, Python or cloud configuration may leak into a run.
# Bytecode is kept: every playbook of the tests starts Ansible anew, and to compile that costs 0.3 s each time.
unexport PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE VIRTUAL_ENV MAKEFLAGS
RUN = env $$(env | sed -n 's/^\(A[NW]S[A-Z]*_[A-Za-z0-9_]*\)=.*/-u \1/p') \
	ANSIBLE_HOME="$(CURDIR)/.ansible" ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/.ansible/collections" \
	PYTHONPATH="$(CURDIR):$(CURDIR)/.ansible/collections"

.PHONY: help demo docs lab lab-do lab-down test bench stages clean

help:
	@echo 'make demo          damage an agent'"'"'s memory on this machine and rebuild it, step by step, by ansible-playbook'
	@echo 'make docs          the documentation as a site, in build/site'
	@echo 'make lab           hosts with networks of their own, with memory in SQLite, PostgreSQL and Valkey, to break things on (root)'
	@echo 'make lab-down      remove the lab'
	@echo 'make test          everything that continuous integration runs (STAGES="ruff mypy": only these stages)'
	@echo 'make bench         speed and memory beside the peers, SQLite alone some 15 minutes (BENCH_RECORDS=100000: a smaller run)'
	@echo 'make stages        the names of the stages of `make test`'
	@echo 'make clean         remove all that the other targets made (environments, demo, caches)'

demo:
	@sh tests/support/venv.sh core requirements-demo.txt
	@$(RUN) .venv/core/bin/python -m demo

docs:
	@sh tests/support/venv.sh docs requirements-docs.txt requirements-docs.txt
	@$(RUN) .venv/docs/bin/python tests/support/docs_site.py

lab:
	@[ "$$(id -u)" = 0 ] || { echo 'The lab needs root, to give each host a network and a file system of its own.' \
		'Next: run it as root.' >&2; exit 1; }
	@sh tests/support/venv.sh test requirements-test.txt
	@$(RUN) .venv/test/bin/python tests/support/lab.py up

lab-do:
	@$(RUN) .venv/test/bin/python tests/support/lab.py do $(WHAT)

lab-down:
	@[ ! -x .venv/test/bin/python ] || $(RUN) .venv/test/bin/python tests/support/lab.py down

test:
	@sh tests/support/venv.sh test requirements-test.txt
	@$(RUN) .venv/test/bin/python tests/support/stages.py $(STAGES)

bench:
	@sh tests/support/venv.sh test requirements-test.txt
	@$(RUN) .venv/test/bin/python -m tests.bench

stages:
	@python3 tests/support/stages.py --list

clean: lab-down
	@echo 'Removing .venv, .ansible, .demo, .lab, build and the tools'"'"' caches'
	@rm -rf .venv .ansible .demo .lab build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
