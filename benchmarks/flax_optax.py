"""Flax NNX with optax, one jitted step; one step beforehand pays for the compilation."""

import os
import time

from common import digits, options, report

args = options(description=__doc__)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402

NORMS = {
    "group": lambda channels, rngs: nnx.GroupNorm(channels, 8, epsilon=1e-5, rngs=rngs),
    "batch": lambda channels, rngs: nnx.BatchNorm(channels, momentum=0.9, rngs=rngs),
    "none": lambda channels, rngs: lambda x: x,
}


class Net(nnx.Module):
    """The CNN in channels-last, as JAX has it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, (5, 5), rngs=rngs)
        self.norm1 = NORMS[args.norm](32, rngs)
        self.conv2 = nnx.Conv(32, 64, (5, 5), rngs=rngs)
        self.norm2 = NORMS[args.norm](64, rngs)
        self.linear = nnx.Linear(3136, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.norm2(self.conv2(x))), (2, 2), (2, 2))
        return self.linear(x.reshape(len(x), -1))


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss_of(model):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


pixels, targets = digits(args.data_dir, "train")
images, labels = pixels[..., None], targets.astype(np.int32)
model = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
size = args.batch_size
train_step(model, optimizer, images[:size], labels[:size]).block_until_ready()
order = np.random.default_rng(0).permutation(args.images)
started = time.perf_counter()
for i in range(args.steps):
    batch = order[i * size : (i + 1) * size]
    loss = train_step(model, optimizer, images[batch], labels[batch])
loss.block_until_ready()
seconds = time.perf_counter() - started
score = None
if args.evaluate:
    model.eval()
    predict = nnx.jit(lambda model, x: model(x).argmax(1))
    test_pixels, test_targets = digits(args.data_dir, "t10k")
    hits = sum(
        int((predict(model, jnp.asarray(x[..., None])) == y).sum())
        for x, y in zip(np.split(test_pixels, 10), np.split(test_targets, 10), strict=True)
    )
    score = hits / len(test_targets)
report(args.images, seconds, score)
