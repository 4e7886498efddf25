# Two commands: `make serve` and `make test`. Both first bring the machine to where they can run, and say what they do.

# Set on the command line only (`make serve PORT=8001`): shells and toolchains export a HOST that means something else.
HOST = 127.0.0.1
PORT = 8000
PYTHON =
TESTS =
WORKERS = 6
SOAK_SEED =
BENCH =
BENCH_PLOTS =
BENCH_BASE =

MAKEFLAGS += --no-print-directory
# Images for containers set it; it makes each of our processes compile all of our modules again.
unexport PYTHONDONTWRITEBYTECODE
BIN = .venv/bin

.PHONY: help serve test lint format audit soak bench image peer clean

help:
	@echo 'make serve [HOST=127.0.0.1] [PORT=8000]  set up what is missing, then serve real labs'
	@echo 'make test [TESTS="tests/core -k queue"]  set up what is missing, then every check and test'
	@echo 'make lint                                ruff, mypy, import-linter'
	@echo 'make format                              let ruff rewrite what it can'
	@echo 'make audit                               known vulnerabilities of what an installation gets; needs the network'
	@echo 'make soak [SOAK_SEED=4711]               hours of a bad day in one: random faults, crowds, fuzzing; 20 to 40 min'
	@echo 'make bench [BENCH=a,b] [BENCH_PLOTS=1]   measure it beside the floor and neops-remote-lab; 10 min, docs/benchmarks.rst'
	@echo 'make image                               build the image that labs run on, if it is missing'
	@echo 'make peer                                the same suite by our plugin and by neops-remote-lab, compared'
	@echo 'make clean                               remove .venv, caches and build products; labs and images stay'
	@echo 'PYTHON=python3.12 with any of them chooses the interpreter of .venv.'

serve:
	@PYTHON='$(PYTHON)' scripts/setup server
	@$(BIN)/remote-lab image build
	@exec $(BIN)/remote-lab serve --host '$(HOST)' --port '$(PORT)'

test: lint
	@$(BIN)/remote-lab image build
	@echo '==> pytest'
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(TESTS)

lint:
	@PYTHON='$(PYTHON)' scripts/setup test
	@echo '==> ruff check'
	@$(BIN)/ruff check --quiet
	@echo '==> ruff format --check'
	@$(BIN)/ruff format --check --quiet --output-format concise
	@echo '==> mypy'
	@$(BIN)/mypy --no-error-summary
	@echo '==> lint-imports'
	@$(BIN)/lint-imports --no-logo

format:
	@PYTHON='$(PYTHON)' scripts/setup test
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

audit:
	@PYTHON='$(PYTHON)' scripts/setup test
	@scripts/audit

# One at a time: what is measured is the server, not how many tests this machine can run.
soak:
	@PYTHON='$(PYTHON)' scripts/setup test
	@$(BIN)/remote-lab image build
	@SOAK=1 SOAK_SEED='$(SOAK_SEED)' $(BIN)/pytest -s tests/soak tests/fuzz $(TESTS)

# Beside nothing else: what is measured is the server, not what this machine does meanwhile.
bench:
	@PYTHON='$(PYTHON)' scripts/setup bench
	@$(BIN)/remote-lab image build
	@BENCH='$(BENCH)' BENCH_PLOTS='$(BENCH_PLOTS)' BENCH_BASE='$(BENCH_BASE)' $(BIN)/python -m bench

image:
	@PYTHON='$(PYTHON)' scripts/setup server
	@$(BIN)/remote-lab image build

peer:
	@scripts/setup test
	@$(BIN)/remote-lab image build
	@$(BIN)/python scripts/peer

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist remote_lab.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
