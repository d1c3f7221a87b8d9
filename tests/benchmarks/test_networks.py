"""The whole way for one network of every family of keras.applications, and the bench for all."""

import json
import sys

import pytest

from benchmarks import networks
from helpers.cases import slow
from packnet_tf.apps.main import main

# MobileNetV3Small goes it below, in a process; and the bench has them all.
FAMILIES = {
    "VGG16": 13,
    "ResNet50": 53,
    "DenseNet121": 120,
    "MobileNet": 27,
    "EfficientNetV2B0": 91,
    "InceptionV3": 94,
    "Xception": 74,
    "NASNetMobile": 356,
    "ConvNeXtTiny": 58,
}


@pytest.mark.parametrize("name", ["VGG16", *slow(*sorted(FAMILIES.keys() - {"VGG16"}))])
def test_one_network_of_every_family_goes_the_whole_way(name):
    result = networks.whole_way(name, tasks=2)
    assert result["bit_exact"]
    assert result["packed_layers"] == FAMILIES[name]
    assert result["share"] > 0.9
    assert result["onnx_difference"] < 1e-5


@pytest.mark.slow
def test_the_bench_runs_networks_in_processes_and_writes_a_table(tmp_path, capsys):
    path = tmp_path / "networks.json"
    sys.modules.pop(
        "packnet_tf.apps.commands.bench", None
    )  # its flags keep the values of the last run
    status = main(["bench", "networks", "--networks=MobileNetV3Small", f"--json={path}"])
    out = capsys.readouterr().out
    assert status == 0, out
    (result,) = json.loads(path.read_text())
    assert (result["network"], result["bit_exact"]) == ("MobileNetV3Small", True)
    assert result["packed_layers"] == 52
    assert out.startswith("1 of 1: MobileNetV3Small: ")
    assert "network           parameters  packed layers  share packed  bit-exact" in out
    assert out.endswith("1 of 1 networks: bit-exact and exported.\n")


@pytest.mark.slow
def test_a_network_that_fails_is_a_row_and_status_1(monkeypatch, capsys):
    sys.modules.pop("packnet_tf.apps.commands.bench", None)
    monkeypatch.setattr(networks, "network_names", lambda: ["NoSuchNet"])
    assert main(["bench", "networks"]) == 1
    out, err = capsys.readouterr()
    assert "1 of 1: NoSuchNet: AttributeError: " in out
    assert "\nNoSuchNet      FAILED\nNoSuchNet: AttributeError: " in out
    assert err == "packnet bench: the promises do not hold for NoSuchNet\n"
