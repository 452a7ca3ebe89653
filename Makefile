# make demo: the whole job on drawn pictures. make test: the tests; make test-fast: those that take a moment. make lint: style and types. make docs: the site.
# make bench: speed beside what one would have otherwise. make audit: known holes in the pinned packages.
# make wheel: the wheel, the same bytes for the same commit, and its bill of materials.
# make lock: what users install, in the pinned versions, with the hashes of their files on every platform.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := -n 2 --dist loadfile
EXTRAS := crf export onnx openvino studio datasets distributed cnn doctor tensorboard heic

.PHONY: demo test test-fast lint docs bench audit wheel lock setup setup-dev clean

demo: setup
	$(BIN)/mupvss run configs/demo.toml --out runs/demo

# By two workers, each on a core of its own. In two runs: what brings thread pools of its own (a browser's driver, ONNX Runtime, OpenVINO) is kept from the rest.
test: setup-dev
	$(BIN)/pytest $(WORKERS) --ignore tests/studio --ignore tests/test_deploy.py
	$(BIN)/pytest $(WORKERS) tests/studio tests/test_deploy.py

# What takes a moment each: for while one works. All of them: make test.
test-fast: setup-dev
	$(BIN)/pytest $(WORKERS) -m "not slow"

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup-dev
	$(BIN)/mkdocs build --strict --site-dir runs/site

bench: setup-dev
	$(BIN)/python benchmarks/speed.py all --wide
	$(BIN)/python benchmarks/random_walk.py
	$(BIN)/python benchmarks/coco_size.py

audit: setup-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt

# The time of the commit stands in the files of the wheel, so that everyone who builds the same commit gets the same bytes.
wheel: setup-dev
	rm -rf build dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/bom cyclonedx-bom
	PYTHONPATH=build/bom $(BIN)/python -m cyclonedx_py requirements requirements-hashed.txt --output-reproducible --output-file dist/bom.json
	rm -rf build
	cd dist && sha256sum *.whl bom.json

lock: setup-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --constraint constraints.txt --generate-hashes --universal --quiet \
		--python-version 3.11.5 --no-annotate --custom-compile-command "make lock" --no-config --output-file requirements-hashed.txt

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# PyTorch first and alone: its CPU build must be there before anything that would ask for a newer one.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[crf]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,tensorboard,crf,cnn,datasets,distributed,doctor,export,heic,onnx,openvino,studio,docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
