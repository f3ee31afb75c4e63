# Every target sets itself up and says where its results are. Nothing that is stored is computed again.
PRESET ?= quick
RESULTS ?= results
MODEL ?=
TASK ?=
ARGS ?=

MAKEFLAGS += --no-print-directory
PYTHON := .venv/bin/python
READY := .venv/.ready
# A name in experiments/conf is that config; anything else is a hub id or folder, or a data file.
model := $(if $(MODEL),$(if $(wildcard experiments/conf/model/$(MODEL).yaml),model=$(MODEL),model=hub model.path=$(MODEL)))
task := $(if $(TASK),$(if $(wildcard experiments/conf/task/$(TASK).yaml),task=$(TASK),task=local task.path=$(TASK)))

# Trains what is missing, then derives tables and figures from the stored runs, also of a study in which some runs failed.
define study
	@$(PYTHON) -m experiments.run study=$(1) preset=$(PRESET) results_dir=$(RESULTS) $(model) $(task) $(ARGS); status=$$?; \
	[ $$status -eq 0 ] || [ -s $(RESULTS)/$(PRESET)/$(1)/sweep.jsonl ] || exit $$status; \
	$(PYTHON) -m analysis.study $(RESULTS)/$(PRESET)/$(1) && exit $$status
endef

# Measures what is missing, then derives tables and figures.
define measured
	$(if $(TASK),$(error $@ measures a model, not a task: leave TASK out))
	@$(PYTHON) -m experiments.$(1) --preset $(PRESET) --out $(RESULTS)/$(PRESET)/$(1) $(if $(MODEL),--model $(if $(wildcard experiments/conf/model/$(MODEL).yaml),asset:)$(MODEL)) $(ARGS)
	@$(PYTHON) -m analysis.study $(RESULTS)/$(PRESET)/$(1)
endef

.PHONY: help setup ablate-rank subspace-plots compare-methods scaling alpha-study init-study latency gradient-check lint test \
	bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PRESET=quick|desk|paper|smoke   size of the study ($(PRESET))"
	@echo "  MODEL=minilm|HUB_ID|FOLDER      TASK=rotten_tomatoes|glue/sst2|FILE.csv"
	@echo "  RESULTS=FOLDER                  where runs and tables go ($(RESULTS))"
	@echo "  ARGS='seed=0,1,2 method.r=4,8'  further settings, as in experiments/conf"

setup: $(READY) ## create .venv and install the pinned packages

$(READY): requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

ablate-rank: $(READY) ## Table 6: quality for ranks 1 to 64
	$(call study,rank_ablation)

subspace-plots: $(READY) ## Figures 3, 4, 6, 7: how similar the learnt subspaces are
	$(call study,subspace)

compare-methods: $(READY) ## Table 2: every method, each with its own tuned learning rate
	$(call study,compare_methods)

scaling: $(READY) ## Figure 2: quality against the number of trainable parameters
	$(call study,scaling)

alpha-study: $(READY) ## alpha / r, with and without a learning rate tuned for it
	$(call study,alpha)

init-study: $(READY) ## where A and B start: B = 0, A = 0, both zero, PiSSA, LoRA-GA, orthogonal
	$(call study,init)

latency: $(READY) ## Table 1, Figure 5: one forward pass, merged and unmerged LoRA, adapters
	$(call measured,latency)

gradient-check: $(READY) ## LoRA's gradients against autograd, the first step, FLOPs
	$(call measured,gradients)

lint: $(READY) ## ruff and mypy
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

test: lint ## lint and all tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto $(ARGS)

bench: $(READY) ## speed against peft + transformers.Trainer, as ratios
	$(PYTHON) -m bench.training --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(ARGS)

clean: ## remove the environment and caches, but no results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
