"""PyTorch Lightning's Trainer over a DataLoader on torchvision's MNIST."""

import logging
import time
import warnings

import lightning
import torch
from common import MEAN, STD, digits, options, report
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch_net import accuracy, network
from torchvision import datasets, transforms

args = options(description=__doc__)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")  # its advice on workers and loggers
torch.set_num_threads(args.threads)
torch.manual_seed(0)


class Net(lightning.LightningModule):
    """The CNN, its loss and its optimizer; times its own training phase."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network(args.norm)

    def on_train_start(self) -> None:
        self.started = time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds = time.perf_counter() - self.started

    def training_step(self, batch):
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
train_set = datasets.MNIST(args.data_dir, train=True, transform=transform)
loader = DataLoader(
    Subset(train_set, range(args.images)),
    args.batch_size,
    shuffle=True,
    drop_last=True,
    num_workers=args.workers,
)
net = Net()
trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(net, loader)
score = None
if args.evaluate:
    test_pixels, test_targets = digits(args.data_dir, "t10k")
    score = accuracy(
        net.model, torch.from_numpy(test_pixels[:, None]), torch.from_numpy(test_targets)
    )
report(args.images, net.seconds, score)
