# One target, one command. MODEL, DATA, WEIGHTS, ... are passed on; make help lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PYTHONUNBUFFERED := 1
# Seconds of silence that uv bears: a mirror may first have to fetch what it is asked for.
export UV_HTTP_TIMEOUT ?= 180

.DEFAULT_GOAL := help
.PHONY: help setup demo train export bench gpu-check report serve load bento lint test docs

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 11
	@echo
	@echo 'MODEL=mobilenet_v3 DATA=digits (or a folder of images) WEIGHTS=imagenet|random'
	@echo 'ARTIFACT=path HOST=127.0.0.1 PORT=3000 ARGS="more flags; --help lists them"'

setup: $(READY) ## Make .venv, once and again when the requirements change

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV): a minute or some, 6 GB" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[openvino,litert,ncnn,timm,lite,heic,parquet,remote,grpc,tune,dev,docs]'
	touch $@

demo: setup ## Train, export, bench, report, serve and ask, in three minutes
	$(BIN)/python demo.py $(ARGS)

train: setup ## Train MODEL on DATA by RECIPE; RESUME=1 goes on with a run that was cut off
	$(BIN)/python -m training $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data '$(DATA)') $(if $(RECIPE),--recipe-name $(RECIPE)) $(if $(RESUME),--resume) $(if $(FRESH),--fresh) $(ARGS)

export: setup ## Export MODEL (its run on DATA, or WEIGHTS) to artifacts
	$(BIN)/python -m export run $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data '$(DATA)') $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

bench: setup ## Measure artifacts (all, or those of MODEL and DATA) and write the report
	$(BIN)/python -m bench run $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data '$(DATA)') $(ARGS)

gpu-check: ## On an NVIDIA GPU: all that only it can show, in half an hour; without .venv by PYTHON
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m bench gpu-check $(ARGS)

report: setup ## Write the report again from the figures measured last
	$(BIN)/python -m bench report $(ARGS)

serve: setup ## Serve the fastest checked artifact of MODEL and DATA, or ARTIFACT; alone, what pick chose
	$(if $(ARTIFACT)$(MODEL)$(POCKETNETS_ARTIFACT),,@test -e artifacts/choice.json || test -d artifacts/efficientnet_lite0-imagenet || $(BIN)/python -m export run --model efficientnet_lite0 --weights imagenet)
	$(BIN)/python -m serving $(if $(ARTIFACT),--artifact '$(ARTIFACT)') $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data '$(DATA)') $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(ARGS)

load: setup ## Measure the running service against the same work without HTTP
	$(BIN)/python -m bench load $(if $(PORT),--url http://127.0.0.1:$(PORT)/predict) $(if $(ARTIFACT),--artifact '$(ARTIFACT)') $(ARGS)

bento: setup ## Build a Bento of the fastest checked artifact of MODEL and DATA, or ARTIFACT
	$(BIN)/python -m serving.bento $(if $(ARTIFACT),--artifact '$(ARTIFACT)') $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data '$(DATA)') $(ARGS)

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup ## Run the tests; ARGS=--slow runs the long ones too, ARGS="-n 0" one after the other
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

docs: setup ## Build the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo site/index.html
