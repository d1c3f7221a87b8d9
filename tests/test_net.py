"""The verbs add, prune, commit and discard, for all kinds of trunks, and promise 9 about them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import packnet_tf
from pack_helpers import (
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    nested_trunk,
    owners,
    pack_task,
    packed,
    packed_layers,
    same,
    state,
    values,
)


def functional(*stack, shape=(12,), **kwargs):
    inputs = keras.Input(shape, name="features")
    x = inputs
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, **{"name": "trunk", **kwargs})


# -- What can be packed --------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(model)
    assert str(error.value) == (
        "Cannot pack trunk 'own': it is a subclassed model (Subclassed), whose graph only its own "
        "code knows. Build it as a Functional or Sequential model; a subclassed layer inside one "
        "is fine."
    )


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(keras.Sequential([layers.Dense(2)], name="early"))
    assert str(error.value) == (
        "Cannot pack trunk 'early': it is not built yet. Give it an input shape, "
        "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
    )


def nothing_packable():
    return functional(layers.BatchNormalization())


def frozen_trunk():
    trunk = mlp_trunk()
    trunk.trainable = False
    return trunk


@pytest.mark.parametrize("make", [nothing_packable, frozen_trunk])
def test_a_trunk_with_nothing_to_pack_is_refused(make):
    trunk = make()
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(trunk)
    assert str(error.value) == (
        f"Cannot pack trunk '{trunk.name}': it has no layer that can be packed (Dense or a "
        "convolution, say) and is trainable. Register a layer of your own with "
        "packnet_tf.register_packed; if the trunk is frozen, set trunk.trainable = True."
    )


def test_a_packed_trunk_is_refused():
    net = packed(mlp_trunk(), one=0.5)
    model = net.task_model("one")
    for trunk in (net, model, model.trunk, functional(model.trunk)):
        with pytest.raises(ValueError) as error:
            packnet_tf.PackNet(trunk)
        assert str(error.value) == (
            "Cannot pack this trunk: it is packed already. Add tasks to the PackNet it belongs "
            "to, or pack the plain model that net.unpack(task) returns."
        )
    packnet_tf.PackNet(net.unpack("one"))


@pytest.mark.parametrize(
    "trunk", ["trunk.keras", None, layers.Dense(2)], ids=["path", "none", "one"]
)
def test_what_is_no_model_is_refused(trunk):
    with pytest.raises(ValueError, match="expected a Keras model"):
        packnet_tf.PackNet(trunk)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"biases": "own"}, "biases='own' is not a policy; write biases='shared' or "
                            "biases='per_task'."),
        ({"norms": True}, "norms=True is not a policy; write norms='shared' or norms='per_task'."),
        ({"restart": 0}, "restart=0 is not a policy; write restart='trunk' or restart='zero'."),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_refused(setting, text):
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(mlp_trunk(), **setting)
    assert str(error.value) == text


def test_a_lora_layer_is_refused():
    trunk = functional(layers.Dense(8, lora_rank=2, name="adapted"))
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(trunk)
    assert str(error.value) == (
        "Cannot pack layer 'adapted': it is LoRA-enabled, so its kernel is not one plain float "
        "variable. Build the PackNet from the float model without it, and quantize or adapt the "
        "model that net.unpack(task) returns."
    )


def test_a_quantized_layer_is_refused():
    trunk = functional(layers.Dense(8, name="small"))
    trunk.get_layer("small").quantize("int8")
    with pytest.raises(ValueError, match="Cannot pack layer 'small': it is quantized"):
        packnet_tf.PackNet(trunk)


@pytest.mark.parametrize(
    ("deed", "text"),
    [(lambda layer: layer.enable_lora(2), "LoRA"), (lambda layer: layer.quantize("int8"), "Quant")],
)
def test_packed_layers_refuse_to_become_something_else(deed, text):
    net = packed(mlp_trunk(), one=0.5)
    for layer in packed_layers(net.task_model("one")):
        with pytest.raises(ValueError, match=f"Layer '{layer.name}' is packed: .*{text}"):
            deed(layer)


# -- Kinds of trunks -----------------------------------------------------------------------------


def test_packing_keeps_pretrained_values(trunk):
    """The first task starts as the trunk with a head on it, to the bit."""
    jolt(trunk)
    head = layers.Dense(3, name="logits")
    head.build(trunk.output_shape)
    x, _ = data(trunk)
    model = packnet_tf.PackNet(trunk).add_task("one", head)
    assert np.array_equal(logits(model, x), logits(keras.Sequential([trunk, head]), x))


def test_a_trunk_with_adapted_normalization_is_packed():
    adapted = layers.Normalization(name="adapted")
    adapted.adapt(np.arange(24, dtype="float32").reshape(2, 12))
    trunk = functional(adapted, layers.Dense(8))
    x, _ = data(trunk)
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), logits(trunk, x))
    net.commit()
    assert np.array_equal(logits(net.task_model("one"), x), logits(trunk, x))
    assert np.array_equal(logits(net.unpack("one"), x), logits(trunk, x))


def test_a_trunk_with_a_python_lambda_is_refused_before_it_is_trained():
    """Such a pack could be saved but never loaded: loading executes nothing from a file."""
    trunk = functional(layers.Lambda(lambda x: 2 * x, name="twice"), layers.Dense(8))
    with pytest.raises(ValueError, match=r"(?i)lambda"):
        packnet_tf.PackNet(trunk)


def test_a_nested_model_and_a_layer_called_twice_have_one_owner_map_each():
    net = packed(nested_trunk(), one=0.5)
    assert sorted(net._weights) == ["block/inner", "stem", "twice"]
    assert {path: owner.shape for path, owner in owners(net).items()} == {
        "block/inner": (8, 8), "stem": (12, 8), "twice": (8, 8),
    }  # fmt: skip
    assert {path: entry["total"] for path, entry in net.capacity().items()} == {
        "block/inner": 64, "stem": 96, "twice": 64,
    }  # fmt: skip


def test_a_model_called_twice_has_one_owner_map():
    block = functional(layers.Dense(12, activation="relu", name="inner"), name="block")
    inputs = keras.Input((12,))
    trunk = keras.Model(inputs, block(block(inputs)))
    net = packed(trunk, one=0.5)
    assert list(net._weights) == ["block/inner"]
    x, _ = data(trunk)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


@pytest.mark.parametrize("nested", [keras.Sequential, None], ids=["in_sequential", "functional"])
def test_sequential_models_nest(nested):
    inner = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, activation="relu", name="inner")], name="block"
    )
    end = layers.Dense(4, name="end")
    if nested is None:
        trunk = functional(inner, end)
    else:
        trunk = nested([keras.Input((12,)), inner, end], name="outer")
    x, _ = data(trunk)
    net = packed(trunk, one=0.5, two=0.5)
    assert sorted(net._weights) == ["block/inner", "end"]
    for name in net.tasks:
        assert np.array_equal(logits(net.task_model(name), x), logits(net.unpack(name), x))


def test_a_sequential_model_built_by_calling_it_is_packed():
    trunk = keras.Sequential([layers.Dense(8, name="first")], name="called")
    trunk(np.zeros((2, 12), "float32"))
    net = packed(trunk, one=0.5)
    assert net.task_model("one").input_shape[1:] == (12,)


def test_a_trunk_with_several_inputs_is_packed():
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((3,), name="right")}
    x = layers.concatenate([layers.Dense(5, name=f"d_{k}")(v) for k, v in inputs.items()])
    trunk = keras.Model(inputs, x, name="two_inputs")
    net = packnet_tf.PackNet(trunk)
    model = compiled(net.add_task("one", layers.Dense(3)))
    rng = np.random.default_rng(0)
    x = {k: rng.normal(size=(16, *v.shape[1:])).astype("float32") for k, v in inputs.items()}
    fit(model, x, np.arange(16) % 3, packnet_tf.PackNetCallback(0.5, 1))
    assert net.tasks == ("one",)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_a_trunk_with_several_outputs_is_packed(structure):
    inputs = keras.Input((12,), name="features")
    outputs = [layers.Dense(size, activation="relu", name=f"d{size}")(inputs) for size in (4, 6)]
    if structure == "dict":
        trunk = keras.Model(inputs, {"four": outputs[0], "six": outputs[1]})
        ends = {"four": keras.Input((4,), name="four"), "six": keras.Input((6,), name="six")}
        joined = layers.concatenate([ends["four"], ends["six"]])
    else:
        trunk = keras.Model(inputs, outputs)
        ends = [keras.Input((4,)), keras.Input((6,))]
        joined = layers.concatenate(ends)
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", keras.Model(ends, layers.Dense(3)(joined)))
    jolt(model)
    net.prune(0.5)
    net.commit()
    x = np.ones((2, 12), "float32")
    assert model.output_shape == (None, 3)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


def test_a_head_may_have_several_outputs():
    net = packnet_tf.PackNet(mlp_trunk())
    ends = keras.Input((8,))
    head = keras.Model(ends, [layers.Dense(2)(ends), layers.Dense(3)(ends)])
    model = net.add_task("one", head)
    assert model.output_shape == [(None, 2), (None, 3)]
    net.commit()
    x, _ = data(mlp_trunk())
    for first, second in zip(net.task_model("one")(x), net.unpack("one")(x), strict=True):
        assert np.array_equal(first, second)


def test_a_layer_that_its_owner_froze_stays_as_it_is_for_all_tasks():
    trunk = functional(layers.Dense(8, name="fixed"), layers.Dense(4, name="packed"))
    trunk.get_layer("fixed").trainable = False
    before = values(trunk.get_layer("fixed").weights)
    net = packnet_tf.PackNet(trunk)
    assert list(net._weights) == ["packed"]
    for name in ("one", "two"):
        model = pack_task(net, name)
        assert same(values(model.trunk.get_layer("fixed").weights), before)
        assert type(net.task_model(name).trunk.get_layer("fixed")) is layers.Dense


@pytest.mark.parametrize(
    ("layer", "shape", "names"),
    [
        (layers.Conv2D(4, 3, groups=2), (6, 6, 2), ["packed"]),
        (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (8, 2), ["packed"]),
        (layers.EinsumDense("abc,cd->abd", output_shape=(3, 4)), (3, 2), ["packed"]),
        (layers.Conv2DTranspose(4, 3), (6, 6, 1), ["packed"]),
        (layers.DepthwiseConv2D(3), (6, 6, 2), ["packed"]),
        (
            layers.SeparableConv2D(4, 3),
            (6, 6, 2),
            ["packed/depthwise_kernel", "packed/pointwise_kernel"],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_every_listed_layer_is_packed(layer, shape, names):
    layer = type(layer).from_config({**layer.get_config(), "name": "packed"})
    trunk = functional(layer, layers.Flatten(), shape=shape)
    x, _ = data(trunk)
    start = logits(trunk, x)
    net = packnet_tf.PackNet(trunk)
    assert list(net._weights) == names
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), start)
    jolt(model)
    net.prune(0.5)
    net.commit()
    answers = logits(net.task_model("one"), x)
    assert np.array_equal(logits(net.unpack("one"), x), answers)
    pack_task(net, "two")
    assert np.array_equal(logits(net.task_model("one"), x), answers)


class Doubled(layers.Dense):
    """A subclass of Dense that reads its kernel in its own way."""

    def call(self, x):
        return super().call(2.0 * x)


def test_a_subclass_of_a_packed_layer_names_the_remedy():
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(functional(Doubled(4, name="twice")))
    assert str(error.value) == (
        "Layer 'twice' is a Doubled, a subclass of Dense that is not registered for packing. If it "
        "reads its kernel as Dense does, call packnet_tf.register_packed(Doubled, "
        "variables=['kernel']) first."
    )


class Tripled(layers.Dense):
    def call(self, x):
        return super().call(3.0 * x)


@keras.saving.register_keras_serializable("tests")
class Bilinear(layers.Layer):
    """A layer of one's own with two weights to pack and one of another kind."""

    def build(self, shape):
        self.left = self.add_weight(name="left", shape=(shape[-1], 4), initializer="glorot_uniform")
        self.right = self.add_weight(shape=(shape[-1], 4), name="right", initializer="normal")
        self.gain = self.add_weight(name="gain", shape=(4,), initializer="ones")

    def call(self, x):
        return self.gain * keras.ops.matmul(x, self.left) * keras.ops.matmul(x, self.right)


