# SPDX-License-Identifier: Apache-2.0
"""Descriptions as scanners and radiographers of many countries write them, each with what a radiologist would call it."""

from dataclasses import replace

import pytest

from scripts.data.dicom import DicomSeries
from scripts.data.dicom.words import exclusion, weighting

SERIES = DicomSeries(files=(), uid="1.2", study_uid="1", patient_id="p")
NAMES = {
    "t1": """
        SAG MP-RAGE | Ax 3D FSPGR pre | T1pre_reg | AX T1 FLAIR | T1 SE without contrast | AX T1 no contrast
        T1 non-contrast | t1_tse_tra ohne KM | T1 SANS GADO | t1_mprage_sag_p2_iso | t1_mpr_ns_sag_p2_iso | t1_fl3d_FA15
        T1 FFE FA 20 | t1_vibe_fa=12_tra | T1w_MPRAGE_sub-012 | t1 mprage phase corrected | T1 SE phase AP
        t1_se_sag_phase_HF | 3D T1 TFE | sT1W_3D_TFE | WIP sT1W_3D_TFE SENSE | T1W_SE | T1-weighted | T1WI | 3DT1
        SAG T1 FLAIR CUBE | AX BRAVO | IR-FSPGR | SAG 3D IR-SPGR | memprage | MP2RAGE_UNI_Images | t1_space_sag
        t1_tirm_tra | T1 axial sin contraste | T1 AX S/C | T1 sem contraste | T1 sag senza mdc | T1 zonder contrast
        T1 zonder gadolinium | T1 utan kontrast | T1 uden kontrast | T1 bez kontrastu | T1 bez KL | T1 nativ
        t1_se_tra_native | T1 natif | T1 plain | T1 unenhanced | T1 avant injection | T1 sans injection | T1 vor KM
        T1 Gd(-) | T1 Gd- | AX T1 -C | T1 C- | T1 C(-) | AX T1 W/O | AX T1 W/O CONTRAST | AX T1 WO GAD
        T1 prima del mdc | T1 antes de contraste | T1 before gad | T1 precontrast | t1w_pre | T1 PRE GAD | T1 postop
        T1 post op sag | T1 posterior fossa | T1 TSE presat | T1 kontrasts\u0131z | T1 平扫 | T1 без контраста
        T1 SE Kopf axial | AxT1SE | SagT1FLAIR | T1 post surgery | T1_Subject 12 | Coronal T1 brain lab
        T1 SPGR fat sat | STEALTH T1 3D | T1 tra o. KM | T1 s/contraste | T1 s/ gd | T1 IV- | T1 basale | T1 simple
        T1 ilman tehostetta | T1 før kontrast | AX T1 (-) | Pre-contrast T1 | T1 (pre) | T1 NON-GAD | T1 w/out contrast
        T1 w/o iv contrast | T1 post radiation | T1 TSE phase R-L | T1 SE phase: AP | T1 no phase wrap
        Stealth localization T1 | T1w sub-CC110033 | T1 SE FAT SAT | T1 merged | DeepResolve T1 tra | T1 sin | T1 inj-
        t1_vibe_dixon_tra_W | t1_vibe_dixon_tra_in | T1 mDIXON W | T1 hippocampus cor | t1_mprage_sag_PRE-OP
        T1 SE foot-head brain | AX T1 ASSET | AX T1 FLOW COMP | T1W_FFE_FLOWCOMP | AX T1 FLOW SAT | AX T1 REST | T1W_TSE_REST
        AX T1 AC-PC 3D | T1 MPRAGE SUB-MM | AX T1 SWAP PHASE | T1 SE PHASE FOV 75 | OAx T1 FSE NPW | T1 SE MTC ON
        T1W_SPIR | T1W_IR_TSE_SENSE | 3D_T1W_CS-SENSE | t1_tse_tra_fs_rst | T1 isoFSE | FSE2D T1 SPEEDER | T1 SAT S/I
        AX T1 BRAIN TO NECK | T1 MPRAGE REF | T1 TRACER | T1 REALIGNED | WATER: AX T1 FLEX
    """,
    "t1ce": """
        Ax T1 post | t1_mprage_sag_p2_iso_KM | AX T1 +C | T1post | 3D T1w GAD | T1 no FS +C | T1 avec injection
        T1 nach KM | t1_tse_tra_fs_nach_KM | T1 kräftig nach KM | T1 post Gd | T1GD | T1+GD | T1 + Gd | T1C | T1ce
        T1w_CE | CE-T1WI | T1 C+ | T1 C(+) | T1WI (Gd+) | Gd T1WI | T1 con contraste | T1 AX C/C | T1 con mdc
        T1 dopo mdc | T1 com contraste | T1 pós-contraste | T1 POS GD | T1 na contrast | T1 met contrast
        T1 na gadolinium | T1 efter kontrast | T1 med kontrast | T1 po kontraście | T1 po KL | T1 apres injection
        T1 après Gado | T1 INJ | T1 GADO | T1 gadovist | T1 Dotarem sag | T1 W CONTRAST | AX T1 W/ CONTRAST
        AX T1 WITH CONTRAST | AX T1 FS POST | T1 SE FS + | SAG MPRAGE POST | AX BRAVO +C | 3D T1 TFE +C | sT1W_3D_TFE GD
        T1 preop +C | T1 postcontrast | T1 post-contrast | T1 enhanced | T1 \u0441 контрастом | T1 造影後 | T1 增强
        t1_mpr_tra_iso_postKM | Ax T1 FSPGR GAD | T1 SPACE KM | mprage post gd sag | T1 tra m. KM | T1 c/contraste
        T1 IV+ | +C AX T1 FSE | AX T1 FSE FS+C | T1 AXIAL POST C | AX 3D T1 (GAD) | T1 (KM) | GdT1 | CET1 | POST AX T1
        Post-Contrast Ax T1 | AX T1 (+) | T1 GADO + | T1 kontrastl\u0131 | T1 kontrasztos | Gd-DTPA T1
        AX T1 W/O FS POST | T1W_3D_FFE+C | eT1W_SE_Gd | T1 PRE-OP GD | T1 tehosteaine | T1 mdc | T1 avec | T1 C/G
        T1 post 5 min | t1_se_cor_gd
    """,
    "t2": """
        t2_tse_tra | B Ax T2 | T2W_TSE | sT2W_TSE | Ax T2 FRFSE | AX T2 PROPELLER | t2_space_sag | T2 BLADE | T2 cor fs
        T2WI | t2_haste | ASSET T2 FRFSE AX | Ax T2 FlowComp | T2W_TSE REST SLAB | Ax T2 FRFSE-XL SCIC | AX T2 FSE ARC PURE
        T2W_DRIVE_HR_CLEAR | T2W_TSE_MVXD SENSE | t2_tse_tra_DRB | T2 FSE RADAR | T2 FASE | T2 TSE TEST | T2 IDEAL WATER
    """,
    "flair": """
        t2_tirm_tra_dark-fluid | FLAIR_reg | AX T2 FLAIR FS | t2_space_dark-fluid_sag | 3D FLAIR | sT2W_FLAIR
        T2 FLAIR post | t2_spc_da-fl_sag_p2_iso | FLAIR_longTR | Ax T2 FLAIR Propeller | eFLAIR_longTR SENSE
        SAG CUBE FLAIR | DARK FLUID | AX T2 FLAIR ASSET | AX T2 FLAIR FLOW COMP | FLAIR_REST | FLAIR_SPIR SENSE | FLAIR JET
        Ax T2 FLAIR AIR Recon DL | FLAIR SENSE REF
    """,
    "swi": "t2*_gre | t2_fl2d_tra_hemo | AX T2* GRE | SWI_Images | T2 STAR | T2W_FFE | AX SWAN | Ax T2 MERGE",
    "dwi": "ep2d_diff_b1000 | DTI 64 dir | AX DWI | DWI_b1000 | resolve_4scan | eDWI | dMRI_diffusion",
    "fmri": "ep2d_bold_rest | REST_eyes_open | BOLD task | fMRI_motor | rsfMRI",
    "perfusion": "ep2d_perf | T1 DCE | T2* DSC perfusion | pCASL | 3D ASL | t1_twist_dyn",
    "angiography": "TOF_3D_multi-slab | MRA COW | CE MRA neck vessels brain | t1 tof fl3d | CSF FLOW | SAG 3D PC",
    "pd": "PD TSE | PDW_TSE_REST | pd_tse_tra | PDW | proton density",
    "": "AX HEAD | 4 | unknown",
    "excluded": """
        ep2d_diff_3scan_trace | ep2d_diff_ADC | ADC (10^-6 mm2/s) | DTI_FA | FA | ColFA | T2 mapping | T1 MAP | T2map
        T1_MapIt | gre_field_mapping | B0 map | t1_phase | PHASE | T1 SUB | SUBTRACTION | t1 sub post-pre | MIP
        SWI mIP | mIP_Images(SW) | rCBV | CBF | TTP | MTT | 3-plane loc | localizer | AAHead_Scout | Survey | 3pl loc
        T1 localizer | lokalizer | SmartBrain | Calibration Scan | ASSET calibration | AX T10 SPINE | T1 sag C-spine
        T1 LWS sag | t1_tse_sag_HWS | T2 SAG L SPINE | T1 columna lumbar | T1 rachis | T1 knee cor | T1 SAG T1-T12
        mp2rage_INV1 | T1_mp2rage_inv2 | T1rho | R2* | QSM | t1_vibe_dixon_tra_F | t1_vibe_dixon_tra_opp | T1 LAVA FAT
        T1 hip cor | T1 real | relCBV | dADC | Pha_Images | OutPhase: LAVA | T1 VIBE DIXON F | T1 DIXON opp phase
        FAT: AX T1 LAVA | 3D T1 Knie | ASSET | ASSET Cal | AssetCal | SenseRefScan
    """,
}
CASES = [
    (name.strip(), word)
    for word, names in NAMES.items()
    for line in names.splitlines()
    for name in line.split("|")
    if name.strip()
]


