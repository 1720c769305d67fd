"""Darknet-19 in PyTorch with this project's weights, as fast as PyTorch gets it: run by run.py.

Channels last, activations in place and after the pooling, convolution and batch norm fused for
inference, and with ``--precision bfloat16`` PyTorch's automatic mixed precision.
"""

import json
import os

import numpy as np
import torch
import worker
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Darknet19(nn.Sequential):
    """The layers of ``layers.json``: (filters, kernel size), or a string for a max-pool."""

    def __init__(self, layers):
        parts, channels = [], 3
        for layer in layers:
            if isinstance(layer, str):
                parts.insert(-1, nn.MaxPool2d(2))  # before the activation: the same result, faster
                continue
            filters, size = layer
            parts += [nn.Conv2d(channels, filters, size, padding=size // 2, bias=False),
                      nn.BatchNorm2d(filters, eps=1e-5), nn.LeakyReLU(0.1, inplace=True)]
            channels = filters
        super().__init__(*parts, nn.Conv2d(channels, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def load(self, weights):
        """Take the weights of this project's ``.npz``."""
        convolutions = [part for part in self if isinstance(part, nn.Conv2d)]
        norms = [part for part in self if isinstance(part, nn.BatchNorm2d)]
        with torch.no_grad():
            for index, part in enumerate(convolutions):
                kernel = weights["conv_{}/kernel".format(index)].transpose(3, 2, 0, 1)
                part.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            convolutions[-1].bias.copy_(
                torch.from_numpy(weights["conv_{}/bias".format(len(norms))]))
            for index, part in enumerate(norms):
                for target, name in ((part.weight, "gamma"), (part.bias, "beta"),
                                     (part.running_mean, "mean"), (part.running_var, "variance")):
                    target.copy_(torch.from_numpy(weights["conv_{}/{}".format(index, name)]))

    def fused(self):
        """The network for inference, each batch norm fused into the convolution before it."""
        parts = []
        for part in self.eval():
            if isinstance(part, nn.BatchNorm2d):
                parts[-1] = fuse_conv_bn_eval(parts[-1], part)
            else:
                parts.append(part)
        return nn.Sequential(*parts).eval()


def tensor(images):
    """float32 in 0..1, channels last, of uint8 images [n, height, width, 3]."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).contiguous(
        memory_format=torch.channels_last)


def read_inputs(folder):
    """The layers and the weights that prepare.py wrote."""
    with open(os.path.join(folder, "layers.json")) as stream:
        layers = json.load(stream)
    with np.load(os.path.join(folder, "weights.npz")) as stored:
        return layers, {name: stored[name].astype(np.float32) for name in stored.files}


def training_task(layers, pictures, autocast):
    """Steps of Adam on images in memory; see worker.serve()."""
    net = Darknet19(layers).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    labels = torch.arange(len(pictures)) % 2

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            with autocast():
                scores = net(tensor(pictures))
            loss = nn.functional.cross_entropy(scores.float(), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        return steps * len(pictures)

    return train


def matrix_product(steps, operand):
    """FLOP of so many large float32 matrix products."""
    for _ in range(steps):
        torch.mm(operand, operand)
    return steps * 2.0 * len(operand) ** 3


def main():
    args = worker.arguments()
    torch.set_num_threads(args.threads)
    layers, weights = read_inputs(args.folder)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16")

    classifier = Darknet19(layers)
    classifier.load(weights)
    classifier = classifier.fused().to(memory_format=torch.channels_last)

    def predict(images):
        with torch.inference_mode(), autocast():
            return torch.softmax(classifier(tensor(images)).float(), dim=1).numpy()

    tasks = worker.inference_tasks(predict, args)
    tasks["training"] = training_task(layers, worker.prepared_pictures(args), autocast)
    if args.precision == "float32":
        operand = torch.rand(4096, 4096)
        tasks["matrix product"] = lambda steps: matrix_product(steps, operand)
    worker.serve("PyTorch {}".format(torch.__version__), tasks)


if __name__ == "__main__":
    main()
