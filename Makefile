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

.PHONY: help setup ablate-rank subspace-plots compare-methods scaling alpha-study init-study table2 table3 table4 table13 \
	table14 table15 low-data few-shot rank-generation latency gradient-check lint test bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PRESET=quick|desk|paper|smoke   size of the study ($(PRESET))"
	@echo "  MODEL=minilm|HUB_ID|FOLDER      TASK=rotten_tomatoes|glue/sst2|FILE.csv|PAIRS.jsonl"
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

table2: $(READY) ## Table 2: LoRA on GLUE; PRESET=paper: RoBERTa and DeBERTa, with the paper's settings
	$(call study,table2)

table3: $(READY) ## Table 3: E2E, text from meaning representations: LoRA and its rivals
	$(call study,table3)

table4: $(READY) ## Table 4: SQL from questions, classification as text, headlines or summaries
	$(call study,table4)

table13: $(READY) ## Table 13: DART, text from triples
	$(call study,table13)

table14: $(READY) ## Table 14: WebNLG, text from triples, of categories seen and unseen
	$(call study,table14)

table15: $(READY) ## Table 15: a language model's quality against trained parameters; LoRA with prefixes
	$(call study,table15)

low-data: $(READY) ## Table 16: few training examples, or many
	$(call study,table16)

few-shot: $(READY) ## Table 8: demonstrations in the prompt, or training
	$(call study,table8)

rank-generation: $(READY) ## Table 18: LoRA's rank on E2E
	$(call study,rank_generation)

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
	$(PYTHON) -m bench.training --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(if $(MODEL),--model $(MODEL)) $(ARGS)

clean: ## remove the environment and caches, but no results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
