"""Image files as `tf.data`: decoded once, cached, shuffled, augmented."""

import numpy as np

from packnet_tf.apps.pixels import read_image


class Pipeline:
    """Datasets of one image size.

    Args:
        shape: (height, width, channels) of the images.
        batch_size: images per batch.
        seed: of shuffling and augmentation.
        cache: whether to keep decoded images in memory.
        pixel_range: lowest and highest pixel value of the batches.
    """

    def __init__(self, shape, batch_size, seed, cache=True, pixel_range=(0.0, 255.0)):
        self.shape = tuple(shape)
        self.batch_size = batch_size
        self.seed = seed
        self.cache = cache
        self.pixel_range = pixel_range

    def images(self, files):
        """Decoded images with labels: uint8 (height, width, channels) and int32."""
        import tensorflow as tf

        def decode(path):
            return read_image(path.decode(), *self.shape)

        def load(path, label):
            image = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
            return tf.ensure_shape(image, self.shape), label

        paths, labels = zip(*files, strict=True)
        data = tf.data.Dataset.from_tensor_slices((list(paths), np.array(labels, np.int32)))
        data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return data.cache() if self.cache else data

    def evaluation(self, files):
        """Batches in the order of the files: float32 (n, h, w, c) of the range, int32 (n,)."""
        return self._batches(self.images(files))

    def _batches(self, data):
        import tensorflow as tf

        low, high = self.pixel_range

        def scale(images, labels):
            images = tf.cast(images, tf.float32)
            if (low, high) != (0.0, 255.0):
                images = images * ((high - low) / 255.0) + low
            return images, labels

        return data.batch(self.batch_size).map(scale).prefetch(tf.data.AUTOTUNE)

    def training(self, files, flip: bool, crop: bool):
        """Shuffled, augmented batches, one pass over the files per epoch.

        Args:
            files: pairs (path, label).
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

        data = self.images(files)
        data = data.shuffle(min(len(files), 20_000), seed=self.seed, reshuffle_each_iteration=True)
        if flip or crop:
            seeds = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).batch(2)
            data = tf.data.Dataset.zip((data, seeds)).map(
                lambda pair, seed: (augment(pair[0], seed), pair[1]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        return self._batches(data)
