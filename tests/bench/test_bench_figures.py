"""The arithmetic of the benchmarks: best, median, ratios, verdicts, tables. No process is started."""

from __future__ import annotations

import json

import pytest

from bench.figures import METRICS, Results, Series, best
from bench.peers import PEERS, build_in, choose, client, with_workers
from bench.report import as_json, as_text, table, variant_table
from bench.run import main
from bench.scenarios import SCENARIOS, Effort, Variant
from bench.scenarios.variant import only
from bench.scenarios.workers import free_share
from bench.stage import Cores, Stage
from bench.targets import TARGETS, judge


def series_of(**peers: list[float]) -> Series:
    series = Series("depth1")
    for peer, values in peers.items():
        for value in values:
            series.add(peer, {"cpu_us": value, "calls_per_second": 1e6 / value})
    return series


def variant_of(*peers: str) -> Variant:
    chosen = tuple(PEERS[peer] for peer in peers)
    return Variant("depth1", "a title", chosen, lambda peer: {}, ("calls_per_second", "cpu_us"))


@pytest.mark.parametrize(("metric", "expected"), [("cpu_us", 1.0), ("p99_us", 1.0), ("calls_per_second", 3.0)])
def test_best_knows_which_way_is_better(metric: str, expected: float) -> None:
    """The best of the rounds is the least cost and the most calls."""
    assert best(metric, [2.0, 1.0, 3.0]) == expected


def test_ratio_divides_the_best_rounds() -> None:
    """A ratio compares best with best, not the rounds in which something disturbed one of them."""
    series = series_of(rpccluster=[9.0, 6.0, 7.0], floor=[4.0, 3.0, 5.0])
    assert series.ratio("rpccluster", "floor", "cpu_us") == 2.0
    assert series.median("rpccluster", "cpu_us") == 7.0


def test_missing_figures_give_no_ratio() -> None:
    """A peer that was not measured makes no number and no error."""
    series = series_of(floor=[4.0])
    assert series.ratio("rpccluster", "floor", "cpu_us") is None
    assert series.median("rpccluster", "cpu_us") is None


def test_a_failure_discards_what_was_measured_before() -> None:
    """A peer that answered wrongly once is not believed at all."""
    series = series_of(rpccluster=[1.0])
    series.fail("rpccluster", "wrong reply")
    assert series.best("rpccluster", "cpu_us") is None
    assert "rpccluster was not measured: wrong reply" in variant_table(variant_of("rpccluster"), series)


def test_verdicts_at_the_bound() -> None:
    """A bound itself is met; past it is not, on the side that counts."""
    results = Results()
    for peer, cpu, calls in (("floor", 10.0, 9.0), ("rpccluster", 19.0, 30.0), ("msgpackrpc", 99.0, 10.0)):
        results.of("depth1").add(peer, {"cpu_us": cpu, "calls_per_second": calls})
    met = {verdict.target.text: (round(verdict.value, 6), verdict.is_met) for verdict in judge(results)}
    assert met == {
        "64 × 1: CPU per call ÷ the floor's": (1.9, True),
        "64 × 1: calls/s ÷ msgpackrpc's": (3.0, True),
    }
    results.of("depth1").add("floor", {"cpu_us": 9.9, "calls_per_second": 9.0})
    results.of("depth1").add("msgpackrpc", {"cpu_us": 99.0, "calls_per_second": 10.1})
    assert [verdict.is_met for verdict in judge(results)] == [False, False]


def test_growth_of_pieces_tells_linear_from_quadratic() -> None:
    """Twice the pieces at twice the cost is 1; the verdict fails when each piece costs what came before it."""
    results = Results()
    for pieces, cost in ((250, 10.0), (1000, 40.0)):
        results.of(f"pieces bytes {pieces}").add("rpccluster", {"cpu_us_per_piece": cost})
    (verdict,) = judge(results)
    assert (verdict.value, verdict.is_met) == (4.0, False)


def test_every_target_names_a_variant_that_runs() -> None:
    """No target waits for ever for a figure that no scenario takes."""
    with Stage(Cores((0, 1, 2))) as stage:
        variants = [one for make in SCENARIOS.values() for one in make(stage, tuple(PEERS.values()), Effort())]
    results = Results()
    for variant in variants:
        for peer in variant.peers:
            results.of(variant.name).add(peer.name, dict.fromkeys([*METRICS], 1.0))
    assert len(judge(results)) == len(TARGETS)