def test_registered_layers_are_packed(tmp_path):
    packnet_tf.register_packed(Tripled)
    packnet_tf.register_packed(Bilinear, variables=["left", "right"])
    trunk = functional(Tripled(4, name="triple"), Bilinear(name="bi"))
    x, _ = data(trunk)
    start = logits(trunk, x)
    net = packnet_tf.PackNet(trunk)
    assert list(net._weights) == ["triple", "bi/left", "bi/right"]
    assert np.array_equal(logits(net.add_task("one", layers.Identity()), x), start)
    jolt(net.open_model)
    net.prune(0.5)
    net.commit()
    answers = logits(net.task_model("one"), x)
    pack_task(net, "two")
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    plain = net.unpack("one")
    assert np.array_equal(logits(plain, x), answers)
    assert any(type(layer) is Bilinear for layer in plain._flatten_layers())


@pytest.mark.parametrize("variables", [[], "kernel", ()])
def test_registering_without_names_is_refused(variables):
    with pytest.raises(ValueError) as error:
        packnet_tf.register_packed(Doubled, variables=variables)
    assert str(error.value) == (
        "register_packed needs the names of the weights to pack, a list; got "
        f'{variables!r}. Write variables=["kernel"].'
    )


def test_registering_a_packed_class_is_refused():
    packed_class = type(packed_layers(packed(mlp_trunk(), one=0).task_model("one"))[0])
    with pytest.raises(ValueError) as error:
        packnet_tf.register_packed(packed_class)
    assert str(error.value) == (
        "PackedDense is a packed class already; register the plain Keras class."
    )


