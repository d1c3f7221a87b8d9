"""Keeps a pretrained network as task 1 without its training data, and packs three tasks after it.

For folders `DATA/{clothing,hand_signs,scenes}/{train,validation,test}/<class>/<image>` and a
pretrained Tiny Darknet (`DATA/tiny_darknet.keras`, a Keras model that takes RGB of 0 to 1):

  python examples/adopt_a_pretrained_trunk.py --data=DATA --output=runs/adopt

First it adopts the network in four ways: "unrepaired"; "repaired", on the first task's training
images; "kept only", repaired without training what the free weights start from; "features only",
the same with the features matched and nothing before them. It counts on how many test images of
each task the adopted network and the unpruned one see the same of ImageNet's 1000 classes.

Then it packs the tasks after three of them, and "direct", as tasks 1 to 3 in a pack without the
pretrained network, for as many epochs. Stopped, the same command continues.
"""

import json
import pathlib

from absl import app, flags

from packnet_tf.apps import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder of the tasks and the trunk.", required=True)
flags.DEFINE_string("output", "runs/adopt", "Folder for packs and results.")
flags.DEFINE_list("tasks", ["clothing", "hand_signs", "scenes"], "Tasks, in the order of packing.")
flags.DEFINE_list(
    "adopt_ways",
    ["unrepaired", "repaired", "kept only", "features only"],
    "Ways to adopt the network.",
)
flags.DEFINE_list(
    "pack_ways",
    ["unrepaired", "repaired", "kept only", "direct"],
    "Ways to pack the tasks.",
)
flags.DEFINE_float("adopt_prune_ratio", 0.5, "Prune ratio of the pretrained network.")
flags.DEFINE_integer("repair_epochs", 5, "Epochs of repair.")
flags.DEFINE_float("repair_learning_rate", 0.0003, "Learning rate of the repair.")
flags.DEFINE_integer("epochs", 6, "All epochs of a task.")
flags.DEFINE_integer("prune_epoch", 4, "The epoch whose start prunes.")
flags.DEFINE_integer("image_size", 96, "Height and width in pixels.")
flags.DEFINE_integer("seed", 0, "Of weights, shuffling and augmentation.")

NETWORK = "imagenet"
TRUNK = ("tiny_darknet.keras", "leaky_re_lu_15", "conv2d_16")  # file, features, head
# Mirror images of a signing hand are no other sign, but no sign of this data either.
UNFLIPPED = ("hand_signs",)


def pack_path(way: str) -> pathlib.Path:
    return pathlib.Path(FLAGS.output) / way.replace(" ", "_") / "pack.keras"