@pytest.mark.parametrize(("load_share", "is_shared", "expected"), [(0.1, True, 0.95), (0.1, False, 1.0)])
def test_the_loads_share_is_given_back(load_share: float, is_shared: bool, expected: float) -> None:
    """On two cores a load that takes a tenth of one leaves the workers 95 %; on a third core it leaves all."""
    assert free_share(2, load_share, is_shared) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("allowed", "workers", "server", "load"),
    [((4, 6), 1, {4}, {6}), ((4, 6), 2, {4, 6}, {4, 6}), ((4, 6, 7), 2, {4, 6}, {7}), ((3,), 1, {3}, {3})],
)
def test_server_and_load_get_different_cores(
    allowed: tuple[int, ...], workers: int, server: set[int], load: set[int]
) -> None:
    """The load has a core of its own wherever there is one left."""
    cores = Cores(allowed)
    assert (cores.servers(workers), cores.load(workers)) == (server, load)
    assert cores.is_shared(workers) == bool(server & load)


def test_table_is_aligned_markdown() -> None:
    """All lines of a table are equally long, numbers to the right."""
    lines = table(["", "calls/s"], [["floor", "1,000"], ["rpccluster", "9"]]).splitlines()
    assert lines == [
        "|            | calls/s |",
        "|------------|--------:|",
        "| floor      |   1,000 |",
        "| rpccluster |       9 |",
    ]


def test_report_shows_best_median_and_ratios() -> None:
    """A row holds the best, the median in brackets and the ratio to the floor; a slow load is marked."""
    series = series_of(floor=[4.0, 8.0, 5.0], zerorpc=[8.0])
    text = variant_table(variant_of("floor", "uvloop", "zerorpc"), series)
    assert "4.00 (5.00)" in text
    assert "zerorpc *" in text
    assert "2.00 |" in text
    assert "uvloop" not in text.partition("\n")[2]


def test_report_warns_of_a_machine_shared_with_others() -> None:
    """Figures taken beside a busy neighbour say so."""
    series = series_of(floor=[4.0])
    assert "Others used" not in variant_table(variant_of("floor"), series)
    series.add("floor", {"cpu_us": 4.0, "calls_per_second": 1.0, "others_share": 0.5})
    assert "Others used 0.50 cores" in variant_table(variant_of("floor"), series)


def test_json_holds_every_round() -> None:
    """Machines get the rounds themselves, the best, the median and the verdicts."""
    results = Results()
    for peer, cpu in (("floor", 4.0), ("rpccluster", 8.0), ("rpccluster", 6.0)):
        results.of("depth1").add(peer, {"cpu_us": cpu})
    whole = json.loads(as_json({"processor": "x"}, [variant_of("floor", "rpccluster")], results))
    ours = whole["variants"][0]["peers"]["rpccluster"]
    assert (ours["best"], ours["median"], len(ours["rounds"])) == ({"cpu_us": 6.0}, {"cpu_us": 7.0}, 2)
    assert whole["targets"][0]["value"] == 1.5
    assert "1.500" in as_text({"processor": "x"}, [variant_of("floor", "rpccluster")], results)


def test_peers_are_chosen_by_name() -> None:
    """A list of names gives those peers in the table's order; an unknown name is refused with the known ones."""
    assert [peer.name for peer in choose("uvloop, floor")] == ["floor", "uvloop"]
    assert len(choose("")) == len(PEERS)
    with pytest.raises(ValueError, match="found the peers nobody, expected some of floor"):
        choose("floor,nobody")
    assert with_workers(2).workers == 2


def test_an_unknown_scenario_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """What the command line does not know is refused before anything starts."""
    with pytest.raises(SystemExit) as caught:
        main(["nothing"])
    assert caught.value.code == 2
    assert "expected some of one, depth1" in capsys.readouterr().err


def test_two_builds_are_compared_pair_by_pair() -> None:
    """What disturbs a round disturbs both; the median of the ratios, and their spread, are told."""
    series = series_of(rpccluster=[2.0, 9.0, 3.0], before=[2.0, 10.0, 2.0])
    assert series.pair_ratios("rpccluster", "before", "cpu_us") == [1.0, 0.9, 1.5]
    assert "rpccluster ÷ before, medians:" in variant_table(variant_of("rpccluster"), series)
    assert "CPU µs/call 1.000 (0.900 to 1.500, 3 pairs)" in variant_table(variant_of("rpccluster"), series)


def test_another_build_runs_in_its_own_checkout() -> None:
    """Its server, and its client; whoever chooses this project chooses it, too."""
    before = build_in("/there")
    assert before.command[0] == "/there/bin/rpccluster"
    assert client("before", "client_load", folder="/there").load_python == "/there/.venv/bin/python"
    assert only((before,), "floor", "rpccluster") == (before,)
    assert only((before,), "floor") == ()