@pytest.mark.parametrize(("name", "word"), CASES, ids=[name for name, _ in CASES])
def test_a_description_is_understood(name, word):
    use = "excluded" if exclusion((), name, "") else weighting(replace(SERIES, description=name))[0]
    assert use == word


@pytest.mark.parametrize("form", ["{}", "AX {}", "{} tra", "WIP {} SENSE"])
@pytest.mark.parametrize("word", ["t1", "t1ce", "t2", "flair"])
def test_what_stands_before_or_after_changes_little(form, word):
    # a sign or word at the end tells most there
    names = [name for name, use in CASES if use == word and not name.endswith(("W/O", "+", "-", "(+)", "(-)", "avec"))]
    wrong = [name for name in names if weighting(replace(SERIES, description=form.format(name)))[0] != word]
    assert wrong == []


def test_two_weightings_in_one_name_are_told_by_the_echo():
    both = replace(SERIES, description="pd+t2_tse_tra")
    assert [weighting(replace(both, echo_time=echo))[0] for echo in (12.0, 96.0)] == ["pd", "t2"]


def test_a_field_map_is_no_t1_by_its_parameters():
    field = replace(SERIES, description="gre_field", echo_time=4.9, repetition_time=400.0, scanning_sequence=("GR",))
    assert weighting(field)[0] == "fieldmap" and weighting(replace(field, description="AX HEAD"))[0] == "t1"


