"""All digits in one tensor, an eager loop in fp32, channels first."""

import time

import torch
from common import digits, options, report
from torch import nn
from torch_net import accuracy, network

args = options(description=__doc__)
torch.set_num_threads(args.threads)
torch.manual_seed(0)
pixels, targets = digits(args.data_dir, "train")
images, labels = torch.from_numpy(pixels[:, None]), torch.from_numpy(targets)
model = network(args.norm)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
started = time.perf_counter()
model.train()
for batch in torch.randperm(args.images).split(args.batch_size):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    loss.backward()
    optimizer.step()
seconds = time.perf_counter() - started
score = None
if args.evaluate:
    test_pixels, test_targets = digits(args.data_dir, "t10k")
    score = accuracy(model, torch.from_numpy(test_pixels[:, None]), torch.from_numpy(test_targets))
report(args.images, seconds, score)
