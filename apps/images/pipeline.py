"""`tf.data` pipelines of image files: decoded once, cached, shuffled, augmented."""

import os

import numpy as np

from packnet_tf.apps.images.memory import available_memory
from packnet_tf.apps.images.pixels import read_image, read_proportional_image

# Ranges of the relative area and of the aspect ratio of random crops.
AREAS, PROPORTIONS = (0.08, 1.0), (3 / 4, 4 / 3)
SHARE = 0.5  # of the available memory that decoded images may take
LONGER = 1.5  # width of a photograph by its height, about


class Pipeline:
    """Datasets of one image size.

    Args:
        shape: (height, width, channels) of the images.
        batch_size: images per batch.
        seed: seed of shuffling and augmentation.
        cache: whether to keep decoded images in memory; None: those of a dataset, if all that is
            kept takes at most half of the available memory.
        pixel_range: lowest and highest pixel value of the batches.
        shorter_side: None resizes images to the shape, regardless of their proportions. A number
            resizes their shorter side to it, in pixels, and crops the shape: the centre for
            evaluation, a random part for training.

    Attributes:
        uncached: number of images that are decoded in every pass because memory is short.
    """

    def __init__(
        self, shape, batch_size, seed, cache=None, pixel_range=(0.0, 255.0), shorter_side=None
    ):
        self.shape = tuple(shape)
        self.batch_size = batch_size
        self.seed = seed
        self.cache = cache
        self.uncached = 0
        self._left = SHARE * available_memory()
        self.pixel_range = pixel_range
        self.shorter_side = shorter_side
        if shorter_side is not None and shorter_side < max(self.shape[:2]):
            raise ValueError(
                f"Images whose shorter side is {shorter_side} pixels are too small for a network "
                f"that takes {self.shape[0]} x {self.shape[1]}. Write a shorter_side of at least "
                f"{max(self.shape[:2])}."
            )

    def images(self, files, shuffled: bool = False):
        """Returns a dataset of decoded images, uint8 (height, width, channels), and int32 labels.

        Images have the size of the shape or, with `shorter_side`, one of their own.

        Args:
            files: pairs (path, label).
            shuffled: whether to shuffle them anew in every pass.
        """
        import tensorflow as tf

        def decode(path):
            path = os.fsdecode(path)
            if self.shorter_side is None:
                return read_image(path, *self.shape)
            return read_proportional_image(path, self.shorter_side, self.shape[-1])

        def load(path, label):
            image = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
            return tf.ensure_shape(image, shape), label

        def shuffle(data):
            # The buffer holds all files. They are sorted by class, so a smaller one would not mix
            # the classes.
            return data.shuffle(len(files), seed=self.seed, reshuffle_each_iteration=True)

        shape = self.shape if self.shorter_side is None else (None, None, self.shape[-1])
        keeps = self._keeps(len(files))
        paths, labels = zip(*files, strict=True)
        paths = list(map(os.fsencode, paths))  # file names need not be UTF-8
        data = tf.data.Dataset.from_tensor_slices((paths, np.array(labels, np.int32)))
        if shuffled and not keeps:  # shuffle paths, which are smaller than images
            data = shuffle(data)
        data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        if not keeps:
            return data
        data = data.cache()
        return shuffle(data) if shuffled else data

    def _keeps(self, count: int) -> bool:
        """Returns whether so many decoded images are kept in memory."""
        if self.cache is not None:
            return self.cache
        height, width, channels = self.shape
        if self.shorter_side is not None:
            height, width = self.shorter_side, LONGER * self.shorter_side
        size = count * height * width * channels  # a byte per value
        if size > self._left:
            self.uncached += count
            return False
        self._left -= size
        return True

    def evaluation(self, files):
        """Returns batches in file order: float32 (n, h, w, c) in the pixel range, int32 (n,)."""
        data = self.images(files)
        if self.shorter_side is not None:
            data = data.map(lambda image, label: (self._centre(image), label))
        return self.batches(data)

    def batches(self, data):
        """Batches examples, and scales their uint8 images to float32 in the pixel range."""
        import tensorflow as tf

        from packnet_tf.trainer.data import untuned

        low, high = self.pixel_range

        def scale(images, labels):
            images = tf.cast(images, tf.float32)
            if (low, high) != (0.0, 255.0):
                images = images * ((high - low) / 255.0) + low
            return images, labels

        return untuned(data.batch(self.batch_size).map(scale).prefetch(tf.data.AUTOTUNE))

    def training(self, files, flip: bool, crop: bool):
        """Returns shuffled, augmented batches, one pass over the files per epoch.

        Args:
            files: pairs (path, label).
            flip: whether to mirror half of the images left to right.
            crop: whether to pad by a sixteenth on every side and crop at random to the old size;
                with `shorter_side`, to crop a random part and resize it.
        """
        return self.batches(self.training_examples(files, flip, crop))

    def training_examples(self, files, flip: bool, crop: bool):
        """Returns the examples of `training` before they are batched."""
        import tensorflow as tf

        def augment(image, seed):
            if self.shorter_side is not None:
                image = self._random_part(image, seed) if crop else self._centre(image)
            elif crop:
                image = self._moved(image, seed)
            if flip:
                image = tf.image.stateless_random_flip_left_right(image, seed)
            return tf.ensure_shape(image, self.shape)

        data = self.images(files, shuffled=True)
        if flip or crop or self.shorter_side is not None:
            seeds = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).batch(2)
            data = tf.data.Dataset.zip((data, seeds)).map(
                lambda pair, seed: (augment(pair[0], seed), pair[1]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        return data

    def _moved(self, image, seed):
        import tensorflow as tf

        rows, columns = (max(1, side // 16) for side in self.shape[:2])
        image = tf.pad(image, [[rows, rows], [columns, columns], [0, 0]])
        return tf.image.stateless_random_crop(image, self.shape, seed)

    def _centre(self, image):
        import tensorflow as tf

        image = tf.image.resize_with_crop_or_pad(image, *self.shape[:2])
        return tf.ensure_shape(image, self.shape)

    def _random_part(self, image, seed):
        """Returns a random resized crop of the image, as in torchvision."""
        import tensorflow as tf

        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            tf.bitwise.invert(seed),  # the flip uses the seed itself, so draw other numbers here
            min_object_covered=0.0,
            aspect_ratio_range=PROPORTIONS,
            area_range=AREAS,
            use_image_if_no_bounding_boxes=True,
        )
        part = tf.slice(image, begin, size)
        part = tf.image.resize(part, self.shape[:2], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(part), 0.0, 255.0), tf.uint8)
