# make demo   set up and run the whole job on embedded real data
# make test   set up and run the tests
# make lint   set up and check the style
# make bench  measure beside PyTorch, ONNX Runtime, OpenCV and plain TensorFlow; BENCH="--help"
# make clean  remove what these made
#
# make distributed       add MPI and Horovod to the environment, for training on several machines
# make test-distributed  and run the tests that start several ranks
#
# REQUIREMENTS=requirements-mkl.txt installs Intel's build of TensorFlow instead of the stock one.
# PYTHON37=/path/to/python3.7 names the interpreter to build the environment with.

SHELL := /bin/bash
REQUIREMENTS ?= requirements.txt
VENV ?= .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/installed-$(notdir $(REQUIREMENTS))
DISTRIBUTED := $(VENV)/installed-distributed
REQUIREMENT_FILES := $(REQUIREMENTS) requirements-tf1-common.txt requirements-dev.txt


.PHONY: demo test lint bench clean setup distributed test-distributed
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(PYTHON) demo.py

test: $(STAMP)
	$(PYTHON) -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .

bench: $(STAMP)
	$(PYTHON) benchmarks/run.py $(BENCH)

setup: $(STAMP)

distributed: $(DISTRIBUTED)

test-distributed: $(DISTRIBUTED)
	$(PYTHON) -m pytest -m distributed

# The stamp is newer than every requirements file it was made from, so an environment is made or
# changed only when one of them has changed, or another build of TensorFlow is asked for.
$(STAMP): $(REQUIREMENT_FILES)
	@./make_environment.sh $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade "pip<24.1" "setuptools<68" wheel
	@rm -f $(VENV)/installed-*
	@$(PYTHON) -m pip uninstall --quiet --yes tensorflow intel-tensorflow 2>/dev/null
	$(PYTHON) -m pip install --quiet -r $(REQUIREMENTS) -r requirements-dev.txt
	@touch $@

# Horovod is compiled against the TensorFlow that is there, so neither built apart from it nor taken
# from pip's cache, and built anew whenever the environment has changed.
$(DISTRIBUTED): $(STAMP) requirements-distributed.txt
	@./install_mpi.sh
	@echo "compiling Horovod: this takes some minutes"
	HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1 \
	HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 $(PYTHON) -m pip install --quiet \
		--no-build-isolation --no-cache-dir --force-reinstall --no-deps \
		-r requirements-distributed.txt
	@touch $@

clean:
	rm -rf $(VENV) data/sample saved_models/sample logs/sample
	rm -rf benchmarks/.venv-* benchmarks/out
	rm -rf .pytest_cache .ruff_cache __pycache__ tests/__pycache__
