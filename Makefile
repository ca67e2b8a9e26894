# make demo: see a brain restored.  make demo-dicom: from DICOM to DICOM.  make test: lint, types and tests.
# Each makes .venv with what it needs; make test-integrations makes two more.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p --version >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo demo-dicom test test-integrations soak fuzz lint clean

# A fine T1w volume of a whole head; without one, the brain alone.
HEAD ?= $(wildcard ../shared/data/whole_head/sub-09*.nii.gz)

demo: $(VENV)/.run
	$(BIN)/python -m scripts demo --output demo $(if $(HEAD),--head $(HEAD))

# A DICOM study with a T1; without one, a series is made of the MNI152 brain.
DICOM ?= ../shared/data/dicom/glioma_ge_study

demo-dicom: $(VENV)/.run
	$(BIN)/python -m scripts demo_dicom --study $(DICOM) --output demo/dicom

test: lint
	$(BIN)/python -m pytest

# MONAI Deploy's and MONAI Label's versions and ours do not mix with everything: each has an environment of its own.
test-integrations: $(VENV)-deploy/.run $(VENV)/.dev $(VENV)-label/.run
	$(VENV)-deploy/bin/python -m pytest -n 0 tests/integrations/test_deploy.py
	LABEL_PYTHON=$(abspath $(VENV))-label/bin/python $(BIN)/python -m pytest tests/integrations/test_label.py tests/integrations/test_slicer.py

# At length what tests do for moments: kills of runs and workers, mutated files, words in every text of DICOM, thousands of cases;
# and whether tests notice broken lines.
soak: $(VENV)/.dev fuzz
	$(BIN)/python tests/mutations.py
	KILLS=50 $(BIN)/python -m pytest -n 0 tests/running/test_ledger.py
	CANARY_SHARE=1 $(BIN)/python -m pytest -n 0 tests/data/dicom/test_canary.py
	KILLS=10 $(BIN)/python -m pytest -n 0 tests/running/test_cluster.py -k killed
	$(BIN)/python tests/many_cases.py 2000

fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz.py nifti 100000
	$(BIN)/python tests/fuzz.py dicom 20000

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first and alone: with it in place, nothing that follows asks for another build of it.
$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
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
	rm -rf $(VENV) $(VENV)-deploy $(VENV)-label demo eval eval_downstream runs
