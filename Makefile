# One word a chore. Each creates .venv when it is missing and reuses it when it is there.

ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
READY := .venv/.ready
ARGS ?=
# An index of PyTorch builds, such as https://download.pytorch.org/whl/cpu, whose builds need 1 GB in place of 5.
TORCH_INDEX ?=
# no: install the newest packages, not those of requirements-dev.txt.
LOCKED ?= yes

.PHONY: bench serve test quick long faults check docs pictures format smoke reference turned augmented ablation grocery tuned kernel extraction gpu wheel \
	lock audit clean
.DEFAULT_GOAL := bench

# Where this is set, every process compiles all that it imports again: torch takes 10 s in place of 4, and the tests
# start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

bench: $(READY)  ## the default table from the embedded dataset
	$(BIN)/python -m benchmark run $(ARGS)

serve: $(READY)  ## a search by photos over the embedded dataset, or over what ARGS names
	$(BIN)/python -m benchmark serve $(ARGS)

# By file: what the tests of one file share, a run or a fitted extractor, is then made once.
WORKERS := -n auto --maxprocesses 4 --dist loadfile

test: $(READY)  ## every test but the longest, on up to four cores; ARGS="-n0 --benchmark-only" measures the kernel instead
	$(BIN)/python -m pytest $(WORKERS) -m "not long" $(ARGS)

long: $(READY)  ## the longest tests: simulations, exporters, large inputs
	$(BIN)/python -m pytest $(WORKERS) --dist load -m long $(ARGS)

quick: $(READY)  ## the tests without those marked slow
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not long" $(ARGS)

faults: export RETRIEVAL_BENCH_FAULTS = long
faults: $(READY)  ## disks, files and locks that fail, tried as often as it takes: 20,000 damaged records, 20,000 races
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist load tests/faults $(ARGS)

check: $(READY)  ## formatting, lint, types, and the documents: a link that leads nowhere fails
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/python -m mkdocs build --quiet --strict

check docs: export NO_MKDOCS_2_WARNING = 1  # of mkdocs-material, about its successor

docs: $(READY)  ## all pages of documentation as a site in site/
	$(BIN)/python -m mkdocs build --quiet --strict

pictures: $(READY)  ## the pictures in docs/pictures anew; needs Chromium
	$(BIN)/python .ci/pictures.py

format: $(READY)  ## put formatting and imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke reference: export RETRIEVAL_BENCH_WEIGHTS =  # the packaged weights and no others

smoke: $(READY)  ## the default line-up, compared with the committed reference
	$(BIN)/python -m benchmark run --recompute --overwrite --out .smoke
	$(BIN)/python -m benchmark diff results/reference/products .smoke

reference: $(READY)  ## make the committed reference anew; say in the commit why a number moved
	$(BIN)/python -m benchmark run --recompute --overwrite --out results/reference/products

TURNED := phash,dhash,ahash,whash,colorhash,block-mean,crop-resistant,sift,sift+verify=100,phash+verify=100,orb,color

turned: $(READY)  ## products as they are, and with turned and cropped queries: who still finds them, and at what cost
	$(BIN)/python -m benchmark run --methods "$(TURNED)" --overwrite --out results/turned/as-is
	$(BIN)/python -m benchmark run --dataset products:queries=turned --methods "$(TURNED)" --overwrite \
		--out results/turned/products
	$(BIN)/python -m benchmark.document docs/classical.md

