"""Is our Inception-v3 torchvision's? Needs torchvision, which ganrt itself does not.

    python -m benchmarks.inception_check

Random weights, statistics of the batch norms and images; through torchvision's network and, from its saved
state dict, through ours. One line, PASS or FAIL, with the largest difference; exit code 1 for FAIL.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganrt_training.evaluation.inception import load_inception

IMAGES, ATOL = 4, 1e-4  # of the largest number


@torch.no_grad()
def main() -> int:
    import torchvision

    torch.manual_seed(0)
    theirs: Any = torchvision.models.inception_v3(weights=None, init_weights=True).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
            layer.momentum = 1.0
    theirs.train()(torch.rand(IMAGES, 3, 299, 299))  # statistics of other images, so that numbers stay of order 1
    theirs.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(theirs.state_dict(), path)
        ours = load_inception(path)
    seen: list[Tensor] = []
    theirs.avgpool.register_forward_hook(lambda module, given, made: seen.append(made.flatten(1)))
    images = torch.rand(IMAGES, 3, 299, 299) * 2 - 1
    logits = theirs(images)
    apart = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours(images), (seen[0], logits), strict=True)]
    passed = max(apart) <= ATOL and all(bool(torch.isfinite(value).all()) for value in (seen[0], logits))
    print(
        f"{'PASS' if passed else 'FAIL'}: features {apart[0]:.2g} and logits {apart[1]:.2g} of the largest apart, "
        f"features up to {seen[0].abs().max():.3g}; torch {torch.__version__}, torchvision {torchvision.__version__}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
