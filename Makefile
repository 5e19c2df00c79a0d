# The commands of the project. `make serve` and `make test` set everything up by themselves.
PYTHON ?= python3
PORT ?= 8000
UI_PORT ?= 5000
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
CYCLONEDX := $(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
	--mc-type application --output-reproducible --spec-version 1.6
BENCH ?= ../shared/bench
PEERS_HOME ?=
FUZZ_SECONDS ?= 300
PROSE := README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs

.DEFAULT_GOAL := help
.PHONY: help setup serve test test-replicas test-drift test-ray test-clients test-clients-refusing fuzz check check-deploy image calibrate ui bench bench-quality
.PHONY: lock sbom clean coverage docs screenshots prose

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.done: requirements-dev.lock pyproject.toml setup.py router/policy/prediction_kernel.pyx
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what requirements-dev.lock pins into .venv ..."
	@# uv installs in seconds what takes pip minutes; where it cannot reach the packages, pip does it
	@sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock > .venv/uv.lock
	@$(PIP) --require-hashes -r .venv/uv.lock
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.lock || $(PIP) --require-hashes -r requirements-dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import router.policy.prediction_kernel' 2> /dev/null || \
		echo "The prediction was not compiled, since there is no C compiler or no Python.h. NumPy computes the same, at a higher cost."
	@touch $@

.venv/.compiled: .venv/.done
	@# the tests start many interpreters, and each would compile anew what it imports where Python writes no bytecode
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true
	@touch $@

setup: .venv/.done ## create .venv with everything that is needed

serve: setup ## serve the proxy on PORT (default 8000)
	$(BIN)/python -m router serve --port $(PORT)

# Where Python is told to write no bytecode, the processes that tests start would each compile the project anew.
test test-replicas test-drift test-ray: export PYTHONDONTWRITEBYTECODE =

# Some tests measure time: what fails beside others has to pass alone.
test: .venv/.compiled ## run the tests in TEST_PROCESSES; what fails there runs once more alone
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) || { \
		echo "Some tests failed beside others. They run once more alone:"; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PYTEST_ARGS); }

test-replicas: .venv/.compiled ## run two replicas behind nginx; minutes (apt-get install nginx postgresql redis-server)
	TEST_REPLICAS=1 $(BIN)/python -m pytest tests/test_replicas.py --durations=0 -rs $(PYTEST_ARGS)

test-drift: .venv/.compiled ## run a router and the sentinel as processes through a whole drift; minutes
	TEST_DRIFT=1 $(BIN)/python -m pytest tests/test_drift.py --durations=0 -rs $(PYTEST_ARGS)

test-ray: .venv/.compiled ## learn on the workers of Ray (installs the extra `ray` into .ray, about 200 MB)
	@test -x .ray/bin/python || $(PYTHON) -m venv .ray
	$(BIN)/uv pip install --quiet --python .ray/bin/python --requirement requirements-dev.lock "ray>=2.40"
	PYTHONPATH=. .ray/bin/python -m pytest tests/test_workers.py --durations=0 -rs $(PYTEST_ARGS)

test-clients: setup ## run real clients through the router (installs them into .clients; CLIENTS="openai curl")
	$(BIN)/python tests/clients/run.py $(CLIENTS)
	$(BIN)/python tests/clients/openai_own_tests.py
	$(BIN)/python tests/clients/model_server.py

test-clients-refusing: setup ## run real clients against models that refuse parameters; rewrite docs/reference/compatibility.md
	$(BIN)/python tests/clients/refusing.py $(CLIENTS)

fuzz: setup ## fuzz what reads the bytes of others for FUZZ_SECONDS (default 300)
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seconds $(FUZZ_SECONDS)

docs: setup ## build the documentation site into build/site; a warning or a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

screenshots: setup ## retake the screenshots of the documentation (needs Chromium; minutes)
	$(BIN)/python docs/generate/screenshots.py

prose: setup ## check the prose of README and docs
	$(BIN)/proselint --config .proselintrc.json check $(PROSE)

check: setup ## lint, types, import rules, prose, site and tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) prose docs test

coverage: ## run the tests and say which lines none of them reaches
	$(MAKE) test PYTEST_ARGS="--cov --cov-report=term $(PYTEST_ARGS)"

check-deploy: setup ## check deploy/ with the tools that are here (promtool, nginx, helm, ...); says what was skipped
	UV=$(BIN)/uv deploy/check.sh

image: sbom ## build the container images calibrated-router and calibrated-router-proxy, with their bills of materials
	docker build --build-arg REVISION=$$(git rev-parse HEAD) -t calibrated-router .
	docker build --build-arg REVISION=$$(git rev-parse HEAD) -t calibrated-router-proxy --target proxy .

calibrate: setup ## calibrate on data/questions.jsonl against the configured upstream
	$(BIN)/python -m calibration run

bench-quality: setup ## measure the routing on the recorded outcomes and rewrite docs/explanations/quality.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality.py

bench: setup ## measure the speed beside other proxies and rewrite docs/explanations/performance.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/performance.py $(BENCH) $(if $(PEERS_HOME),--home $(PEERS_HOME))
	$(BIN)/python benchmarks/scale.py $(BENCH)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/overload.py

ui: setup ## MLflow's pages over what was recorded, on UI_PORT (default 5000)
	$(BIN)/python -m router ui --port $(UI_PORT)

lock: setup ## rewrite the lock files from pyproject.toml
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --extra postgresql --extra redis pyproject.toml -o requirements.lock
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --extra dev --extra docs pyproject.toml -o requirements-dev.lock
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header -c requirements.lock deploy/requirements-proxy.in -o requirements-proxy.lock

sbom: setup ## write build/sbom.cdx.json and build/proxy/sbom.cdx.json, the bills of materials (CycloneDX), from the locks
	@mkdir -p build/proxy
	$(CYCLONEDX) requirements.lock --pyproject pyproject.toml -o build/sbom.cdx.json
	$(CYCLONEDX) requirements-proxy.lock --pyproject pyproject.toml -o build/proxy/sbom.cdx.json

clean: ## remove what can be made again (.venv and caches; .router is kept)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage build *.egg-info router/policy/*.so