def once(path: pathlib.Path, work, *arguments) -> dict:
    """What `work(*arguments)` returns, kept in a file."""
    if not path.exists():
        result = work(*arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    return json.loads(path.read_text())


def load_network():
    """The trunk, and the network's own head on its pooled features."""
    import keras

    from packnet_tf.apps.images.trunks import load_trunk

    file, features, head = TRUNK
    path = str(pathlib.Path(FLAGS.data) / file)
    trunk = load_trunk(path, FLAGS.image_size, features)
    # A convolution of 1 x 1 pixel before the average is a dense layer after it.
    kernel, bias = keras.saving.load_model(path, compile=False).get_layer(head).get_weights()
    dense = keras.layers.Dense(len(bias), name="imagenet_head")
    dense.build(trunk.output_shape)
    dense.set_weights([kernel[0, 0], bias])
    return trunk, dense


def read(tasks, split: str) -> list:
    """Pairs (path, label) of a split of some tasks."""
    from packnet_tf.apps.images.folders import read_folder

    data = pathlib.Path(FLAGS.data)
    return [pair for task in tasks for pair in read_folder(data / task).files[split]]


def pipeline():
    from packnet_tf.apps.images.pipeline import Pipeline

    return Pipeline((FLAGS.image_size, FLAGS.image_size, 3), 32, FLAGS.seed)


def adopt(way: str) -> dict:
    """Adopts the network one way, saves the pack; returns what was measured."""
    import keras

    import packnet_tf
    from packnet_tf.packing.cloning import attach

    print(f"\n== adopt, {way}", flush=True)
    keras.utils.set_random_seed(FLAGS.seed)
    trunk, head = load_network()
    images = pipeline().training(read(FLAGS.tasks[:1], "train"), flip=True, crop=True)
    net = packnet_tf.PackNet(trunk)
    net.notes["pixel_range"] = "0,255"
    if way in ("kept only", "features only"):
        done = adopt_by_hand(net, head, images, layerwise=way == "kept only")
    else:
        epochs = 0 if way == "unrepaired" else FLAGS.repair_epochs
        rate = FLAGS.repair_learning_rate
        done = net.adopt(
            NETWORK, FLAGS.adopt_prune_ratio, head, images, epochs, learning_rate=rate, verbose=2
        )
    print(done, flush=True)
    whole, _ = attach(trunk, head, "whole")
    adopted = net.task_model(NETWORK)
    agreement = {}
    for task in FLAGS.tasks:
        test = pipeline().evaluation(read([task], "test"))
        first, second = (model.predict(test, verbose=0).argmax(-1) for model in (whole, adopted))
        agreement[task] = float((first == second).mean())
    pack_path(way).parent.mkdir(parents=True, exist_ok=True)
    net.save(pack_path(way))
    return {
        "error_pruned": done.error_pruned,
        "error_repaired": done.error_repaired,
        "error_next": done.error_next,
        "agreement": agreement,
    }


def adopt_by_hand(net, head, images, layerwise: bool):
    """What `net.adopt` would do without training what free weights start from."""
    from packnet_tf.adoption import adopt as adoption
    from packnet_tf.adoption.matching import match
    from packnet_tf.packing import cloning

    model = net.add_task(NETWORK, head)
    teacher = cloning.plain_trunk(net.state.trunk, model.trunk)
    net.prune(FLAGS.adopt_prune_ratio)
    epochs, rate = FLAGS.repair_epochs, FLAGS.repair_learning_rate
    before, after = match(model.trunk, teacher, images, epochs, rate, layerwise, verbose=2)
    net.commit()
    following = adoption.complete(net, teacher, images, epochs=0, learning_rate=rate)
    return adoption.Adoption(NETWORK, FLAGS.adopt_prune_ratio, epochs, before, after, following)


def pack(way: str, place: int) -> dict:
    """Trains one task one way, as `packnet train` does; returns its accuracies."""
    from packnet_tf.apps.packs.training import Plan, train
    from packnet_tf.planning import equal_shares

    task, data = FLAGS.tasks[place], pathlib.Path(FLAGS.data)
    print(f"\n== {way}: {task}", flush=True)
    file, features, _ = TRUNK
    report = train(
        Plan(
            pack=str(pack_path(way)),
            task=task,
            data=str(data / task),
            trunk=str(data / file),
            trunk_output=features,
            image_size=FLAGS.image_size,
            adopt="none",  # done here, or not to be done
            epochs=FLAGS.epochs,
            prune_epoch=FLAGS.prune_epoch,
            prune_ratio=equal_shares(len(FLAGS.tasks))[place],
            gradual=False,
            scale_rate=False,
            flip=task not in UNFLIPPED,
            seed=FLAGS.seed,
        )
    )
    print(report, flush=True)
    return report.accuracy


def main(_) -> None:
    cli.start_keras()
    from packnet_tf.reporting.tables import text_table

    output = pathlib.Path(FLAGS.output)
    adopted = {
        way: once(pack_path(way).with_name("adopt.json"), adopt, way) for way in FLAGS.adopt_ways
    }
    trained = {
        way: {
            task: once(pack_path(way).with_name(f"{task}.json"), pack, way, place)
            for place, task in enumerate(FLAGS.tasks)
        }
        for way in FLAGS.pack_ways
    }
    rows = []
    for way, figures in adopted.items():
        errors = [figures[f"error_{moment}"] for moment in ("pruned", "repaired", "next")]
        shares = figures["agreement"].values()
        rows.append([way, *(f"{v:.3f}" for v in errors), *(f"{v:.1%}" for v in shares)])
    print("\nThe adopted network: error of its features on the images of the repair, and on how")
    print("many test images it sees the same class as the unpruned network.")
    head = ["way", "pruned", "repaired", "start of the next task", *FLAGS.tasks]
    print(text_table(head, rows))

    rows = []
    for way, accuracies in trained.items():
        tests = [accuracies[task]["test"] for task in FLAGS.tasks]
        rows.append([way, *(f"{v:.1%}" for v in [*tests, sum(tests) / len(tests)])])
    print("\nThe tasks after it: test accuracy.")
    print(text_table(["way", *FLAGS.tasks, "mean"], rows))
    results = output / "results.json"
    results.write_text(json.dumps({"adopted": adopted, "packed": trained}, indent=2) + "\n")
    print(f"\nResults: {results}")


if __name__ == "__main__":
    app.run(main)
