"""The file of a comparison: what it means, and what it is told when it means nothing."""

import pathlib
import time

import pytest
import yaml

from helpers.comparison_files import SMALL
from packnet_tf.apps.research.config import parse, read_comparison
from packnet_tf.apps.research.definition import method_options, task_settings

HERE = pathlib.Path("images")


def changed(**changes):
    return parse({**SMALL, **changes}, HERE)


def settings_of(comparison, label, task, place=0, candidate=None):
    (method,) = [method for method in comparison.methods if method.label == label]
    return task_settings(comparison, method, candidate or {}, task, place)


def test_paths_start_from_the_folder_given_and_tasks_from_their_names():
    comparison = changed(tasks={"shades": {}, "greys": "elsewhere/greys"})
    assert comparison.trunk.network == "images/small.keras"
    assert comparison.tasks["shades"][0] == "images/shades"
    assert comparison.tasks["greys"][0] == "images/elsewhere/greys"


def test_the_most_particular_setting_wins():
    comparison = changed(
        tasks={"shades": {"learning_rate": 0.02}, "greys": {}},
        methods={
            "packnet": {},
            "slow": {"method": "packnet", "learning_rate": 0.01, "later": {"learning_rate": 0.005}},
        },
    )
    assert settings_of(comparison, "packnet", "greys").learning_rate == 0.05  # of all
    assert settings_of(comparison, "packnet", "shades").learning_rate == 0.02  # of the task
    assert settings_of(comparison, "slow", "shades").learning_rate == 0.01  # of the method
    assert settings_of(comparison, "slow", "shades", 1).learning_rate == 0.005  # of later tasks
    chosen = settings_of(comparison, "slow", "shades", 1, {"learning_rate": 0.5})
    assert chosen.learning_rate == 0.5
    assert chosen.rate_after == 0.05  # a tenth, where it is not given
    assert chosen.batch_size == 8


def test_packing_has_our_defaults_and_any_of_them_can_be_another():
    comparison = changed(methods={"packnet": {}, "paper": {"method": "packnet", "norms": "shared"}})
    ours, paper = (method_options(method, {}) for method in comparison.methods)
    assert ours == {
        "prune": 0.75, "gradual": True, "scale_rate": True, "max_drop": 0.01,
        "biases": "shared", "norms": "per_task", "restart": "auto", "base": 0.3, "base_epochs": 2,
        "reuse": "auto", "overlay": "when_full",
    }  # fmt: skip
    assert paper == {**ours, "norms": "shared"}


def test_orders_may_be_named_or_written_out_and_a_method_may_have_its_own():
    comparison = changed(
        orders=["given", "reverse", ["greys", "shades"]],
        methods={"packnet": {"orders": ["reverse"]}, "lwf": None},
    )
    assert comparison.orders == (("shades", "greys"), ("greys", "shades"))
    assert comparison.methods[0].orders == (("greys", "shades"),)
    assert comparison.methods[1].orders is None


def test_every_combination_of_what_is_to_be_chosen_is_a_candidate():
    choose = {"learning_rate": [0.1, 0.2], "gradual": [True, False]}
    comparison = changed(methods={"packnet": {"choose": choose}})
    assert changed(methods={"lwf": {"choose": {"learning_rate": ["1e-3"]}}}).methods[
        0
    ].candidates() == [{"learning_rate": 0.001}]
    assert comparison.methods[0].candidates() == [
        {"learning_rate": 0.1, "gradual": True},
        {"learning_rate": 0.1, "gradual": False},
        {"learning_rate": 0.2, "gradual": True},
        {"learning_rate": 0.2, "gradual": False},
    ]


def test_numbers_may_be_written_as_people_write_them(tmp_path):
    path = tmp_path / "file.yaml"
    content = {**SMALL, "settings": {"epochs": 3, "prune_epoch": 2}}
    path.write_text(
        yaml.safe_dump(content).replace("epochs: 3", "epochs: 3\n  learning_rate: 1e-3")
    )
    assert read_comparison(path).settings["learning_rate"] == 0.001


