# SPDX-License-Identifier: Apache-2.0
# `make results T1=FOLDER GLIOMA=FOLDER`: trains, measures and writes all tables and pictures of docs/results.md, by one version.
# It takes hours, `-j 2` on two cores. What lies in OUT is not made again; other code, configs or weights have another OUT.
T1 ?= ../shared/data/t1
GLIOMA ?= ../shared/data/glioma
OUT := $(if $(OUT),$(OUT),eval/results/$(shell git log -1 --format=%h -- scripts configs models))
PYTHON ?= python

export OMP_NUM_THREADS ?= 1
SCORE := $(PYTHON) -m scripts
EXPERIMENT = $(SCORE) experiment $1 $2 --output $(OUT)/$1 --plane-steps 400 --volume-steps 250 --options
SMALL := "train_2d": {"batch_size": 8, "patch": [64, 64]}, "train_3d": {"patch": [48, 48, 48]}
TUMOUR := {$(SMALL), "evaluate": {"mask": "seg"}}
FLAIR := {"conditions": ["flair"], "target": "flair", "sigma_data": 0.085, $(SMALL)}
PAGE = $(SCORE) tables $1 --table $2 --output docs/results.md --place
COMBINED := tpdm tpdm_alternate ours_tpdm madm_states
FUSED := tpdm_modalities ours_modalities ours_modalities_small tpdm ours_tpdm
SHIPPED := model thick_slice translation both flair

EXPERIMENTS := both translation super_resolution thick_planes ablations
.PHONY: results $(EXPERIMENTS) shipped pages pictures
.DELETE_ON_ERROR:
results: pages pictures

both translation:
	$(call EXPERIMENT,$@,$(GLIOMA)) '$(TUMOUR)'
	$(call EXPERIMENT,$@,$(GLIOMA)) '$(TUMOUR)' --systems $(COMBINED) --steps 4
super_resolution thick_planes:
	$(call EXPERIMENT,$@,$(T1)) '{$(SMALL)}'
ablations:
	$(call EXPERIMENT,$@,$(GLIOMA)) '$(FLAIR)'

# The weights that ship, fused and averaged; `flair`: those for T1w on another contrast.
OF_model := $(T1) --task super_resolution
OF_thick_slice := $(T1) --task super_resolution_thick_slice
OF_translation := $(GLIOMA) --task translation --mask seg
OF_both := $(GLIOMA) --task both --mask seg
OF_flair := $(GLIOMA) --task super_resolution --contrast flair --mask seg
RUNS := $(foreach name,$(SHIPPED),$(OUT)/shipped/$(name)_fusion $(OUT)/shipped/$(name)_average)
SAMPLED := $(foreach name,translation both,$(OUT)/sampled/$(name)_fusion $(OUT)/sampled/$(name)_average)
NAME = $(firstword $(subst _fusion,,$(subst _average,,$(notdir $(@D)))))
AVERAGE = $(if $(findstring _average,$@), --set fusion=False)
$(RUNS:=/results.json):
	$(SCORE) evaluate $(OF_$(NAME)) --steps 1$(AVERAGE) -o $(@D)
$(SAMPLED:=/results.json):
	$(SCORE) evaluate $(OF_$(NAME)) --steps 2 --samples 5 --max-cases 6$(AVERAGE) -o $(@D)

FOUND := $(OUT)/downstream
BUNDLE = $(PYTHON) -m monai.bundle run evaluating --dataset_dir $(GLIOMA) --output_dir $(@D) --config_file
DOWNSTREAM := 'configs/inference.yaml','configs/evaluate_downstream.yaml'
$(FOUND)/measured/downstream.json: $(RUNS:=/results.json)
	$(BUNDLE) "[$(DOWNSTREAM)]" --predictions "['both average=$(OUT)/shipped/both_average','both fusion=$(OUT)/shipped/both_fusion',\
	'super-resolution average=$(OUT)/shipped/flair_average','super-resolution fusion=$(OUT)/shipped/flair_fusion']"
$(FOUND)/missing/downstream.json: $(RUNS:=/results.json)
	$(BUNDLE) "[$(DOWNSTREAM),'configs/downstream_translation.yaml']" \
	  --predictions "['average=$(OUT)/shipped/translation_average','fusion=$(OUT)/shipped/translation_fusion']"

shipped: $(RUNS:=/results.json) $(SAMPLED:=/results.json) $(FOUND)/measured/downstream.json $(FOUND)/missing/downstream.json

pages: $(EXPERIMENTS) shipped
	$(call PAGE,$(OUT)/super_resolution/systems,1) "table 1: super-resolution"
	$(call PAGE,$(OUT)/translation/systems,1) "table 1: translation"
	$(call PAGE,$(OUT)/both/systems,1) "table 1: both"
	$(call PAGE,$(OUT)/thick_planes/systems,1) "table 1: thick planes"
	$(call PAGE,$(FOUND),2) "table 2"
	$(call PAGE,$(foreach name,$(FUSED),$(OUT)/both/systems/$(name)_1),3) "table 3"
	$(call PAGE,$(OUT)/ablations/systems,4) "table 4"
	$(call PAGE,$(OUT)/sampled,5) "table 5"
	$(call PAGE,$(OUT)/shipped/flair_fusion $(OUT)/shipped/flair_average,6) "table 6"
	$(call PAGE,$(OUT)/super_resolution/systems,8) "table 8"
	$(call PAGE,$(filter-out %flair_fusion %flair_average,$(RUNS)),1) "shipped weights"

SYSTEMS := u_net palette tpdm ours_tpdm
pictures: both shipped
	$(SCORE) side_by_side $(foreach name,$(SYSTEMS),$(OUT)/both/systems/$(name)_1) --output docs/figures/systems_both.webp
	$(SCORE) side_by_side $(OUT)/shipped/translation_average $(OUT)/shipped/translation_fusion --output docs/figures/translation.webp
	$(SCORE) side_by_side $(OUT)/shipped/thick_slice_average $(OUT)/shipped/thick_slice_fusion --output docs/figures/thick_slice.webp
	$(SCORE) side_by_side $(OUT)/sampled/both_average $(OUT)/sampled/both_fusion --output docs/figures/uncertainty_both.webp
