# make demo: see a brain restored.  make demo-dicom: from DICOM to DICOM.  make test: lint, types and tests.
# Each makes .venv with what it needs; make test-integrations makes three more, the last as images do, for a moment.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p --version >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

SOAK := soak-runs fuzz-dicom soak-training fuzz-nifti soak-lines soak-cases soak-workers fuzz-cine soak-words
INTEGRATIONS := test-deploy test-label test-images
.PHONY: demo demo-dicom pictures results test test-integrations $(INTEGRATIONS)
.PHONY: coverage soak fuzz $(filter soak-%,$(SOAK)) lint lock sbom audit clean

# A fine T1w volume of a whole head; without one, the brain alone.
HEAD ?= $(wildcard ../shared/data/whole_head/sub-09*.nii.gz)

demo: $(VENV)/.run
	$(BIN)/python -m scripts demo --output demo $(if $(HEAD),--head $(HEAD))

# A DICOM study with a T1; without one, a series is made of the MNI152 brain.
DICOM ?= ../shared/data/dicom/glioma_ge_study

demo-dicom: $(VENV)/.run
	$(BIN)/python -m scripts demo_dicom --study $(DICOM) --output demo/dicom

# The front page's picture, of a subject that no weights were trained on.
BRAIN ?= ../shared/data/t1/sub-05_t1.nii.gz
pictures: $(VENV)/.run
	$(BIN)/python -m scripts demo --brain $(BRAIN) --output demo/pictures
	cp demo/pictures/close_up.webp docs/figures/close_up.webp

# Every table of docs/results.md by one version, in hours: make results T1=FOLDER GLIOMA=FOLDER.
results: $(VENV)/.run
	$(MAKE) -f docs/results.mk PYTHON=$(BIN)/python

test: lint
	$(BIN)/python -m pytest

# MONAI Deploy's and MONAI Label's versions and ours do not mix with everything: each has an environment of its own.
test-integrations: $(INTEGRATIONS)
test-deploy: $(VENV)-deploy/.run
	$(VENV)-deploy/bin/python -m pytest -n 0 tests/integrations/test_deploy.py
test-label: $(VENV)/.dev $(VENV)-label/.run
	LABEL_PYTHON=$(abspath $(VENV))-label/bin/python $(BIN)/python -m pytest tests/integrations/test_label.py tests/integrations/test_slicer.py
test-images: $(VENV)/.dev
	INSTALL_IMAGE=1 $(BIN)/python -m pytest -n 0 --timeout 0 tests/integrations/test_containers.py

# At length what tests do for moments, two at once: kills of runs, of training and of workers, mutated files, words in every text
# of DICOM, thousands of cases; and whether tests notice broken lines. Ends with a table of what came of each, long ones first.
soak: $(VENV)/.dev
	$(BIN)/python tests/soak.py $(SOAK)
soak-runs:
	KILLS=50 $(BIN)/python -m pytest -n 0 --timeout 0 tests/running/test_ledger.py -k killed
soak-training:
	KILLS=200 $(BIN)/python -m pytest -n 0 --timeout 0 tests/training/test_checkpoint_kills.py
soak-workers:
	KILLS=10 $(BIN)/python -m pytest -n 0 --timeout 0 tests/running/test_cluster.py -k killed
soak-words:
	CANARY_SHARE=1 $(BIN)/python -m pytest -n 0 --timeout 0 tests/data/dicom/test_canary.py tests/data/cine -k "canary or gets_out"
soak-cases:
	$(BIN)/python tests/many_cases.py 2000
soak-lines:
	$(BIN)/python tests/mutations.py

fuzz: $(VENV)/.dev
	$(MAKE) --jobs=2 --output-sync=target fuzz-dicom fuzz-nifti fuzz-cine
fuzz-cine: FILES := 20000
fuzz-%: FILES := 100000
fuzz-%:
	$(BIN)/python tests/fuzz.py $* $(FILES)

# Lines of scripts/ that tests run, also in processes of their own; integrations run in environments of their own.
coverage: $(VENV)/.dev
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 0
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --sort=cover

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# requirements-lock.txt: all that requirements.txt brings for Python 3.11 and later, with the hashes of PyPI's files; but for
# torch, which has one version and many builds, and the CUDA packages that one of these asks for.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton
lock: $(VENV)-tools/.run
	for package in $(CUDA); do echo "$$package ; python_version < '3'"; done > $(VENV)-tools/no_cuda.txt
	$(VENV)-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --default-index https://pypi.org/simple \
	  --generate-hashes --override $(VENV)-tools/no_cuda.txt --no-emit-package torch --custom-compile-command "make lock" \
	  --output-file requirements-lock.txt requirements.txt

# What the program consists of, as CycloneDX: the locked packages with their hashes, and torch.
sbom: $(VENV)-tools/.run
	{ grep '^torch==' requirements.txt; cat requirements-lock.txt; } | $(VENV)-tools/bin/cyclonedx-py requirements - \
	  --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json

# Known vulnerabilities of the locked packages; fails where the database knows nothing of one, and where it cannot be asked.
AUDIT ?= osv
AUDITED = --strict --disable-pip --vulnerability-service $(AUDIT)
KNOWN_TO_osv := https://api.osv.dev/v1/vulns/PYSEC-2022-43015
KNOWN_TO_pypi := https://pypi.org/pypi/pip-audit/2.10.1/json
audit: $(VENV)-tools/.run
	@$(VENV)-tools/bin/python -c "from urllib.request import urlopen; urlopen('$(KNOWN_TO_$(AUDIT))', timeout=20)" 2>/dev/null || \
	  { echo "audit: $(AUDIT) cannot be asked from here ($(KNOWN_TO_$(AUDIT))); nothing was audited" >&2; exit 1; }
	grep '^torch==' requirements.txt > $(VENV)-tools/torch.txt
	$(VENV)-tools/bin/pip-audit $(AUDITED) --requirement requirements-lock.txt
	$(VENV)-tools/bin/pip-audit $(AUDITED) --no-deps --requirement $(VENV)-tools/torch.txt

# torch first and alone: with it in place, nothing that follows asks for another build of it.
$(VENV)/.run: requirements.txt requirements-lock.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-lock.txt
	touch $@

$(VENV)-tools/.run: requirements-tools.txt
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)-deploy/.run: requirements.txt requirements-dev.txt scripts/integrations/deploy/requirements.txt
	$(PYTHON) -m venv $(VENV)-deploy
	$(VENV)-deploy/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(VENV)-deploy/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
	  -r scripts/integrations/deploy/requirements.txt $$(grep '^pytest' requirements-dev.txt)
	touch $@

# The room's requirements.txt says why in this order.
LABEL_ROOM := scripts/integrations/label
$(VENV)-label/.run: $(LABEL_ROOM)/requirements.txt $(LABEL_ROOM)/torchvision_operators.py
	$(PYTHON) -m venv $(VENV)-label
	$(VENV)-label/bin/python -m pip install --quiet --disable-pip-version-check $$(grep -E '^(torch|setuptools)==' $<)
	SAM2_BUILD_CUDA=0 $(VENV)-label/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -r $<
	for site in $(VENV)-label/lib/python3*/site-packages; do cp $(LABEL_ROOM)/torchvision_operators.py $$site; \
	  echo "import torchvision_operators" > $$site/torchvision_operators.pth; done
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-deploy $(VENV)-label $(VENV)-tools demo eval eval_downstream runs
