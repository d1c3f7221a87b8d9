"""Image files as `tf.data`: decoded once, cached, shuffled, augmented."""

import pathlib

import numpy as np

from packnet_tf.apps.pixels import read_image


class Pipeline:
    """Datasets of one image size, and the names of the files that could not be read.

    Args:
        shape: (height, width, channels) of the images.
        batch_size: images per batch.
        seed: of shuffling and augmentation.
        cache: "memory", "none", or a folder to cache the decoded images in.
    """

    def __init__(self, shape, batch_size: int, seed: int, cache: str = "memory"):
        self.shape = tuple(shape)
        self.batch_size = batch_size
        self.seed = seed
        self.cache = cache
        self.unreadable: dict[str, str] = {}

    def images(self, files, name: str):
        """Decoded images with labels, unreadable ones left out: uint8 (h, w, c) and int32."""
        import tensorflow as tf

        def decode(path, label):
            path = path.decode()
            try:
                return read_image(path, *self.shape), label, True
            except OSError as error:
                self.unreadable[path] = str(error)
                return np.zeros(self.shape, np.uint8), label, False

        def load(path, label):
            image, label, good = tf.numpy_function(
                decode, [path, label], [tf.uint8, tf.int32, tf.bool], stateful=False
            )
            return tf.ensure_shape(image, self.shape), tf.ensure_shape(label, ()), good

        paths, labels = zip(*files, strict=True)
        data = tf.data.Dataset.from_tensor_slices((list(paths), np.array(labels, np.int32)))
        data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        data = data.filter(lambda image, label, good: tf.ensure_shape(good, ()))
        data = data.map(lambda image, label, good: (image, label))
        if self.cache == "none":
            return data
        if self.cache == "memory":
            return data.cache()
        pathlib.Path(self.cache).mkdir(parents=True, exist_ok=True)
        return data.cache(str(pathlib.Path(self.cache) / name))

    def evaluation(self, files, name: str):
        """Batches in the order of the files: float32 (n, h, w, c) of 0 to 255, int32 (n,)."""
        import tensorflow as tf

        data = self.images(files, name).batch(self.batch_size)
        data = data.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
        return data.prefetch(tf.data.AUTOTUNE)

    def training(self, files, name: str, flip: bool, crop: bool):
        """Shuffled, augmented batches, one pass over the files per epoch.

        Args:
            files: pairs (path, label).
            name: of the cache.
            flip: mirror half of the images left to right.
            crop: pad by a sixteenth on every side and crop at random to the old size.
        """
        import tensorflow as tf

        height, width, _ = self.shape
        rows, columns = max(1, height // 16), max(1, width // 16)

        def augment(image, seed):
            if crop:
                image = tf.pad(image, [[rows, rows], [columns, columns], [0, 0]])
                image = tf.image.stateless_random_crop(image, self.shape, seed)
            if flip:
                image = tf.image.stateless_random_flip_left_right(image, seed)
            return tf.ensure_shape(image, self.shape)

        data = self.images(files, name)
        data = data.shuffle(min(len(files), 20_000), seed=self.seed, reshuffle_each_iteration=True)
        if flip or crop:
            seeds = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).batch(2)
            data = tf.data.Dataset.zip((data, seeds)).map(
                lambda pair, seed: (augment(pair[0], seed), pair[1]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        data = data.batch(self.batch_size)
        data = data.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
        return data.prefetch(tf.data.AUTOTUNE)
