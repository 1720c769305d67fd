"""Darknet-19 in PyTorch, channels last, with this project's weights: run by run.py."""

import json
import os

import numpy as np
import torch
import worker
from torch import nn


class Darknet19(nn.Sequential):
    """The layers of ``layers.json``: (filters, kernel size), or a string for a max-pool."""

    def __init__(self, layers):
        parts, channels = [], 3
        for layer in layers:
            if isinstance(layer, str):
                parts.append(nn.MaxPool2d(2))
                continue
            filters, size = layer
            parts += [nn.Conv2d(channels, filters, size, padding=size // 2, bias=False),
                      nn.BatchNorm2d(filters, eps=1e-5), nn.LeakyReLU(0.1)]
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


def main():
    args = worker.arguments()
    torch.set_num_threads(args.threads)
    with open(os.path.join(args.folder, "layers.json")) as stream:
        layers = json.load(stream)
    with np.load(os.path.join(args.folder, "weights.npz")) as stored:
        weights = {name: stored[name].astype(np.float32) for name in stored.files}
    pictures = worker.prepared_pictures(args)

    def tensor(images):
        return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last)

    classifier = Darknet19(layers).to(memory_format=torch.channels_last)
    classifier.load(weights)
    classifier.eval()

    def predict(images):
        with torch.inference_mode():
            return torch.softmax(classifier(tensor(images)), dim=1).numpy()

    net = Darknet19(layers).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    labels = torch.arange(len(pictures)) % 2

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(tensor(pictures)), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        return steps * len(pictures)

    operand = torch.rand(4096, 4096)

    def product(steps):
        for _ in range(steps):
            torch.mm(operand, operand)
        return steps * 2.0 * 4096 ** 3

    tasks = dict(worker.inference_tasks(predict, pictures),
                 **{"training": train, "matrix product": product})
    worker.serve("PyTorch {}".format(torch.__version__), tasks)


if __name__ == "__main__":
    main()
