# Every target sets itself up and says where its results are. Nothing that is stored is computed again.
PRESET ?= quick
RESULTS ?= results
JOBS ?= auto
MODEL ?=
TASK ?=
TEXT ?=
ADAPTERS ?=
ADAPTER ?=
CHECKPOINT ?=
OUT ?=
BASE ?=
BUDGET ?=
MARGIN ?=
CONFIRM ?=
ARGS ?=

MAKEFLAGS += --no-print-directory
PYTHON := .venv/bin/python
LAB := $(PYTHON) -m lora_lab
# Compiling all that is installed takes longer than the rest of the setup: Python compiles what is imported.
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile
# Containers often set it: each command would then compile torch and transformers anew, which takes longer than a quick run.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready
EXTRAS := .venv/.extras
# As they are typed: the shell hands them on in quotes, and experiments/own.py puts them into Hydra's.
export LAB_MODEL := $(value MODEL)
export LAB_TASK := $(value TASK)
export LAB_TEXT := $(value TEXT)
export LAB_BASE := $(value BASE)
export LAB_BUDGET := $(value BUDGET)
export LAB_MARGIN := $(value MARGIN)
# A name in experiments/conf is that config; anything else is a hub id or folder, or a data file.
own = $(if $(LAB_MODEL),--model="$$LAB_MODEL") $(if $(LAB_TASK),--task="$$LAB_TASK")
# What is no study takes a config's name as that of an asset.
asset = $(if $(word 2,$(1)),,$(if $(wildcard experiments/conf/model/$(1).yaml),asset:))

# Trains what is missing, measures what is missing, then derives tables and figures from what is stored, also of a study
# in which some runs failed; $(2): options of its measurement. A command that could not begin leaves all as it was.
define study
	@$(LAB) study $(1) $(if $(2),$(2) --) preset=$(PRESET) results_dir=$(RESULTS) engine.jobs=$(JOBS) $(own) $(ARGS)
endef
text = $(if $(LAB_TEXT),--text="$$LAB_TEXT")

.PHONY: help setup ablate-rank subspace-plots compare-methods scaling alpha-study init-study weight-types \
	amplification w-vs-delta spectrum truncation forgetting memory qlora memory-methods table2 table3 table4 \
	table13 table14 table15 low-data few-shot rank-generation rank-data steps latency gradient-check tables advise advice-study claims findings report compare shrink extract docs lint test fuzz kill-test \
	bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PRESET=quick|desk|paper|smoke   size of the study ($(PRESET)); desk1: desk as results/desk was first made"
	@echo "  MODEL=minilm|HUB_ID|FOLDER      TASK=rotten_tomatoes|glue/sst2|FILE.csv|PAIRS.jsonl"
	@echo "  RESULTS=FOLDER                  where runs and tables go ($(RESULTS))"
	@echo "  JOBS=auto|1|2|…                 runs at once ($(JOBS)): by cores, memory and GPUs, or so many"
	@echo "  ARGS='seed=0,1,2 method.r=4,8'  further settings, as in experiments/conf"
	@echo "  ARGS='only.model=minilm'        a part of a study; only.task=…, only.method=…, only.method.r=1,8"

setup: $(READY) ## create .venv and install the pinned packages

$(READY): requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	python3 -m venv .venv
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

# Quantised bases, and two metrics of E2E: a quarter more to download, for the few targets that need them.
$(EXTRAS): $(READY) requirements-extras.lock
	DISABLE_CUDA=1 $(PIP) -r requirements-extras.lock
	@touch $@

ablate-rank: $(READY) ## Table 6: quality for ranks 1 to 64
	$(call study,rank_ablation)

subspace-plots: $(READY) ## Figures 3, 4, 6, 7: how similar the learnt subspaces are
	$(call study,subspace)

amplification: $(READY) ## Table 7, Section H.4: how much delta_w amplifies what W has little of
	$(call study,amplification)

w-vs-delta: $(READY) ## Figure 8: are delta_w's directions among the top ones of W?
	$(call study,w_vs_delta)

spectrum: $(READY) ## spectra and ranks of the update, full fine-tuning's and LoRA's, intruders
	$(call study,spectrum)

truncation: $(READY) ## how much of an update's effect its own truncation to rank k keeps
	$(call study,truncation)

compare-methods: $(READY) ## Table 2: every method, each with its own tuned learning rate
	$(call study,compare_methods)

scaling: $(READY) ## Figure 2: quality against the number of trainable parameters
	$(call study,scaling)

alpha-study: $(READY) ## alpha / r, with and without a learning rate tuned for it
	$(call study,alpha)

init-study: $(READY) ## where A and B start: B = 0, A = 0, both zero, PiSSA, LoRA-GA, orthogonal
	$(call study,init)

weight-types: $(READY) ## Table 5: which weight types should a budget of parameters go to?
	$(call study,weight_types)

table2: $(READY) ## Table 2: LoRA on GLUE; PRESET=paper: RoBERTa and DeBERTa, with the paper's settings
	$(call study,table2)

table3: $(EXTRAS) ## Table 3: E2E, text from meaning representations: LoRA and its rivals
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

rank-generation: $(EXTRAS) ## Table 18: LoRA's rank on E2E
	$(call study,rank_generation)

forgetting: $(READY) ## what a method forgets: loss on other texts before and after; TEXT=FILE.txt for one of yours
	$(call study,forgetting,$(text))

rank-data: $(READY) ## do more training data need a larger rank?
	$(call study,rank_data)

steps: $(READY) ## how the gap to full fine-tuning, the best rate and phi(1,1) move with training steps
	$(call study,steps)

