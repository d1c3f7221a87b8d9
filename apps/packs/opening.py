"""Opens or makes the pack that `packnet train` works on, and checks that it takes images."""

import contextlib
import pathlib

import keras

import packnet_tf
from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.images.trunks import load_trunk
from packnet_tf.apps.packs.base import default_restart
from packnet_tf.apps.packs.plan import BASE, Plan
from packnet_tf.backend.text import listed
from packnet_tf.export.graph.preprocessing import noted_range
from packnet_tf.packing.cloning import computing_in

POLICIES = ("biases", "norms", "restart", "stem")


def open_pack(plan: Plan) -> packnet_tf.PackNet:
    """Opens the pack of a plan, or makes a new one from the plan's trunk.

    Sets the dtype policy of the trunk globally, so that heads built afterwards use it too.

    Raises:
        ValueError: there is neither a pack nor a trunk, or the pack does not fit the plan.
    """
    keras.config.set_dtype_policy(plan.precision or "float32")
    net = _opened(plan)
    computes = net.state.trunk.packed_layers()[0].dtype_policy.name
    if plan.precision not in (None, computes):
        raise ValueError(
            f"The trunk of '{plan.pack}' computes in {computes}, and this command says "
            f"--precision={plan.precision}. That is for a new pack; leave it out."
        )
    keras.config.set_dtype_policy(computes)
    return net


def _opened(plan: Plan) -> packnet_tf.PackNet:
    path = pathlib.Path(plan.pack)
    if path.exists():
        net = packnet_tf.load(path)
        _check_fits(net, plan)
        if plan.trunk:
            print(f"'{path}' has its trunk; --trunk={plan.trunk} is for a new pack.", flush=True)
        return net
    if not plan.trunk:
        raise ValueError(
            f"There is no pack '{path}' yet, and no trunk to make it from. Add --trunk=FILE.keras"
            ", --trunk=MobileNetV2 (any model of keras.applications) or --trunk=resnet_18_imagenet "
            "(any preset of KerasHub for images)."
        )
    trunk = load_trunk(
        plan.trunk, plan.image_size, plan.trunk_output, plan.pixel_scale, plan.trunk_weights
    )
    if plan.precision is not None:
        trunk = computing_in(trunk, plan.precision)  # layers of a file have their own policies
    halves = {variable.dtype for variable in trunk.weights} & {"float16", "bfloat16"}
    if halves:
        raise ValueError(
            f"The weights of trunk '{plan.trunk}' are {halves.pop()}, which is too coarse to train "
            "them. Add --precision=mixed_float16, which keeps float32 weights, or "
            "--precision=float32."
        )
    chosen = {name: getattr(plan, name) for name in POLICIES if getattr(plan, name) is not None}
    trained = is_trained(trunk)
    base = BASE if plan.adopt == "auto" and trained else plan.adopt
    has_base = base not in ("auto", "none")
    net = packnet_tf.PackNet(trunk, **{"restart": default_restart(trained, has_base), **chosen})
    net.notes["pixel_range"] = "0,255"
    if has_base:
        net.notes[BASE] = base
    return net


def _check_fits(net, plan: Plan) -> None:
    for name in POLICIES:
        wanted, has = getattr(plan, name), getattr(net.policy, name)
        if wanted not in (None, has):
            raise ValueError(
                f"The pack '{plan.pack}' was made with --{name}={has}, which holds for all its "
                f"tasks; this command says --{name}={wanted}. Leave --{name} out, or make a new "
                "pack."
            )
    shape = net.state.trunk.input_shape
    if plan.image_size is not None and tuple(shape[1:3]) != (plan.image_size, plan.image_size):
        raise ValueError(
            f"The pack '{plan.pack}' takes inputs of shape {shape}, and this command says "
            f"--image_size={plan.image_size}. Leave --image_size out, or make a new pack."
        )
    if plan.adopt not in ("auto", "none") and net.tasks and net.tasks[0] != plan.adopt:
        raise ValueError(
            f"--adopt={plan.adopt} makes the trunk the first task of a new pack, and "
            f"'{plan.pack}' has the tasks {listed(net.tasks)}. Leave --adopt out, or make a new "
            "pack."
        )


def check_shapes(trunk, pack: str) -> None:
    """Checks that the trunk of a pack takes images and gives feature vectors."""
    shape, features = trunk.input_shape, trunk.output_shape
    images = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]
    if not (images and shape[-1] in (1, 3) and isinstance(features, tuple) and len(features) == 2):
        raise ValueError(
            f"The trunk of '{pack}' takes {shape} and gives {features}; expected images (batch, "
            "height, width, 3 or 1) and one feature vector each (batch, n). Train its tasks in "
            "Python, with net.add_task and fit."
        )


def pixel_range(net, pack: str) -> tuple[float, float]:
    """Returns the lowest and highest pixel value that the trunk of a pack takes."""
    found = noted_range(net.notes.get("pixel_range"))
    if found is None:
        raise ValueError(
            f"The pack '{pack}' does not say which pixel values its trunk takes. Open it with "
            'packnet_tf.load, set net.notes["pixel_range"] = "0,255" (or "0,1"), and save it.'
        )
    return found


def chosen_strategy(name: str) -> contextlib.AbstractContextManager:
    """Returns the scope in which a pack is made for these devices.

    Args:
        name: "none", "mirrored" (all GPUs of this host) or "multi_worker" (the hosts of TF_CONFIG).
    """
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    return contextlib.nullcontext()
