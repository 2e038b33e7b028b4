"""The notebook way: torchvision's MNIST, a DataLoader, an eager loop in fp32."""

import time

import torch
from common import MEAN, STD, options, report
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch_net import network
from torchvision import datasets, transforms

args = options(description=__doc__)
torch.set_num_threads(args.threads)
torch.manual_seed(0)
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
train_set = datasets.MNIST(args.data_dir, train=True, transform=transform)
loader = DataLoader(
    Subset(train_set, range(args.images)),
    args.batch_size,
    shuffle=True,
    drop_last=True,
    num_workers=args.workers,
)
model = network(args.norm)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
started = time.perf_counter()
model.train()
for _ in range(args.epochs):
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
seconds = time.perf_counter() - started
score = None
if args.evaluate:
    test_set = datasets.MNIST(args.data_dir, train=False, transform=transform)
    model.eval()
    with torch.no_grad():
        hits = sum(
            int((model(images).argmax(1) == labels).sum())
            for images, labels in DataLoader(test_set, 1000)
        )
    score = hits / len(test_set)
report(args.epochs * args.images, seconds, score)