latency: $(READY) ## Table 1, Figure 5: one forward pass, merged and unmerged LoRA, adapters
	$(call study,latency)

gradient-check: $(READY) ## LoRA's gradients against autograd, the first step, FLOPs
	$(call study,gradients)

memory: $(EXTRAS) ## what training costs in memory: planned, measured, and what fits on a card
	$(call study,memory)

qlora: $(EXTRAS) ## QLoRA: base weights in 16, 8, 4 and 2 bits
	$(call study,qlora,$(text))

memory-methods: $(READY) ## GaLore, BAdam and Freeze beside full fine-tuning and LoRA: quality, memory, rank of the update
	$(call study,memory_methods)

tables: $(READY) ## every table and figure of PRESET, from stored runs or, without any, from the studies' records; then claims and report
	@$(LAB) tables $(RESULTS)/$(PRESET)
	@$(MAKE) report

advise: $(READY) ## which rank, weights and rate for MODEL and TASK: BUDGET=20m|RUNS MARGIN=0.5|5% CONFIRM=1 OUT=FOLDER ARGS='--heal'
	@$(LAB) advise --preset $(PRESET) --results $(RESULTS) $(own) $(if $(LAB_BUDGET),--budget="$$LAB_BUDGET") $(if $(LAB_MARGIN),--margin="$$LAB_MARGIN") $(if $(filter-out 0,$(CONFIRM)),--confirm) $(if $(OUT),--out $(OUT)) engine.jobs=$(JOBS) $(ARGS)

advice-study: $(READY) ## is the advice as good as a sweep, at which cost? its regret, beside rules of thumb
	@$(PYTHON) -m analysis.advise.study --preset $(PRESET) --results $(RESULTS) $(own) engine.jobs=$(JOBS) $(ARGS)

claims: $(READY) ## the scoreboard: what the studies of PRESET say of the claims of the paper and of guides
	@$(LAB) claims $(RESULTS)/$(PRESET)

findings: $(READY) ## which findings of FINDINGS.md their tables no longer say; ARGS=--written: all were read again
	@$(PYTHON) -m analysis.findings $(ARGS)

report: claims ## every table and figure of PRESET on one page, the scoreboard first: report.html, report.md
	@$(LAB) report $(RESULTS)/$(PRESET) $(ARGS)

compare: $(READY) ## any adapters side by side: ADAPTERS='RUN_ID FOLDER HUB_ID FILE.pt' BASE=minilm|HUB_ID|FOLDER
	@$(LAB) compare $(ADAPTERS) $(if $(LAB_BASE),--base=$(call asset,$(LAB_BASE))"$$LAB_BASE") --runs $(RESULTS)/runs --out $(RESULTS)/compare $(ARGS)

shrink: $(READY) ## an adapter made smaller, without training: ADAPTER=RUN_ID|FOLDER|HUB_ID OUT=FOLDER ARGS='--energy 0.95'
	@$(LAB) shrink $(ADAPTER) $(if $(LAB_BASE),--base=$(call asset,$(LAB_BASE))"$$LAB_BASE") $(if $(LAB_TASK),--task="$$LAB_TASK") --runs $(RESULTS)/runs --out $(or $(OUT),$(RESULTS)/shrink) $(ARGS)

extract: $(READY) ## the update of a full checkpoint as a LoRA adapter: CHECKPOINT=FOLDER|HUB_ID|FILE BASE=MODEL OUT=FOLDER ARGS='--rank 16'
	@$(LAB) extract $(CHECKPOINT) $(if $(LAB_BASE),--base=$(call asset,$(LAB_BASE))"$$LAB_BASE") --runs $(RESULTS)/runs --out $(or $(OUT),$(RESULTS)/extract) $(ARGS)

DOCS := .venv/.docs
$(DOCS): $(READY) requirements-docs.lock
	$(PIP) -r requirements-docs.lock
	@touch $@

docs: $(DOCS) ## the documentation as a site, in site/; first what of it is made from code and results
	@$(PYTHON) -m analysis.dictionary && $(PYTHON) -m analysis.reference && $(PYTHON) -m analysis.report.texts
	@$(PYTHON) -m analysis.report.overview
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

lint: $(READY) ## ruff and mypy
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

test: lint $(EXTRAS) ## lint and all tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist worksteal $(ARGS)

fuzz: $(EXTRAS) ## made-up adapters, data, settings, SQL and names, many of them: N=5000 SEED=1
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 FUZZ_N=$(or $(N),5000) FUZZ_SEED=$(or $(SEED),1) $(PYTHON) -m pytest -n auto -k fuzz --timeout 0 $(ARGS)

kill-test: $(READY) ## a sweep that is killed at random points, N=40 times, ends in the same table: N=40 SEED=1
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 KILLS=$(or $(N),40) FUZZ_SEED=$(or $(SEED),1) $(PYTHON) -m pytest -k killed_again --timeout 0 tests/experiments/engines $(ARGS)

bench: $(READY) ## speed: training and a sweep against peft + transformers.Trainer, the phases of a run, Section 7 and extract at GPT-3's size against dense SVDs
	$(LAB) bench training --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(if $(LAB_MODEL),--model="$$LAB_MODEL") $(ARGS)
	$(LAB) bench sweep --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(SWEEP)
	$(LAB) bench phases --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(PHASES)
	$(LAB) bench section7 --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(SECTION7)
	$(LAB) bench extract --out $(RESULTS)/$(if $(filter desk,$(PRESET)),desk/)bench $(EXTRACT)

clean: ## remove the environment and caches, but no results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis site *.egg-info
