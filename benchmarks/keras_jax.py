"""Keras 3 on JAX: model.fit, jitted by Keras; one batch beforehand pays for the compilation."""

import os
import time

from common import digits, options, report

args = options(description=__doc__)
os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import keras  # noqa: E402
from keras import layers  # noqa: E402

keras.utils.set_random_seed(0)
NORMS = {
    "group": lambda: [layers.GroupNormalization(8, epsilon=1e-5)],
    "batch": lambda: [layers.BatchNormalization(momentum=0.9, epsilon=1e-5)],
    "none": list,
}
pixels, labels = digits(args.data_dir, "train")
images = pixels[: args.images, :, :, None]
labels = labels[: args.images]
model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 5, padding="same"),
        *NORMS[args.norm](),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 5, padding="same"),
        *NORMS[args.norm](),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(10),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(images[: args.batch_size], labels[: args.batch_size], args.batch_size, verbose=0)
started = time.perf_counter()
model.fit(images, labels, batch_size=args.batch_size, epochs=1, shuffle=True, verbose=0)
seconds = time.perf_counter() - started
score = None
if args.evaluate:
    test_pixels, test_labels = digits(args.data_dir, "t10k")
    score = model.evaluate(test_pixels[..., None], test_labels, batch_size=1000, verbose=0)[1]
report(args.images, seconds, score)