def test_a_file_takes_what_it_does_not_say_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    (tmp_path / "own.yaml").write_text("base: base.yaml\nseeds: [4, 5]\n")
    comparison = read_comparison(tmp_path / "own.yaml")
    assert comparison.seeds == (4, 5)
    assert list(comparison.tasks) == ["shades", "greys"]
    (tmp_path / "further.yaml").write_text("base: own.yaml\nimage_size: 16\n")
    further = read_comparison(tmp_path / "further.yaml")
    assert (further.seeds, further.image_size) == (comparison.seeds, 16)
    (tmp_path / "settings.yaml").write_text("base: own.yaml\nsettings: {learning_rate: 0.5}\n")
    settings = read_comparison(tmp_path / "settings.yaml").settings
    assert settings == {**comparison.settings, "learning_rate": 0.5}
    (tmp_path / "base.yaml").write_text("base: own.yaml\n")
    with pytest.raises(ValueError, match=r"its base 'own.yaml' leads back to '.*own.yaml'\."):
        read_comparison(tmp_path / "own.yaml")
    (tmp_path / "base.yaml").write_text("- tasks")
    with pytest.raises(ValueError, match=r"'.*own.yaml': its base 'base.yaml' has no names and"):
        read_comparison(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"metods": {}}, "the file has 'metods'. Did you mean 'methods'? It takes: trunk, "),
        (
            {"tasks": {"base": "images", "greys": {}}},
            "method 'packnet' keeps the pretrained trunk as a task 'base'. Call yours otherwise",
        ),
        ({"tasks": {}}, "'tasks' is missing; the file takes: trunk, image_size, tasks, "),
        (
            {"settings": {"epoch": 3}},
            "settings has 'epoch'. Did you mean 'epochs'? It takes: epochs, prune_epoch, ",
        ),
        ({"settings": {"epochs": "three"}}, "settings has epochs: 'three'; expected int."),
        ({"settings": {"flip": 1}}, "settings has flip: 1; expected bool."),
        (
            {"settings": {"batch_size": 0}},
            "settings has batch_size: 0; expected a number from 1 up.",
        ),
        (
            {"settings": {"validation_share": 1}},
            "settings has validation_share: 1.0; expected a number from 0.001 to 0.9.",
        ),
        (
            {"methods": {"joint": {"later": {"epochs": 4}}}},
            "method 'joint' has orders or later, and joint knows no order of tasks; leave ",
        ),
        (
            {"tasks": {"a": {"head": "pretrained"}, "b": {}}, "orders": ["reverse"]},
            "method 'packnet', a: head: pretrained is for the first task of an order: later the ",
        ),
        (
            {"tasks": {"a": {"head": "pretrained"}}, "trunk": "MobileNetV2"},
            "method 'packnet', a: head: pretrained needs the trunk's output, the layer before the",
        ),
        (
            {"settings": {"decay": "linear"}},
            "settings has decay: linear; write one of cosine, step, none.",
        ),
        ({"settings": [3]}, "settings is [3]; expected names and values, for instance epochs: 12."),
        (
            {"settings": {"epochs": 2, "prune_epoch": 2}},
            "method 'packnet', shades: prune_epoch: 2 is not below epochs: 2; epochs count those "
            "after the prune too.",
        ),
        (
            {"settings": {"learning_rate": float("nan")}},
            "settings has learning_rate: nan; expected a number from 0 up.",
        ),
        (
            {"trunk": {"network": "small.keras", "pixel_scale": "bits"}},
            "trunk has pixel_scale: bits; write one of unit, bytes, symmetric, torch, caffe.",
        ),
        ({"trunk": {"output": "x"}}, "trunk has no network; write trunk: MobileNetV2, or network:"),
        ({"tasks": ["birds"]}, "tasks are names with folders; write tasks: {birds: FOLDER, cars:"),
        (
            {"tasks": {"hand signs": "greys"}},
            "Cannot add a task named 'hand signs': the name must be usable as a file name, up to",
        ),
        ({"image_size": 4}, "image_size is 4; expected pixels, a whole number from 8 up."),
        ({"seeds": ["a"]}, "seeds are ['a']; expected whole numbers, [0, 1]."),
        (
            {"orders": [["shades"]]},
            "the order ['shades'] is not one of all tasks; write given, reverse, or [shades, g",
        ),
        (
            {"methods": ["lwf"]},
            "methods are names with options; write methods: {packnet: {}, joint",
        ),
        ({"methods": {"lwf": 3}}, "method 'lwf' is 3; expected names and values, or nothing."),
        (
            {"methods": {"ours": {}}},
            "method 'ours' is of no known kind; add method: to it, one of packnet, individual, ",
        ),
        (
            {"methods": {"lwf": {"temperatur": 2}}},
            "method 'lwf' has 'temperatur'. Did you mean 'temperature'? It takes: norms, ",
        ),
        (
            {"methods": {"lwf": {"norms": "shared"}}},
            "method 'lwf' has norms: shared; write one of frozen, trained.",
        ),
        (
            {"methods": {"lwf": {"choose": {"temperature": 2}}}},
            "method 'lwf' has a choose that is no choice; write learning_rate: [0.01, 0.1].",
        ),
        (
            {"methods": {"packnet": {"prune": "half"}}},
            "method 'packnet' has prune: half; write paper, equal_shares, auto, a",
        ),
        (
            {"methods": {"packnet": {"prune": [0.5]}}},
            "method 'packnet' has 1 ratios for 2 tasks; give one per task.",
        ),
        (
            {"methods": {"packnet": {"prune": [0.5, 2]}}},
            "method 'packnet' has prune: [0.5, 2]; ratios are numbers from 0 to 1.",
        ),
        (
            {"published_errors": {"paper": {"birds": 1}}},
            "published_errors, paper has 'birds'. It takes: shades, greys.",
        ),
        (
            {"published_errors": {"paper": {"greys": 101}}},
            "published_errors, paper: errors are percentages, 0 to 100.",
        ),
        (
            {"published_errors": {"paper": 3}},
            "published_errors are labels with tasks; write {paper: {birds: 20.4}}.",
        ),
    ],
)
def test_what_means_nothing_is_named_with_the_remedy(changes, text):
    with pytest.raises(ValueError) as error:
        changed(**changes)
    assert str(error.value).startswith(text)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("methods:\n  packnet: {prune: 0.5}\n  packnet: {prune: 0.75}\n")
    with pytest.raises(ValueError, match="not a readable YAML file: 'packnet' is there twice, in "):
        read_comparison(path)
    path.write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b, x: 3}\n")
    with pytest.raises(ValueError, match="the file has 'a'"):
        read_comparison(path)


