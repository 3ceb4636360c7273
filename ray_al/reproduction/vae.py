"""Claims of "The effectiveness of variational autoencoders for active learning" (Pourkamali-Anaraki & Wakin 2019)."""

from __future__ import annotations

import math

from ray_al.reproduction.claims import LABELS, Arm, Claim, Expected, Paper, Reported, Section, Unit
from ray_al.reproduction.measures import BetweenRepeats, FirstLabels, Gap, Mean, Overtakes, Spread
from ray_al.reproduction.measures import RatioOfSpreads as Ratio
from ray_al.reproduction.pair_measures import LeastGap
from ray_al.reproduction.rules import Above, AtLeast, AtMost, Below, Within
from ray_al.reproduction.space_measures import Nmi, RadiusRatio

NMI = Unit(1.0, 2)
RATIO = Unit(1.0, 2)
REACHES = 0.955  # what rounds to the 0.96 of the text
NEAR = 0.01  # what another auto-encoder may change in an accuracy
EXPECTATION = "expectation"
DRAWS = 500
DATA = {"three": "mnist 0 3 9", "four": "mnist 0 3 7 9", "five": "mnist 0 2 3 7 9"}


def arm(sweep: str, system: str) -> Arm:
    """ "U-latent", "G-input": uniform, geometric or greedy k-center (C) selection and the classifier, in one space.

    "G-latent/input" selects in codes and classifies pixels.
    """
    way, _, where = system.partition("-")
    selected, _, classified = where.partition("/")
    strategy = {"U": "random", "G": f"geometric-{selected}", "C": f"kcenter-{selected}"}[way]
    return Arm(sweep, f"svc-{classified or selected}", strategy)


def _three() -> Section:
    one = "vae_three"
    u_input, u_latent, g_input, g_latent = (arm(one, name) for name in ("U-input", "U-latent", "G-input", "G-latent"))
    about = Reported(0.96)
    return Section(
        "Three digits (0, 3, 9)",
        (
            Claim("NMI of k-means (K=3), pixels", "§4", Nmi(u_input, "pixels"), Within(0.02), Reported(0.71), NMI),
            Claim("NMI of k-means (K=3), codes", "§4", Nmi(u_latent, "latent"), Within(0.05), Reported(0.88), NMI),
            Claim(
                "NMI of codes - NMI of pixels", "§4", Nmi(u_latent, "latent", "pixels"), AtLeast(0.10),
                Reported(0.88 - 0.71), NMI,
            ),
            Claim("U-latent at 40 labels", "§4, Fig. 1(b)", Mean(u_latent, 40), Within(NEAR), about),
            Claim(
                "labels at which U-latent reaches 0.96", "§4, Fig. 1(b)", FirstLabels(u_latent, REACHES), AtMost(40),
                Reported(40), LABELS,
            ),
            Claim(
                "labels at which U-input reaches 0.96", "§4, Fig. 1(b)", FirstLabels(u_input, REACHES), AtLeast(120),
                Reported(120, said="at least 120"), LABELS,
            ),
            Claim(
                "U-latent above U-input, up to 140 labels", "§4, Fig. 1(b)",
                LeastGap(((u_latent, u_input),), tuple(range(20, 141, 20))), Above(0), Reported(said="consistently"),
            ),
            Claim(
                "standard deviation of U-latent over that of U-input", "§4, Fig. 1(b)",
                Ratio(u_latent, u_input), Below(1), Reported(said="smaller"), RATIO,
            ),
            Claim("G-latent at 20 labels", "§4, Fig. 1(c)", Mean(g_latent, 20), Within(NEAR), about),
            Claim(
                "G-latent at 200 labels", "§4, Fig. 1(c)", Mean(g_latent, 200), Within(NEAR),
                Reported(0.976, 0.003, DRAWS),
            ),
            Claim(
                "its standard deviation over draws", "§4, Fig. 1(c)", Spread(g_latent, 200), AtMost(0.005),
                Reported(0.003),
            ),
            Claim(
                "G-latent above G-input, U-latent and U-input at every budget", "§4, Fig. 1",
                LeastGap(tuple((g_latent, other) for other in (g_input, u_latent, u_input))), Above(0),
                Reported(said="outperforms"),
            ),
        ),
    )  # fmt: skip


def _more(sweep: str, title: str, figure: str) -> Section:
    g_latent, u_latent = arm(sweep, "G-latent"), arm(sweep, "U-latent")
    inputs = tuple((g_latent, arm(sweep, name)) for name in ("G-input", "U-input"))
    said = Reported(said="consistently outperforms")
    return Section(
        title,
        (
            Claim("G-latent above G-input and U-input at every budget", figure, LeastGap(inputs), Above(0), said),
            Claim("G-latent above U-latent at every budget", figure, LeastGap(((g_latent, u_latent),)), Above(0), said),
        ),
    )


def _sides(sweep: str, digits: str) -> tuple[Claim, ...]:
    """What the paper leaves open: which half of a system helps, greedy k-center, what sets cover."""
    g_latent, u_latent, u_input = (arm(sweep, name) for name in ("G-latent", "U-latent", "U-input"))
    crossed, g_input = arm(sweep, "G-latent/input"), arm(sweep, "G-input")
    greedy = arm(sweep, "C-latent")
    none = Reported(said="not reported")
    return (
        Claim(
            f"{digits}: the same uniform draws, codes - pixels as the classifier's space, at 40 labels", EXPECTATION,
            Gap(u_latent, u_input, 40), AtLeast(0, 2), none,
        ),
        Claim(
            f"{digits}: geometric draws in codes - in pixels, both classified in pixels, at 40 labels", EXPECTATION,
            Gap(crossed, g_input, 40), AtLeast(0, 2), none,
        ),
        Claim(
            f"{digits}: G-latent above greedy k-center in codes at every budget", "§1 claims to improve on it",
            LeastGap(((g_latent, greedy),)), Above(0), none,
        ),
        Claim(
            f"{digits}: covering radius in codes, geometric over uniform", "Eq. 3",
            RadiusRatio(g_latent, u_latent, "latent"), Below(1), none, RATIO,
        ),
        Claim(
            f"{digits}: covering radius in codes, greedy k-center over geometric", "Eq. 3",
            RadiusRatio(greedy, g_latent, "latent"), Below(1), none, RATIO,
        ),
        Claim(
            f"{digits}: G-latent at 200 labels, standard deviation over auto-encoders", EXPECTATION,
            BetweenRepeats(g_latent, 200, ("spaces.latent.seed=1", f"name={sweep}-1")), AtMost(NEAR), none,
        ),
    )  # fmt: skip


def _large() -> tuple[Claim, ...]:
    u_input, u_latent = arm("vae_crossing", "U-input"), arm("vae_crossing", "U-latent")
    none = Reported(said="not reported")
    full = [
        Claim(
            f"{digits} digits, all labels: pixels - codes", EXPECTATION,
            Gap(Arm("vae_full", "svc-input", "full", f"mnist-{digits}"),
                Arm("vae_full", f"svc-latent{dims}", "full", f"mnist-{digits}"), labels),
            AtLeast(0), none, runs=1,
        )
        for digits, dims, labels in (("three", 3, 18003), ("four", 5, 24268), ("five", 7, 30226))
    ]  # fmt: skip
    return (
        Claim(
            "three digits: labels from which on U-input is ahead of U-latent", EXPECTATION,
            Overtakes(u_input, u_latent), AtMost(1000), Reported(math.nan, said="beyond 140, if at all"), LABELS,
        ),
        *full,
    )  # fmt: skip


PAPER = Paper(
    key="vae",
    title="VAE core-sets",
    reference=(
        "Pourkamali-Anaraki & Wakin, The effectiveness of variational autoencoders for active learning, "
        "arXiv 1911.07716"
    ),
    text=(
        "Accuracies as shares of 1. U: uniform draws; G: geometric, the paper's; -input: pixels, -latent: codes of the "
        "auto-encoder, for selection and classifier. NMI is divided by the arithmetic mean of the entropies, which the "
        "paper does not say. Draws of one auto-encoder share it, so their deviation says nothing of other ones; errors "
        "are of means over both."
    ),
    sections=(
        _three(),
        _more("vae_four", "Four digits (0, 3, 7, 9)", "§4, Fig. 2(a)"),
        _more("vae_five", "Five digits (0, 2, 3, 7, 9)", "§4, Fig. 2(b)"),
        Section(
            "What the paper does not report",
            tuple(
                claim for digits in ("three", "four", "five") for claim in _sides(f"vae_{digits}", f"{digits} digits")
            ),
        ),
        Section("Many labels", _large()),
    ),
    expected=(
        Expected("vae.epochs", 10, "VAE epochs", shown=True),
        Expected("vae.kl_mode", "book", "KL", shown=True),
        *(
            Expected("vae.dims", dims, "VAE dimensions", only={"data": DATA[digits]})
            for digits, dims in (("three", 3), ("four", 5), ("five", 7))
        ),
        *(
            Expected("strategy.clusters", clusters, "clusters", only={"data": DATA[digits]})
            for digits, clusters in (("three", 20), ("four", 20), ("five", 40))
        ),
        Expected("images", "all", "images"),
        Expected("grid", True, "grid search"),
    ),
    data={
        **{f"vae_{digits}": (data,) for digits, data in DATA.items()},
        "vae_full": tuple(DATA.values()),
        "vae_crossing": (DATA["three"],),
    },
    runs=DRAWS,
    run_word="draws",
    repeat_word="auto-encoders",
)
