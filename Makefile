# make demo   set up and run the whole job on embedded real data
# make test   set up and run the tests
# make lint   set up, check the style and, on TensorFlow 2, the types
# make bench  measure answers beside other face detectors; BENCH="--help"
# make bench-engines  measure the network beside PyTorch, ONNX Runtime, OpenCV and plain TensorFlow
# make fuzz   attack every reader with 300 damaged files of each kind; FUZZ="--help"
# make web    put the page without a server into site/ (needs npm); WEB="--help"
# make clean  remove what these made
#
# make distributed       add MPI and Horovod to the environment, for training on several machines
# make test-distributed  and run the tests that start several ranks
#
# RUNTIME=tf1 takes TensorFlow 1.15 (in .venv-tf1), RUNTIME=tf2 TensorFlow 2 (in .venv-tf2). Without
# it a Python 3.7 decides for tf1, and otherwise a Python 3.10 to 3.13 for tf2.
# REQUIREMENTS=requirements-mkl.txt installs Intel's build of TensorFlow 1.15, and
# REQUIREMENTS=requirements-tf2-gpu.txt NVIDIA's libraries beside TensorFlow 2.
# PYTHON37=/path/to/python3.7 and PYTHON3=/path/to/python3 name the interpreter to use.

SHELL := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ifdef RUNTIME
else ifdef REQUIREMENTS
    RUNTIME := $(if $(findstring tf2,$(REQUIREMENTS)),tf2,tf1)
else ifneq ($(PYTHON37)$(PYTHON3),)
    RUNTIME := $(if $(PYTHON37),tf1,tf2)
else
    export CHOSEN := automatically
    RUNTIME := $(if $(wildcard .venv-tf1/bin/python),tf1,$(shell ./make_environment.sh choose))
endif
ifeq ($(RUNTIME),tf1)
    REQUIREMENTS ?= requirements.txt
    SHARED_REQUIREMENTS := requirements-tf1-common.txt
else
    REQUIREMENTS ?= requirements-tf2.txt
    SHARED_REQUIREMENTS := requirements-tf2.txt
endif
ifneq ($(filter $(RUNTIME)-$(notdir $(REQUIREMENTS)),tf2-requirements.txt \
    tf2-requirements-mkl.txt tf1-requirements-tf2.txt tf1-requirements-tf2-gpu.txt),)
    $(error $(REQUIREMENTS) is not for RUNTIME=$(RUNTIME); leave one of them out)
endif
VENV ?= .venv-$(RUNTIME)
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/installed-$(notdir $(REQUIREMENTS))
DISTRIBUTED := $(VENV)/installed-distributed


.PHONY: demo test lint bench bench-engines fuzz web clean setup distributed test-distributed
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(PYTHON) demo.py

test: $(STAMP)
	$(PYTHON) -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(if $(wildcard $(VENV)/bin/mypy),$(VENV)/bin/mypy)

bench: $(STAMP)
	$(PYTHON) benchmarks/answers.py $(BENCH)

bench-engines: $(STAMP)
	$(PYTHON) benchmarks/run.py $(BENCH)

fuzz: $(STAMP)
	$(PYTHON) tests/fuzz.py $(FUZZ)

web: $(STAMP)
	$(PYTHON) docs/demo/build.py $(WEB)

setup: $(STAMP)

distributed: $(DISTRIBUTED)

test-distributed: $(DISTRIBUTED)
	$(PYTHON) -m pytest -n 0 -m distributed

# The stamp is newer than every requirements file it was made from, so an environment is made or
# changed only when one of them has changed, or another build of TensorFlow is asked for.
$(STAMP): $(REQUIREMENTS) $(SHARED_REQUIREMENTS) requirements-dev.txt
	@./make_environment.sh $(RUNTIME) $(VENV)
	@rm -f $(VENV)/installed-*
ifeq ($(RUNTIME),tf1)
	@# Newer ones do not build the old source packages among the requirements.
	$(PYTHON) -m pip install --quiet --upgrade "pip<24.1" "setuptools<68" wheel
	@$(PYTHON) -m pip uninstall --quiet --yes tensorflow intel-tensorflow 2>/dev/null
endif
	@# Whichever OpenCV goes last takes the other's files with it.
	@$(PYTHON) -m pip uninstall --quiet --yes opencv-python opencv-python-headless 2>/dev/null
	$(PYTHON) -m pip install --quiet -r $(REQUIREMENTS) -r requirements-dev.txt
	@touch $@

# Horovod is compiled against the TensorFlow that is installed, so it is compiled again whenever the
# environment has changed.
$(DISTRIBUTED): $(STAMP) requirements-distributed.txt
	@./install_horovod.sh $(PYTHON)
	@touch $@

clean:
	rm -rf .venv-tf1 .venv-tf2 $(VENV) data/sample saved_models/sample logs/sample
	rm -rf benchmarks/.venv-* benchmarks/out fuzz-failures site
	rm -rf .pytest_cache .ruff_cache .mypy_cache __pycache__ tests/__pycache__