# One change of training images at a time, all at that strength, and what train does by default, with noise and without; each
# twice. Of an option given twice the later counts.
AUGMENT_none := none
PLAIN := crop=1,flip=0,rotate=0,colour=0,hue=0,noise=0
AUGMENT_crop := $(PLAIN),crop=0.35
AUGMENT_flip := $(PLAIN),flip=0.5
AUGMENT_rotate := $(PLAIN),rotate=30
AUGMENT_colour := $(PLAIN),colour=0.5,hue=0.02
AUGMENT_noise := $(PLAIN),noise=0.2
AUGMENT_erase := $(PLAIN),erase=0.5
AUGMENT_all := crop=0.35,flip=0.5,rotate=30,colour=0.5,hue=0.02,noise=0.2,erase=0.5
AUGMENT_usual := crop=0.35,flip=0.5,rotate=10,colour=0.3,hue=0.02,noise=0.03
AUGMENT_noiseless := $(AUGMENT_usual),noise=0
AUGMENTED := $(foreach seed,0 1,$(foreach one,none crop flip rotate colour noise erase all usual noiseless,mine/augmented/$(one)-$(seed).pth))
COMMA := ,
NONE :=
SPACE := $(NONE) $(NONE)
AUGMENTED_SIDE := 128

augmented: $(READY) $(AUGMENTED)  ## which augmentation in training helps against which perturbation of queries: 20 trainings, about an hour
	$(BIN)/python -m benchmark run --perturb all --severity 3 --overwrite --out results/augmented/products \
		--methods "$(LITE):size=$(AUGMENTED_SIDE):crop=false,$(subst $(SPACE),$(COMMA),$(foreach file,$(AUGMENTED),$(LITE):weights=$(file):size=$(AUGMENTED_SIDE):crop=false))"
	$(BIN)/python -m benchmark.document docs/training.md

# Its head learns from the images as they are (--augmentations 1), so that --augment alone differs.
mine/augmented/%.pth: | $(READY)
	mkdir -p $(dir $@)
	$(BIN)/python -m benchmark train --method $(LITE) --mode finetune --dataset products --epochs 6 --image-size $(AUGMENTED_SIDE) \
		--augmentations 1 --augment "$(AUGMENT_$(firstword $(subst -, ,$*)))" --seed $(lastword $(subst -, ,$*)) --holdout 0 --out $@

ENCODERS := sift,sift:words=32,sift:words=128,sift:encode=vlad:words=64,sift:encode=vlad,sift:encode=bow:words=512,sift:encode=bow,sift:encode=bow:words=16384,sift:encode=bow:soft=3
DESCRIPTORS := sift,sift:root=false,sift:colour=grey,sift:colour=opponent,sift:upright=true,sift:power=1.0,orb
GRIDS := dense-sift,dense-sift:colour=grey,hog,hog:opponent=false,hog:encode=global
COLOURS := color,color:scales=1,hsv,lab,moments,lbp
WHITENING := sift,sift:whiten=512,color,color:whiten=0
JOINS := sift,color,sift+color,sift+color+concat,sift+color+rrf,sift+color+vote,sift+dense-sift+color
STEPS := sift,sift+verify=20,sift+verify=100,sift+color,sift+color+qe=5,sift+color+reciprocal
ABLATION := $(BIN)/python -m benchmark run --dataset grocery:queries=val --data-root GroceryStoreDataset --overwrite

ablation: $(READY)  ## what the defaults of the classical methods rest on; needs a clone at GroceryStoreDataset
	$(ABLATION) --methods "$(ENCODERS)" --out results/ablation/encoders
	$(ABLATION) --methods "$(DESCRIPTORS)" --out results/ablation/descriptors
	$(ABLATION) --methods "$(GRIDS)" --out results/ablation/grids
	$(ABLATION) --methods "$(COLOURS)" --out results/ablation/colours
	$(ABLATION) --methods "$(WHITENING)" --out results/ablation/whitening
	$(ABLATION) --methods "$(JOINS)" --out results/ablation/joins
	$(ABLATION) --methods "$(STEPS)" --out results/ablation/steps
	$(BIN)/python -m benchmark.document docs/classical.md