# -- Add -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "-x", "a b", "x" * 101, 3, None])
def test_a_name_that_is_no_file_name_is_refused(name):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.add_task(name, layers.Dense(3))
    assert str(error.value) == (
        f"Cannot add a task named {name!r}: the name must be usable as a file name, up to 100 "
        "letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write 'my_task', for "
        "instance."
    )
    assert net.open_model is None


@pytest.mark.parametrize("name", ["birds", "task_1", "v1.2-final", "7", "Vögel"])
def test_a_name_that_is_a_file_name_is_taken(name):
    net = packnet_tf.PackNet(mlp_trunk())
    assert net.add_task(name, layers.Dense(3)).name == name
    net.commit()
    assert net.tasks == (name,)


def test_a_name_is_unique():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    with pytest.raises(ValueError) as error:
        net.add_task("one", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'one': the pack has a task of that name. Its tasks are 'one', 'two'; "
        "choose another name."
    )


@pytest.mark.parametrize(("pruned", "phase"), [(False, "training"), (True, "retraining")])
def test_a_task_is_not_added_while_another_is_open(pruned, phase):
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("two", layers.Dense(3))
    if pruned:
        net.prune(0.5)
    with pytest.raises(RuntimeError) as error:
        net.add_task("three", layers.Dense(3))
    assert str(error.value) == (
        f"Cannot add task 'three': task 'two' is not committed yet ({phase}). Finish it with "
        "net.prune(ratio) and net.commit(), or drop it with net.discard()."
    )
    assert net.open_model.name == "two"