@pytest.mark.parametrize("description", ["PC 3D", "CSI", "SE_EPI_AP", "B0 field", "VENC 10"])
def test_what_has_a_name_of_its_own_is_not_called_t1_by_its_parameters(description):
    flash = replace(SERIES, echo_time=4.0, repetition_time=20.0, scanning_sequence=("GR",))
    assert weighting(flash)[0] == "t1" and weighting(replace(flash, description=description))[0] != "t1"


def test_one_of_several_gradient_echoes_is_no_t1_by_its_parameters():
    echo = replace(SERIES, part="echo 4.92", echo_time=4.92, repetition_time=400.0, scanning_sequence=("GR",))
    assert weighting(echo) == ("", "by TE 4.92, TR 400 ms: one of several gradient echoes, as of a field map")
    assert weighting(replace(echo, description="t1 memprage"))[0] == "t1"


@pytest.mark.parametrize("kind", ["PHASE", "REAL", "FAT", "OPPOSED PHASE", "ADC"])
def test_a_component_is_excluded_whatever_its_name(kind):
    assert exclusion({"ORIGINAL", kind}, "t1 mprage", "HEAD") == f"is a derived map or component ({kind})"


@pytest.mark.parametrize("description", ["T2 HR HIP COR", "T2 cardiac gated", "T1 knee coil"])
def test_a_word_of_another_part_is_not_believed_where_the_header_names_the_head(description):
    assert exclusion((), description, "BRAIN") == "" != exclusion((), description, "")


@pytest.mark.parametrize("description", ["T1 SAG C-SPINE", "t2_tse_tra_HWS", "T2 TRA HALS", "T1 SAG T1-T12"])
def test_a_spine_scanned_under_the_name_of_the_head_is_of_the_spine(description):
    assert exclusion((), description, "HEAD").endswith("not of the head")


def test_the_header_tells_the_body_part_before_the_description():
    assert exclusion((), "t1 sag", "CSPINE") == "is of CSPINE, not of the head"
    assert exclusion((), "t1 head and neck, c-spine", "") == ""