def test_labels_may_be_numbers():
    methods = {0.5: {"method": "packnet", "prune": 0.5}, True: {"method": "joint"}}
    assert [method.label for method in changed(methods=methods).methods] == ["0.5", "True"]


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"There is no file '.*none.yaml'\. Write a YAML file"
    ):
        read_comparison(tmp_path / "none.yaml")
    for content in (b"tasks: [", b"tasks: \xff", b"tasks: 2025-99-99", b"[" * 2_000):
        (tmp_path / "broken.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"'.*broken.yaml' is not a readable YAML file: "):
            read_comparison(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- tasks")
    with pytest.raises(ValueError, match=r"'.*list.yaml': expected names and values at the top: "):
        read_comparison(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}1]\n" for n in range(1, 30)).replace(
            "*a0, ", ""), "its aliases repeat more"),
        ("a: &a [*a]\n", "its aliases repeat more"),
        ("[" * 5_000, "its lists lie more than 100 deep in each other"),
        ("- " * 5_000, "recursion"),
        ("# " + "x" * 3_000_000, "it has 3,000,002 bytes"),
    ],
    ids=["laughs", "itself", "deep", "deep block", "long"],
)  # fmt: skip
def test_a_file_that_would_become_much_larger_is_refused(tmp_path, text, said):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ValueError, match=said) as error:
        read_comparison(path)
    assert time.process_time() - began < 2
    assert f"'{path}'" in str(error.value)
    assert len(str(error.value)) <= 1000


def test_an_anchor_may_be_used_twice(tmp_path):
    flip = {"flip": True}
    text = yaml.safe_dump({**SMALL, "tasks": {"shades": flip, "greys": flip}}, sort_keys=False)
    assert "*id001" in text
    (tmp_path / "a.yaml").write_text(text)
    assert read_comparison(tmp_path / "a.yaml").tasks["greys"][1]["flip"] is True