def test_a_task_is_not_added_without_capacity():
    net = packed(mlp_trunk(), one=0)
    with pytest.raises(ValueError) as error:
        net.add_task("cars", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'cars': layer 'first' has no free weights left (capacity 0.0) (nor have "
        "1 other layers). Use a higher prune_ratio for earlier tasks or a wider trunk."
    )


def test_a_task_is_not_added_without_capacity_as_the_design_says_it():
    net = packed(functional(layers.Dense(4, name="conv2")), one=0)
    with pytest.raises(ValueError) as error:
        net.add_task("cars", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'cars': layer 'conv2' has no free weights left (capacity 0.0). Use a "
        "higher prune_ratio for earlier tasks or a wider trunk."
    )


def test_a_layer_without_capacity_is_warned_of_while_others_have_some():
    trunk = functional(layers.Dense(1, name="tiny", use_bias=False), layers.Dense(8), shape=(1,))
    net = packed(trunk, one=0.5)  # round(0.5 * 1) is 0: the tiny layer keeps its one weight
    with pytest.warns(UserWarning, match="'two' cannot train every layer: layer 'tiny' has no"):
        net.add_task("two", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("one", "two")


@pytest.mark.parametrize("head", [None, 10, "dense", layers.Dense], ids=str)
def test_a_head_that_is_no_layer_is_refused(head):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.add_task("one", head)
    assert str(error.value) == (
        "Cannot add task 'one': its head must be a Keras layer or model, for instance "
        f"keras.layers.Dense(10); got {head!r}."
    )


def test_class_names_are_kept_and_counted():
    net = packnet_tf.PackNet(mlp_trunk())
    before = state(net)
    with pytest.raises(ValueError) as error:
        net.add_task("one", layers.Dense(3), classes=["a", "b"])
    assert str(error.value) == (
        "Cannot add task 'one': 2 class names for 3 outputs. Give one name per output of the head."
    )
    assert net.open_model is None
    assert same(state(net), before)
    net.add_task("one", layers.Dense(3), classes=["a", "b", "c"])
    net.commit()
    assert net.classes("one") == ["a", "b", "c"]


def test_a_refused_task_leaves_the_pack_as_it_was():
    net = packed(mlp_trunk(), one=0.5)
    before = state(net)
    misfit = keras.Sequential([keras.Input((99,)), layers.Dense(3)])
    with pytest.raises(ValueError):  # in Keras's own words
        net.add_task("two", misfit)
    assert net.open_model is None
    assert same(state(net), before)
    pack_task(net, "two")


# -- Prune, commit, discard ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["prune", "commit", "discard"])
def test_a_verb_without_an_open_task_is_refused(verb):
    net = packed(mlp_trunk(), one=0.5)
    with pytest.raises(RuntimeError) as error:
        getattr(net, verb)(*([0.5] if verb == "prune" else []))
    assert str(error.value) == (
        f"Nothing to {verb}: no task is open. Call net.add_task(name, head) first."
    )


def test_a_wrong_ratio_prunes_nothing():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    before = state(net)
    with pytest.raises(ValueError, match="prune_ratio is the fraction of the task's claim"):
        net.prune(1.5)
    assert same(state(net), before)


@pytest.mark.parametrize("ratio", [0, 0.3, 0.5, 0.75, 1])
def test_prune_releases_exactly_the_rounded_share_of_every_layers_claim(trunk, ratio):
    net = packed(trunk, one=0.5)
    jolt(net.add_task("two", layers.Dense(3)))
    before, trained, earlier = claims(net), kernels(net), owners(net)
    released = net.prune(ratio)
    after = claims(net)
    assert list(released) == list(before)
    for path, count in released.items():
        claimed = np.count_nonzero(before[path])
        gone = (before[path] > 0) & (after[path] == 0)
        kept = after[path] > 0
        assert count == round(ratio * claimed) == np.count_nonzero(gone)
        assert np.count_nonzero(kept) == claimed - count
        assert not np.any(kept & (before[path] == 0))
        if gone.any() and kept.any():
            assert np.abs(trained[path][gone]).max() <= np.abs(trained[path][kept]).min()
    assert same(list(owners(net).values()), list(earlier.values()))


def test_released_weights_count_as_zero_in_every_view_until_a_later_task_claims_them():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    jolt(model)
    trained = kernels(net)
    net.prune(0.5)
    for layer in packed_layers(model):
        (path,) = [p for p, w in net._weights.items() if w.claim is layer.packed["kernel"].claim]
        claim = claims(net)[path]
        expected = np.where(claim == 1, trained[path], 0)
        assert np.array_equal(layer.kernel, expected)
    net.commit()
    for layer in packed_layers(net.task_model("one")):
        owner = keras.ops.convert_to_numpy(layer.kernel_owner)
        assert np.array_equal(layer.kernel == 0, owner == 0)
    jolt(net.add_task("two", layers.Dense(3)))
    for layer in packed_layers(net.open_model):
        assert np.all(keras.ops.convert_to_numpy(layer.kernel) != 0)


def test_pruning_twice_releases_of_what_is_left():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    assert net.prune(0.5) == {"first": 96, "second": 64}
    assert net.prune(0.25) == {"first": 24, "second": 16}
    net.commit()
    assert net.capacity()["first"]["owned"] == {"one": 72}


def test_a_task_may_keep_all_it_claimed_without_a_prune():
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("last", layers.Dense(3))
    net.commit()
    assert net.capacity().free == 0.0


def test_a_discarded_task_leaves_the_pack_as_it_was():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    before = net.capacity(), owners(net), [values([w.packed]) for w in net._weights.values()]
    x, _ = data(trunk)
    first = logits(net.add_task("two", layers.Identity()), x)
    jolt(net.open_model)
    net.prune(0.5)
    net.discard()
    assert net.open_model is None
    assert net.tasks == ("one",)
    assert net.capacity() == before[0]
    assert same(list(owners(net).values()), list(before[1].values()))
    for weight, expected in zip(net._weights.values(), before[2], strict=True):
        assert same(values([weight.packed]), expected)
    assert np.array_equal(logits(net.add_task("two", layers.Identity()), x), first)


def test_an_unknown_task_is_named_with_those_there_are():
    net = packed(mlp_trunk(), one=0.5)
    for look in (net.task_model, net.unpack, net.classes):
        with pytest.raises(ValueError) as error:
            look("two")
        assert str(error.value) == ("There is no committed task 'two'. Committed tasks: 'one'.")
    net.add_task("two", layers.Dense(3))
    with pytest.raises(ValueError) as error:
        net.unpack("two")
    assert str(error.value) == (
        "There is no committed task 'two'. It is still open: call net.commit() first. Committed "
        "tasks: 'one'."
    )
    with pytest.raises(ValueError, match="Committed tasks: none yet"):
        packnet_tf.PackNet(mlp_trunk()).task_model("one")


def test_a_task_model_behaves_as_a_keras_model():
    net = packnet_tf.PackNet(conv_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)))
    x, y = data(model)
    history = fit(model, x, y, epochs=1, validation_split=0.25)
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"accuracy", "loss"}
    assert model.predict(x, verbose=0).shape == (24, 3)
    lines = []
    model.summary(print_fn=lambda line, **kwargs: lines.append(line))
    assert "conv" in "\n".join(lines)
    assert isinstance(model, keras.Model)
    assert model.input_shape == (None, 6, 6, 1)


