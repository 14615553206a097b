"""How fast observations are simulated for the noisy stage, without the drawing of sources.

python benchmarks/stream.py [--batch 256 512] [--threads 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import os
import time

import torch

from deepspec.learned.grids import CENTRES, ENERGY_WEIGHTS
from deepspec.training.cameras import CameraBank
from deepspec.training.observations import ObservationStream, training_cameras


class PowerLaws:
    """The same power laws at every step, so that no time goes into sources."""

    def __init__(self, size: int, device: str):
        index = torch.linspace(0.0, 4.0, size, device=device).unsqueeze(-1)
        density = torch.tensor(CENTRES, dtype=torch.float32, device=device) ** (1.0 - index)
        weights = torch.tensor(ENERGY_WEIGHTS, dtype=torch.float32, device=device)
        self.shape, self.label = density / (density @ weights).unsqueeze(-1), torch.zeros(size, dtype=torch.long)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Shapes (batch, 600) and labels."""
        return self.shape, self.label


def main() -> None:
    """Print spectra per second: of CPU time of the process, and of wall time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bank = CameraBank(training_cameras(), options.device)
    print(f"{len(bank)} cameras, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    for size in options.batch:
        stream = ObservationStream(PowerLaws(size, options.device), bank, size)
        for step in range(5):
            stream.batch(step)
        cpu, wall = time.process_time(), time.perf_counter()
        for step in range(options.steps):
            counts = stream.batch(step).counts
        counts.sum().item()  # waits for the device
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        drawn = size * options.steps
        print(f"batch {size}: {drawn / cpu:,.0f} spectra per CPU second, {drawn / wall:,.0f} per second")


if __name__ == "__main__":
    main()
