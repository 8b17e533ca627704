# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 and make. Both prepare the environment first.
#
#   make setup                     .venv with lmedge, every extra that needs no GPU, and the development tools
#   make demo                      synthetic faces -> verified bundle for ONNX Runtime and OpenVINO, in runs/demo
#   make test                      lint, the device suite, the whole suite
#   make test REQUIRE=a,b          the same, and fail where a skip would hide a missing engine or data set
#   make PYTHON=/path/to/python3.11 setup

PYTHON ?= python3.11
REQUIRE ?=
# Without byte code each of the many processes that the tests start compiles its hundreds of modules anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
DEVICE_BIN := .venv-device/bin
PIP_INSTALL := -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# The tests that make sense with base dependencies and one engine. What needs more skips itself.
DEVICE_TESTS := $(filter-out tests/test_device_install.py,$(wildcard tests/test_*.py tests/apps tests/data tests/pose tests/runtimes))

comma := ,
empty :=
DEVICE_REQUIRE := $(subst $(empty) ,$(comma),$(filter onnxruntime data,$(subst $(comma), ,$(REQUIRE))))

.PHONY: setup demo test lint test-device test-all clean
.NOTPARALLEL:

setup: .venv/installed

demo: setup
	$(BIN)/lmedge build examples/demo.toml --target onnxruntime --target openvino --out runs/demo
	$(BIN)/lmedge verify runs/demo/bundle

test: lint test-device test-all

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test-device: setup .venv-device/installed
	$(BIN)/python -m tests.bundles .venv-device/networks
	LMEDGE_REQUIRE=$(DEVICE_REQUIRE) LMEDGE_TINY_NETWORKS=.venv-device/networks $(DEVICE_BIN)/python -m pytest $(DEVICE_TESTS)

# No machine here has a GPU, so what every line of the TensorRT modules does is seen on its fake or never: that much is measured.
test-all: setup
	LMEDGE_REQUIRE=$(REQUIRE) $(BIN)/coverage run -m pytest tests/tensorrt
	$(BIN)/coverage report
	LMEDGE_REQUIRE=$(REQUIRE) $(BIN)/python -m pytest --ignore=tests/tensorrt

clean:
	rm -rf .venv .venv-device runs build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find lmedge tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew only when the dependencies may have changed.
.venv/installed: pyproject.toml constraints.txt
	$(call make_environment,.venv)
	$(BIN)/python $(PIP_INSTALL) --editable '.[all,dev]'
	@touch $@

.venv-device/installed: pyproject.toml constraints.txt
	$(call make_environment,.venv-device)
	$(DEVICE_BIN)/python $(PIP_INSTALL) --editable '.[onnxruntime]' pytest pytest-timeout hypothesis
	@touch $@

define make_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "lmedge is built with Python 3.11 or newer, and '$(PYTHON)' is not that. Install it, or name it:" \
	       "make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(1) || { \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3.11-venv" >&2; exit 1; }
endef
