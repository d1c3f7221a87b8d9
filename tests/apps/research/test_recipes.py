"""The paper's recipes: their settings, word for word, and a run at small size."""

import keras
import pytest
import yaml

from helpers.image_folders import write_task
from packnet_tf.apps.main import main
from packnet_tf.apps.packs.rates import decayed
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.definition import method_options, task_settings
from packnet_tf.apps.research.recipes import FOLDER, find_file, recipe_names
from packnet_tf.apps.research.running.worker import work
from packnet_tf.apps.research.runs import entries

NETWORKS = {
    "paper/densenet121": "DenseNet121",
    "paper/resnet50": "ResNet50",
    "paper/vgg16": "VGG16_FC",
    "paper/vgg16_bn": "VGG16_BN",
    "paper/vgg16_places365": "VGG16_FC",
}


def read(name):
    path, base = find_file(name)
    return read_comparison(path, base)


def test_every_network_of_the_paper_has_a_recipe_and_the_command_lists_them(capsys):
    assert recipe_names() == sorted(NETWORKS)
    assert {name: read(name).trunk.network for name in NETWORKS} == NETWORKS
    assert main(["compare", "--recipes"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == sorted(NETWORKS)
    assert "VGG-16 from ImageNet through CUBS, Stanford Cars and Flowers" in shown[2]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_schedule_is_the_papers(name):
    comparison = read(name)
    packing = [method for method in comparison.methods if method.kind == "packnet"]
    method = packing[0]
    tasks = list(comparison.tasks)
    assert [t for t in tasks if t != "places365"] == ["imagenet", "cubs", "cars", "flowers"]
    options = method_options(method, {})
    last = [0.75] * (len(tasks) - 2) + [0]
    assert options["prune"] == [0.5, *last]
    assert (options["norms"], options["biases"], options["restart"]) == ("shared", "shared", "zero")
    assert options["gradual"] is False
    assert all(method_options(method, {})["base"] is None for method in packing)
    if name != "paper/vgg16_places365":
        assert method_options(packing[1], {})["prune"] == [0.75, *last]

    def rates(task, place):
        s = task_settings(comparison, method, {}, task, place)
        after = s.epochs - s.prune_epoch
        before = decayed(s.learning_rate, s.prune_epoch, s.decay, s.decay_every)
        behind = decayed(s.rate_after, after, s.decay, s.decay_every)
        return [before(e) for e in range(s.prune_epoch)], [behind(e) for e in range(after)]

    assert rates("imagenet", 0) == ([], pytest.approx([1e-4] * 5 + [1e-5] * 5))
    for task in tasks[1:]:
        first, then = rates(task, 1)
        assert first == pytest.approx([1e-3] * 10 + [1e-4] * 10)
        assert then == pytest.approx([1e-4] * 10)
        s = task_settings(comparison, method, {}, task, 1)
        assert (s.optimizer, s.batch_size, s.flip, s.head) == ("sgd", 32, True, "linear")
        stretched = task in ("cubs", "cars")
        assert (s.shorter_side, s.crop) == ((None, False) if stretched else (256, True))
    assert task_settings(comparison, method, {}, "imagenet", 0).head == "pretrained"
    assert comparison.image_size == 224


def test_the_published_errors_are_those_of_the_authors():
    found = {name: read(name).published_errors.get("packnet") for name in sorted(NETWORKS)[:4]}
    order = ("imagenet", "cubs", "cars", "flowers")
    assert {name: tuple(errors[task] for task in order) for name, errors in found.items()} == {
        "paper/vgg16": (29.19, 22.56, 17.09, 11.07),
        "paper/vgg16_bn": (27.10, 20.43, 14.92, 8.59),
        "paper/resnet50": (24.33, 19.59, 14.03, 8.12),
        "paper/densenet121": (25.51, 20.11, 16.18, 9.07),
    }


def small_copy(folder, name, weights="none"):
    """A recipe at 32 pixels, an epoch a phase, on made-up folders of the same layout."""
    for place, task in enumerate(read(name).tasks):
        write_task(folder / task, size=40, train=5, held_out=3, seed=place)
    for file in FOLDER.glob("paper/*.yaml"):
        content = yaml.safe_load(file.read_text())
        content["image_size"] = 32
        if "seeds" in content:
            content["seeds"] = [0]
        if "trunk" in content:
            content["trunk"]["weights"] = weights
        for s in [content.get("settings"), *content.get("tasks", {}).values()]:
            if s and "epochs" in s:
                pretrained = s.get("head") == "pretrained"
                s |= (
                    {"epochs": 1, "prune_epoch": 0}
                    if pretrained
                    else {"epochs": 2, "prune_epoch": 1}
                )
            if s and s.get("shorter_side"):
                s["shorter_side"] = 36
        (folder / file.name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / f"{name.split('/')[1]}.yaml"


# A pretrained head has 1000 classes, and the folders two: the head of the small copies is new. The
# others run as well when they are put into this list; they differ in their networks alone, and take
# minutes to compile.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper/vgg16_bn"])
def test_a_recipe_runs_at_small_size(tmp_path, name):
    path = small_copy(tmp_path, name)
    for file in tmp_path.glob("*.yaml"):
        file.write_text(file.read_text().replace("head: pretrained", "head: linear"))
    comparison = read_comparison(path)
    found = entries(comparison)
    assert len(found) == len(comparison.methods)
    folder = tmp_path / "run"
    folder.mkdir()
    found[0].runs[0].write(folder / "run.json")  # packing with the paper's settings
    result = work(folder)
    tasks = list(comparison.tasks)
    assert [len(row) for row in result["test"]] == [*range(1, len(tasks) + 1)]
    assert [row[0] for row in result["test"]] == [result["test"][0][0]] * len(tasks)
    owned, total = (result["capacity"]["sum"][what] for what in ("owned", "total"))
    kept, free = [0.5], 0.5
    for _ in tasks[1:-1]:
        kept, free = [*kept, free / 4], free * 3 / 4
    assert [owned[task] / total for task in tasks] == pytest.approx([*kept, free], abs=1e-3)


def test_a_dry_run_of_a_recipe_checks_its_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--file=paper/resnet50", "--dry_run", f"--data={tmp_path}"]) == 1
    assert "task 'imagenet': There is no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_of_a_recipe_measures_steps_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = small_copy(tmp_path, "paper/densenet121")
    assert main(["compare", f"--file={path}", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "packnet, 0.75 of ImageNet" in shown
    assert "Nothing was trained." in shown


def test_the_pretrained_classifier_is_the_head_of_its_task():
    from packnet_tf.apps.images.trunks import load_trunk, pretrained_head

    keras.utils.set_random_seed(3)
    trunk = load_trunk("VGG16_BN", 32, "fc2_dropout", weights="none")
    assert trunk.output_shape == (None, 4096)
    head = pretrained_head("VGG16_BN", "fc2_dropout", 32, "none")
    assert head.units == 1000
    assert head.activation is keras.activations.linear
    with pytest.raises(ValueError) as error:
        pretrained_head("VGG16_BN", "fc2", 32, "none")
    assert str(error.value) == (
        "'VGG16_BN' does not end in a Dense layer on 'fc2', but in Dense 'predictions': its "
        "classifier cannot be the head of a task. Leave head: pretrained out, or name the layer "
        "before its classifier as output."
    )
