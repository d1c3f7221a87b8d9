"""Backbones of keras-hub, built without weights."""

import pytest

from helpers.contract import check_contract

hub = pytest.importorskip("keras_hub")


def resnet():
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=True,
        image_shape=(16, 16, 3),
    )


def vit():
    return hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(8, 8),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        use_class_token=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("build", [resnet, vit])
def test_a_backbone_of_keras_hub_packs(build, tmp_path):
    backbone = build()
    kernels = [
        variable for variable in backbone.trainable_variables
        if variable.name == "kernel"
    ]  # fmt: skip
    assert len(kernels) > 4
    net = check_contract(backbone, None, tmp_path)
    assert len(net.state.weights) == len(kernels)
