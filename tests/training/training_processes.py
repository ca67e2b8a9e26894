# SPDX-License-Identifier: Apache-2.0
"""What the tests run in processes of its own: a training that can be killed, and replicas of one step."""

import multiprocessing
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from scripts.data import EpochSampler, LoadVolumesd, PatchDataset, PrepareTrainingd, SlicePatch
from scripts.diffusion import Diffusion
from scripts.measurement import BlockAverage
from scripts.networks import PlaneDenoiser, ScoreFusion
from scripts.networks.presets import SIZES
from scripts.training import AveragedWeights, LatestCheckpoint, NoiseLoss, NoisyBatch

PRELOADED = ["torch", "monai.engines", "monai.handlers", "ignite.handlers", "scripts.training"]
STEPS, BATCH = 5, 2  # per epoch, per step
DIFFUSION = Diffusion(sigma_data=0.1, regression_share=0.3)


def draw_cases(folder, seed, count=3, sides=(20, 24, 20)):
    """Cases of one volume each, with noise in a box, which is what is measured too."""
    rng = np.random.default_rng(seed)
    paths = [str(Path(folder, f"{index}_t1.nii")) for index in range(count)]
    for path in paths:
        voxels = np.zeros(sides, dtype=np.float32)
        voxels[4:-4, 4:-4, 4:-4] = rng.uniform(0.7, 1.2, [side - 8 for side in sides])
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return [{"image": [path], "label": path} for path in paths]


def slices_of(cases, samples, seed):
    """A data set of coronal slices; its volumes are kept beside those of the cases."""
    average = BlockAverage((4, 4, 4))
    transform = Compose([LoadVolumesd(degradation=average, simulate=True), PrepareTrainingd(average)])
    folder, patch = Path(cases[0]["label"]).parent / "cache", SlicePatch("coronal", (17, 18))
    return PatchDataset(cases, transform, cache_dir=folder, patch=patch, samples=samples, seed=seed)


def samples_of(cases, seed):
    """The tensors of a few samples."""
    dataset = slices_of(cases, 6, seed)
    return [{key: dataset[index][key] for key in ("image", "label", "base")} for index in range(6)]


def save_samples(path, cases, seed):
    """The same into a file."""
    torch.save(samples_of(cases, seed), path)


def save_forever(path, ready):
    """Resume from a checkpoint, and write one after the other, each full of its step; `ready` is there after the first."""
    torch.set_num_threads(1)
    layer, engine = torch.nn.Linear(1000, 300), Engine(lambda engine, batch: None)
    engine.state.epoch, engine.state.iteration = 0, 0
    checkpoint = LatestCheckpoint(path, {"network": layer})
    checkpoint.load(engine)
    while True:
        engine.state.iteration += 1
        torch.nn.init.constant_(layer.weight, engine.state.iteration)
        checkpoint.save(engine)
        Path(ready).touch()


def train(folder, name, cases, seed, *, epochs=4, kill_at=None, start=0, workers=0):
    """Train a plane as `train_2d.yaml` does; the end goes to `name`.end, checkpoints to `name`.pt.

    kill_at: the step inside which the process dies; start: changes what a resumed run must not depend on.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed + start)
    SIZES["dropout"] = SIZES["tiny"]._replace(plane=SIZES["tiny"].plane._replace(dropout=0.2))
    network = ScoreFusion(["coronal"], size="dropout", fusion=False)
    denoiser = network.members[0].denoiser
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4 * STEPS)
    ema = AveragedWeights(network, decay=0.9)
    objects = {"network": network, "ema": ema.ema_model, "optimizer": optimizer, "lr_scheduler": scheduler}
    dataset = slices_of(cases, STEPS * BATCH, seed)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(
            dataset,
            sampler=EpochSampler(dataset),
            batch_size=BATCH,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,  # children of this process, which end when it is killed
        ),
        network=denoiser,
        optimizer=optimizer,
        loss_function=NoiseLoss(),
        prepare_batch=NoisyBatch(DIFFUSION, seed),
        train_handlers=[
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ema,
            LatestCheckpoint(str(Path(folder, f"{name}.pt")), objects),
        ],
        decollate=False,
    )

    def die(engine):
        if engine.state.iteration == kill_at:
            os._exit(9)

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, die)
    trainer.run()
    torch.save({key: item.state_dict() for key, item in objects.items()}, Path(folder, f"{name}.end"))


def gradients(cases, seed, replicas=1, rank=0):
    """Gradients of one step with four samples, by one process or dealt out to several."""
    torch.manual_seed(seed)
    denoiser = PlaneDenoiser(size="tiny").double()
    with torch.no_grad():
        for parameter in denoiser.parameters():  # new ones say zero, and most gradients are zero too
            parameter.normal_(std=0.1)
    network = DistributedDataParallel(denoiser) if replicas > 1 else denoiser
    dataset = slices_of(cases, 4, seed)
    loader = DataLoader(dataset, sampler=EpochSampler(dataset, replicas, rank), batch_size=4 // replicas)
    x, target, _, noisy = NoisyBatch(DIFFUSION, seed)(next(iter(loader)), "cpu")
    NoiseLoss()(network(x.double(), noisy["x_t"].double(), noisy["timesteps"]), target).backward()
    return {name: parameter.grad for name, parameter in denoiser.named_parameters()}


def replica(rank, folder, cases, seed):
    """One of two processes that share a step; its gradients go to `rank`.pt."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(gradients(cases, seed, 2, rank), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def exit_codes(*calls):
    """Run (function, arguments, options) each in a process of its own, side by side."""
    context = multiprocessing.get_context("forkserver")  # imports torch and MONAI once for all of them
    context.set_forkserver_preload(PRELOADED)
    processes = [context.Process(target=run, args=args, kwargs=options) for run, args, options in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]