WEIGHTS ?= weights
TUNED := mine/squeezenet1_0-grocery.pth
RMAC := squeezenet1_0:pool=rmac:flip=true:whiten=512:level=0.5:compute=auto
FINE := squeezenet1_0:weights=$(TUNED):pool=avg:flip=true:whiten=256:level=0.5:compute=auto
CLASSICAL := sift,dense-sift,orb,hog,color,phash,dhash,whash,sift+color
CLASSIFIED := sift+dense-sift+color
NETWORKS := squeezenet1_0,$(RMAC),$(RMAC)+color,$(RMAC)+sift+color,$(FINE),$(FINE)+sift+color
LITE := efficientnet_lite0
LITE_TUNED := mine/efficientnet_lite0-grocery.pth
LITE_BEST := :pool=rmac:flip=true:whiten=512:level=0.5
LITES := $(LITE),$(LITE)$(LITE_BEST),$(LITE):weights=$(LITE_TUNED):pool=rmac:flip=true:whiten=256:level=0.5
GROCERY := $(BIN)/python -m benchmark run --dataset grocery --data-root GroceryStoreDataset --overwrite

grocery: $(READY) $(TUNED) $(LITE_TUNED)  ## what was chosen on val, on the test list; needs the clone, and SqueezeNet's weights in WEIGHTS
	$(GROCERY) --methods "$(CLASSICAL)" --out results/grocery-test/classical
	$(GROCERY) --methods "$(CLASSIFIED)" --classifiers svm,logistic,knn --out results/grocery-test/heads
	$(GROCERY) --methods "$(NETWORKS)" --weights $(WEIGHTS) --classifiers svm,logistic --out results/grocery-test/networks
	$(GROCERY) --methods "$(LITES)" --classifiers svm,logistic --out results/grocery-test/efficientnet-lite0
	$(BIN)/python -m benchmark.document docs/classical.md docs/deep.md

tuned: $(READY)  ## what half an hour of search finds on val, on the test list; needs the clone
	rm -f results/grocery-test/tuned/tuning.jsonl
	$(BIN)/python -m benchmark tune --budget 30m --dataset grocery --val grocery:queries=val --data-root GroceryStoreDataset \
		--out results/grocery-test/tuned
	$(BIN)/python -m benchmark.document docs/tuning.md

$(LITE_TUNED): | $(READY)
	mkdir -p $(dir $(LITE_TUNED))
	$(BIN)/python -m benchmark train --method $(LITE) --mode finetune --dataset grocery --data-root GroceryStoreDataset \
		--epochs 24 --progressive-resizing 160 --early 0.7 --lr 5e-4 --augmentations 2 --freeze 0.15 --precision float32 \
		--holdout 0 --out $(LITE_TUNED)

$(TUNED): | $(READY)
	mkdir -p $(dir $(TUNED))
	$(BIN)/python -m benchmark train --method squeezenet1_0 --mode finetune --weights $(WEIGHTS) --dataset grocery \
		--data-root GroceryStoreDataset --epochs 36 --progressive-resizing 160 --early 0.7 --lr 5e-4 --augmentations 2 --freeze 0.15 \
		--holdout 0 --out $(TUNED)

kernel: $(READY)  ## the top-k kernel against its peers, in one table
	$(BIN)/python -m benchmark.kernel $(ARGS)

extraction: $(READY)  ## files to features against what people write and use, in one table
	$(BIN)/python -m benchmark.extraction $(ARGS)

gpu: $(READY)  ## everything that a GPU is used for, on the card that is there; ARGS=--dry runs the same on the CPU
	$(BIN)/python -m benchmark.gpu --document docs/deep.md $(ARGS)

wheel: $(READY)  ## sdist and wheel in dist/, and the wheel used in an empty environment outside this tree
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python .ci/wheel.py

lock:  ## requirements-dev.txt anew; ARGS=--upgrade for newer versions
	$(PYTHON) .ci/lock.py $(ARGS)

audit:  ## known weaknesses of the packages in requirements-dev.txt; asks a service in the network
	$(PYTHON) .ci/audit.py

clean:
	rm -rf .venv .smoke .gpu-dry site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml requirements-dev.txt .ci/install.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	TORCH_INDEX="$(TORCH_INDEX)" LOCKED="$(LOCKED)" $(BIN)/python .ci/install.py
	touch $(READY)
