"""The whole-model checks over small models of timm and torchvision, drawn at random.

``python tests/whole_models/vision_findings.py`` (``tox -e vision``) builds each model from its own
constructor without downloading anything, those of timm for images of 64 x 64 where they take that,
runs every check that applies, on inputs that nobody declares, and compares what they report with
``vision_findings.txt``. ``--update`` writes that file; its header, kept as it is, explains each
kind of finding. ``findings.py`` has the rest of the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn

from pytest_paramcheck import ModelCase

# The folder of the script is what a script finds first; its parents are not on the path.
try:
    from .findings import look, main
except ImportError:
    from findings import look, main  # type: ignore[no-redef]

FILE = Path(__file__).with_name("vision_findings.txt")

#: Models of timm by the side of the images that they are built for.
TIMM: dict[int, str] = {
    64: """
        test_byobnet test_convnext test_convnext2 test_convnext3 test_efficientnet
        test_efficientnet_evos test_efficientnet_gn test_efficientnet_ln test_mambaout test_nfnet
        test_resnet test_vit test_vit2 test_vit3 test_vit4 test_vit_relpos mobilenetv2_035
        mobilenetv3_small_050 mobilenetv4_conv_small_035 mnasnet_small lcnet_035 tinynet_e
        ghostnet_050 repghostnet_050 regnetx_002 regnety_002 dla46_c dla46x_c mobilevit_xxs
        mobilevitv2_050 edgenext_xx_small efficientformerv2_s0 efficientvit_b0 starnet_s050
        convnext_zepto_rms convnext_atto convnextv2_atto xcit_nano_12_p16_224 vit_tiny_patch16_224
        deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 resnet10t pvt_v2_b0 coat_lite_tiny
        convit_tiny gmlp_ti16_224 pit_ti_224 mobileone_s0 fasternet_t0 fastvit_t8
        inception_next_atto semnasnet_050 mnasnet_050 mobilenetv1_100 mobilenetv3_large_075
        tf_mobilenetv3_small_minimal_100 hardcorenas_a mixnet_s spnasnet_100 fbnetc_100
        efficientnet_lite0 efficientnet_b0 ghostnetv2_100 ghostnetv3_050 lcnetv2_small rexnet_100
        rexnetr_100 repvit_m0_9 ese_vovnet19b_slim_dw cspnext_tiny cs3darknet_focus_s hgnetv2_b0
        regnetz_005 densenet121 swiftformer_xs mambaout_femto cait_xxs24_224
        vit_xsmall_patch16_clip_224 vit_wee_patch16_reg1_gap_256 vit_dpwee_patch16_reg1_gap_256
        visformer_tiny resnet14t resnet18 resnetv2_18 skresnet18 poolformer_s12 efficientvit_m0
        dpn48b darknet17 gcresnext26ts lowformer_b0 cpubone_nano iformer_t efficientnet_cc_b0_4e
        tiny_vit_5m_224
    """,
    128: "lambda_resnet26t",
    0: """
        test_coatnet test_maxvit crossvit_tiny_240 gcvit_xxtiny levit_128s shvit_s1
        efficientvim_m1 bat_resnext26ts eva02_tiny_patch14_224 halonet26t
    """,
}

PLAIN = """
    squeezenet1_0 squeezenet1_1 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 mnasnet0_5 regnet_x_400mf regnet_y_400mf resnet18
    efficientnet_b0
"""
#: Those of torchvision, with what its constructors take.
TORCHVISION: dict[str, dict[str, Any]] = {
    "VisionTransformer": {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 24,
    },
    "googlenet": {"init_weights": True},
    **{name: {} for name in PLAIN.split()},
}
MODELS = {
    **{f"timm.{name}": side for side, names in TIMM.items() for name in names.split()},
    **{f"torchvision.{name}": 0 for name in TORCHVISION},
}


def case_of(model: str) -> ModelCase:
    """Return the case of a model: nothing is declared."""
    library, _, name = model.partition(".")
    side = MODELS[model]

    def build() -> nn.Module:
        made: nn.Module
        if library == "torchvision":
            made = getattr(torchvision.models, name)(num_classes=10, **TORCHVISION[name])
        else:
            size = {"pretrained_cfg_overlay": {"input_size": (3, side, side)}} if side else {}
            made = timm.create_model(name, num_classes=10, **size)
        return made

    return ModelCase(build, name=model)


def look_at(model: str, seed: int) -> dict[str, Any]:
    """Run the checks of one model."""
    return look(case_of(model), seed)


if __name__ == "__main__":
    sys.exit(main(FILE, list(MODELS), look_at))
