"""Claims of "Rethinking deep active learning: using unlabeled data at model training" (Simeoni et al. 2020)."""

from __future__ import annotations

from ray_al.reproduction.claims import SECONDS, Claim, Expected, Paper, Reported, Section
from ray_al.reproduction.epoch_measures import EpochSeconds
from ray_al.reproduction.measures import Gap
from ray_al.reproduction.pair_measures import LeastGap
from ray_al.reproduction.rethinking_claims import baseline, gains, mnist, orders, pre_training, random_claims, table2
from ray_al.reproduction.rethinking_setups import (
    C10_100,
    C10_1000,
    C100,
    FEW,
    ON_ONE_GPU,
    SEEDS,
    SINGLE_GPU,
    SVHN,
    cells,
    percent_claim,
)
from ray_al.reproduction.rules import Above, AtMost, Below

_TWO, _TWO_CELLS = table2()
_SVHN_FIRST = percent_claim(
    "SVHN, cycle 0, Random: PRE+SEMI - PRE", "Table III",
    Gap(SVHN.arm("PRE+SEMI", "random"), SVHN.arm("PRE", "random"), 100), Below(0),
    SVHN.mean(0, "PRE+SEMI", "random") - SVHN.mean(0, "PRE", "random"),
)  # fmt: skip
_ON_ONE_GPU = (
    *gains(ON_ONE_GPU),
    *(
        percent_claim(
            f"(e) PRE+SEMI: Random above {other} after the first cycle", "§VII, Table III",
            LeastGap(ON_ONE_GPU.against("PRE+SEMI", "random", (other,)), after=100), Above(0), said="outperforms",
        )
        for other in ("uncertainty", "coreset")
    ),
    Claim(
        "seconds of a SEMI epoch, pseudo-labels included, on an H200", "target of this project",
        EpochSeconds(ON_ONE_GPU.arm("PRE+SEMI", "random"), "semi"), AtMost(1.5), Reported(said="not reported"), SECONDS,
    ),
)  # fmt: skip

PAPER = Paper(
    key="rethinking",
    title="Rethinking deep active learning",
    reference=(
        "Simeoni, Budnik, Avrithis, Gravier, Rethinking deep active learning: using unlabeled data at model training, "
        "arXiv 1911.08177"
    ),
    text=(
        "Accuracies in percent. SUP, the stage on labels alone before SEMI, has no length in the paper; 200 epochs is "
        "this project's choice. In the paper SEMI numbers of cycle 0 differ by strategy, though nothing differs before "
        "the first acquisition: by about 3 points, which is taken for the size of chance. Here all strategies share "
        "cycle 0."
    ),
    sections=(
        Section(
            "MNIST, one label per class (Figure 4)",
            mnist("rethinking-mnist", ("random", *FEW), (10, 20, 30, 40, 50)),
        ),
        Section(
            "MNIST, one label per class, reduced for CPUs", mnist("rethinking-mnist-cpu", ("random",), (10, 20, 30))
        ),
        Section("CIFAR-10, 100 labels a cycle, on one GPU", _ON_ONE_GPU),
        Section(
            f"Table III, {ON_ONE_GPU.title}",
            cells(ON_ONE_GPU, ("base", "PRE+SEMI"), ("random", "uncertainty", "coreset")),
            folded=True,
        ),
        Section("Acquisition functions", (*baseline(C10_100), *baseline(C10_1000), *baseline(C100), *random_claims())),
        Section(
            "PRE and SEMI, CIFAR-10 with 100 labels a cycle",
            (*gains(C10_100), *orders(C10_100), *pre_training(C10_100)),
        ),
        Section("PRE and SEMI elsewhere", (*pre_training(C100), *pre_training(SVHN), _SVHN_FIRST, *_TWO)),
        Section("Table II", _TWO_CELLS, folded=True),
        Section(f"Table III, {C10_100.title}", cells(C10_100, ("base", "PRE", "PRE+SEMI")), folded=True),
        Section(f"Table III, {C10_1000.title}", cells(C10_1000, ("base", "SEMI")), folded=True),
        Section(f"Table III, {C100.title}", cells(C100, ("base", "PRE", "PRE+SEMI")), folded=True),
        Section(f"Table III, {SVHN.title}", cells(SVHN, ("base", "PRE", "PRE+SEMI")), folded=True),
    ),
    expected=(
        Expected("epochs", 200, "epochs", shown=True),
        Expected("sup_epochs", 200, "SUP epochs", shown=True, only={"semi": True}),
        Expected("pretrain_epochs", 250, "PRE epochs", shown=True, only={"pretrain": "deepcluster"}),
        Expected("width", 128, "width"),
        Expected("images", "all", "images"),
        Expected("lr", 0.2, "learning rate"),
        Expected("k", 50, "neighbors", only={"semi": True}),
        Expected("alpha", 0.99, "alpha", only={"semi": True}),
    ),
    data={
        "rethinking-mnist": ("mnist",),
        "rethinking-mnist-cpu": ("mnist",),
        "rethinking-table2": ("cifar10", "cifar100"),
        C10_100.sweep: ("cifar10",),
        C10_1000.sweep: ("cifar10",),
        C100.sweep: ("cifar100",),
        SVHN.sweep: ("svhn",),
        SINGLE_GPU: ("cifar10",),
    },
    runs=SEEDS,
    run_word="seeds",
    commands={
        SINGLE_GPU: "python -m benchmarks.rethinking_gpu run cifar10.npz; python -m benchmarks.rethinking_results runs"
    },
)