steps = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["commit", "commit", "twice", "discard", "no_prune"]),
        st.integers(0, 1000),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=25)
@given(steps)
@pytest.mark.filterwarnings("ignore:Task .* cannot train every layer")
def test_free_and_owned_weights_add_up_and_owners_never_change_once_set(sequence):
    trunk = functional(layers.Dense(5, name="a"), layers.Dense(3, name="b"), shape=(4,))
    x, _ = data(trunk, size=4)
    net = packnet_tf.PackNet(trunk)
    totals = {"a": 20, "b": 15}
    answers = {}
    for number, (ratio, course, seed) in enumerate(sequence):
        before = owners(net)
        if net.capacity().free == 0:
            with pytest.raises(ValueError, match="no free weights left"):
                net.add_task(f"t{number}", layers.Dense(2))
            break
        jolt(net.add_task(f"t{number}", layers.Dense(2)), seed)
        if course != "no_prune":
            net.prune(ratio)
        if course == "twice":
            net.prune(ratio)
        if course == "discard":
            net.discard()
        else:
            net.commit()
            answers[f"t{number}"] = logits(net.task_model(f"t{number}"), x)
        after, capacity = owners(net), net.capacity()
        for path, total in totals.items():
            owned = before[path] > 0
            assert np.array_equal(after[path][owned], before[path][owned])
            entry = capacity[path]
            assert entry["free"] + sum(entry["owned"].values()) == entry["total"] == total
            assert entry["claimed"] == 0
            assert entry["free"] == np.count_nonzero(after[path] == 0)
        assert net.tasks == tuple(answers)
        for name, expected in answers.items():
            assert np.array_equal(logits(net.task_model(name), x), expected)
