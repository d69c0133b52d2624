# Everything works from a clean clone with Python 3.11 or newer and make: each target sets itself up in .venv first.
#   make demo        train on pictures of clothes, sample, evaluate, write demo/report.html
#   make quick       test the core: about a minute
#   make test        everything that continuous integration checks
#   make test-full   test published networks at full size, in both directions: 8 GiB, minutes
#   make coverage    make test without the linters, with the lines that no test runs
#   make bench       the speed table, beside other libraries

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m

PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist worksteal
# schedules, predictions, samplers, guidance, the bound, conditions, patches, noise, models, checkpoints
CORE := $(addprefix tests/,test_sizes.py test_noise.py test_schedules.py test_denoiser.py test_conditions.py test_patch.py \
  test_model.py samplers/test_samplers.py samplers/test_order.py guidance likelihood/test_bound.py io/test_checkpoint.py)

.PHONY: demo quick test test-full coverage lint bench clean

demo: .venv/core
	$(BIN)/unnoise demo

quick: .venv/dev
	$(PYTEST) -m "not slow" --few-schedules $(CORE)

test: .venv/dev lint
	$(PYTEST)

coverage: .venv/dev
	$(PYTEST) --cov --cov-report=term:skip-covered

test-full: .venv/dev
	UNNOISE_FULL_SIZE=1 $(RUN) pytest -rP tests/formats/test_stable_diffusion.py tests/formats/test_autoencoders.py -k in_full

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/bench
	$(RUN) benchmarks

.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit("unnoise needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/core: .venv/pip pyproject.toml requirements/pins.txt
	$(RUN) pip install -q --disable-pip-version-check -c requirements/pins.txt torch
	$(RUN) pip install -q --disable-pip-version-check -c requirements/pins.txt -e '.[compile]'
	@touch $@

.venv/dev: .venv/core
	$(RUN) pip install -q --disable-pip-version-check -c requirements/pins.txt -e '.[dev,compile]'
	@touch $@

.venv/bench: .venv/dev
	$(RUN) pip install -q --disable-pip-version-check -c requirements/pins.txt einops ema-pytorch accelerate openvino
	$(RUN) pip install -q --disable-pip-version-check --no-deps -c requirements/pins.txt denoising-diffusion-pytorch
	@touch $@

clean:
	rm -rf .venv demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache
