"""How claims of "Rethinking deep active learning" (Simeoni et al. 2020) are made out of the numbers of its tables."""

from __future__ import annotations

from collections.abc import Sequence

from ray_al.reproduction.claims import PERCENT, SHARE, Arm, Claim, Reported
from ray_al.reproduction.measures import Fades, Gap, Highest, Mean
from ray_al.reproduction.pair_measures import LargestGap, LeastGap, MeanGap, ShareAhead
from ray_al.reproduction.rethinking_setups import (
    C10_100,
    C10_1000,
    FEW,
    FLOOR,
    OTHERS,
    SEEDS,
    SVHN,
    Setup,
    half,
    percent_claim,
)
from ray_al.reproduction.rethinking_tables import TABLE2
from ray_al.reproduction.rules import Above, AtLeast, AtMost, Below, Indistinct, NearZero, Within, WithinErrors


def baseline(at: Setup) -> tuple[Claim, ...]:
    """(a), (g), (h): acquisition functions against each other, without unlabeled data."""
    among = tuple((at.arm("base", a), at.arm("base", b)) for i, a in enumerate(OTHERS) for b in OTHERS[i + 1 :])
    ceal = at.against("base", "ceal", ("uncertainty",))
    jlp = at.against("base", "jlp", ("coreset",))
    return (
        percent_claim(
            f"(a) {at.title}, base: Uncertainty, CoreSet, CEAL and jLP differ little", "§VI-B, Fig. 1",
            LargestGap(among, at.later), AtMost(FLOOR), said="near identical",
        ),
        percent_claim(
            f"(g) {at.title}, base: CEAL - Uncertainty", "§VI-D, Table III", MeanGap(ceal, at.later), Indistinct(2),
            at.mean_gap(ceal),
        ),
        percent_claim(
            f"(h) {at.title}, base: jLP - CoreSet", "§VI-B, Table III", MeanGap(jlp, at.later), NearZero(FLOOR),
            at.mean_gap(jlp),
        ),
    )  # fmt: skip


def random_claims() -> tuple[Claim, ...]:
    """(a), (e): where Random is better, and where it is worse."""
    worse = tuple((C10_1000.arm("base", one), C10_1000.arm("base", "random")) for one in OTHERS)
    semi = tuple((C10_1000.arm("SEMI", one), C10_1000.arm("SEMI", "random")) for one in FEW)
    found = [
        percent_claim(
            "(a) SVHN, base: Random above all others", "§VI-B, Fig. 1",
            LeastGap(SVHN.against("base", "random", OTHERS), SVHN.later), Above(0), said="considerably better",
        ),
        percent_claim(
            f"(a) {C10_1000.title}, base: Random below all others", "§VI-B, Fig. 1",
            LeastGap(worse, C10_1000.later), Above(0), said="worse",
        ),
    ]  # fmt: skip
    for at in (C10_100, SVHN):
        lead = at.against("PRE+SEMI", "random", FEW)
        found += [
            percent_claim(
                f"(e) {at.title}, PRE+SEMI: Random above all others", "§VII, Table III",
                LeastGap(lead, at.later), Above(0), said="outperforms",
            ),
            percent_claim(
                f"(e) {at.title}, PRE+SEMI: Random - others", "§VII, Table III", MeanGap(lead, at.later),
                half(at.mean_gap(lead)), at.mean_gap(lead),
            ),
        ]  # fmt: skip
    found.append(
        percent_claim(
            f"(e) {C10_1000.title}, SEMI: Random below all others", "§VII, Table III", LeastGap(semi, C10_1000.later),
            Above(0), said="the order reverses",
        )
    )  # fmt: skip
    return tuple(found)


def pre_training(at: Setup) -> tuple[Claim, ...]:
    """(b): what pre-training gives, and that it gives less later."""
    random = at.arm("PRE", "random"), at.arm("base", "random")
    gain = [at.mean(cycle, "PRE", "random") - at.mean(cycle, "base", "random") for cycle in (0, 4)]
    fades = percent_claim(
        f"(b) {at.title}: PRE - base under Random fades, first - last cycle", "§VI-D, Table III",
        Fades(*random, (at.labels(0), at.labels(4))), Above(0), gain[0] - gain[1],
    )  # fmt: skip
    first = percent_claim(
        f"(b) {at.title}: PRE - base in the first cycle", "§VI-C, Table III", Gap(*random, at.labels(0)),
        half(gain[0]), gain[0],
    )  # fmt: skip
    return first, fades


def gains(at: Setup, cycles: Sequence[int] = range(5)) -> tuple[Claim, ...]:
    """(c), (d) on CIFAR-10 with few labels: what PRE+SEMI gives under Random."""
    both = at.arm("PRE+SEMI", "random"), at.arm("base", "random")
    found = []
    for cycle in cycles:
        gain = at.mean(cycle, "PRE+SEMI", "random") - at.mean(cycle, "base", "random")
        text = f"(c) Random, PRE+SEMI - base, cycle {cycle}"
        found.append(percent_claim(text, "§VI-D, Table III", Gap(*both, at.labels(cycle)), half(gain), gain))
    one = at.mean(1, "PRE+SEMI", "random") - at.mean(4, "base", "random")
    found.append(
        percent_claim(
            "(d) Random, PRE+SEMI after one cycle - base after four", "§VI-D", Gap(*both, at.labels(1), at.labels(4)),
            AtLeast(-FLOOR), one,
        )
    )  # fmt: skip
    return tuple(found)


def orders(at: Setup) -> tuple[Claim, ...]:
    """(c): PRE+SEMI above PRE above base."""
    most = at.pairs("PRE+SEMI", "base", FEW)
    pre = at.pairs("PRE", "base", ("random", *OTHERS))
    return (
        percent_claim(
            "(c) the other strategies, PRE+SEMI - base", "§VI-D, Table III", MeanGap(most, at.later),
            half(at.mean_gap(most)), at.mean_gap(most),
        ),
        percent_claim(
            "(c) PRE+SEMI above PRE under every strategy, cycles 1 to 4", "Table III",
            LeastGap(at.pairs("PRE+SEMI", "PRE", ("random", *FEW)), at.later), Above(0), said="significant improvement",
        ),
        percent_claim(
            "(c) PRE - base, all strategies", "§VI-C, Table III", MeanGap(pre, at.later), AtLeast(0, 2),
            at.mean_gap(pre),
        ),
    )  # fmt: skip


def table2() -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
    """(f), and every number of Table II."""
    sweep, batch = "rethinking-table2", {"cifar10": 100, "cifar100": 1000}
    pairs = tuple(
        (Arm(sweep, "PRE+SEMI", strategy, data), Arm(sweep, "SEMI", strategy, data)) for data, strategy in TABLE2
    )
    gains = [
        (column[cycle, "PRE+SEMI"][0] - column[cycle, "SEMI"][0]) / 100
        for column in TABLE2.values()
        for cycle in range(3)
    ]
    share = sum(gain > 0 for gain in gains) / len(gains)
    claims = (
        percent_claim(
            "(f) PRE+SEMI - SEMI, all cells", "§VI-D, Table II", MeanGap(pairs), Above(0), sum(gains) / len(gains)
        ),
        Claim(
            "(f) cells in which PRE+SEMI is above SEMI", "§VI-D, Table II", ShareAhead(pairs), Above(0.5),
            Reported(share), SHARE,
        ),
    )  # fmt: skip
    cells = tuple(
        Claim(
            f"{data}, cycle {cycle}, {strategy}, {setting}", "Table II",
            Mean(Arm(sweep, setting, strategy, data), batch[data] * (cycle + 1)), WithinErrors(),
            Reported(mean / 100, std / 100, SEEDS), PERCENT,
        )
        for (data, strategy), column in TABLE2.items()
        for (cycle, setting), (mean, std) in column.items()
    )  # fmt: skip
    return claims, cells


def mnist(sweep: str, strategies: Sequence[str], labels: Sequence[int]) -> tuple[Claim, ...]:
    """One label per class."""
    semi, base = (Arm(sweep, learner, "random") for learner in ("SEMI", "base"))
    pairs = tuple((Arm(sweep, "SEMI", one), Arm(sweep, "base", one)) for one in strategies)
    found = [
        Claim("Random with SEMI at 20 labels", "§VI-E", Mean(semi, 20), Within(FLOOR), Reported(0.9089), PERCENT),
        percent_claim("Random, SEMI - base at 20 labels", "§VI-E", Gap(semi, base, 20), half(0.40), 0.40),
        percent_claim(
            "SEMI above base at every number of labels", "Fig. 4", LeastGap(pairs, tuple(labels)), Above(0),
            said="far above",
        ),
    ]  # fmt: skip
    if 50 in labels:
        arms = tuple(Arm(sweep, "base", one) for one in ("random", *OTHERS))
        text = "base stays below 80% at 50 labels, all strategies"
        found.append(Claim(text, "§VI-E", Highest(arms, 50), Below(0.80), Reported(said="below 80%"), PERCENT))
    return tuple(found)
