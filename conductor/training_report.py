"""What a training has brought: the race at its end, pictures, and how the network decides.

The race is run on tasks that neither trained the network nor chose its weights. Why it does what it does is
read off the states it met in these runs.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from compute.seeds import stream
from conductor import figures, race_report
from conductor.conducting import Conducting
from conductor.curriculum import Batch
from conductor.environment import Environment
from conductor.interpretation import Rules, distilled, importance, looked
from conductor.landscapes import FAMILIES
from conductor.lineup import REFERENCE, SUBJECT, Practice, lineup
from conductor.model import Conductor
from conductor.network import tensors
from conductor.racing import race, write_results
from conductor.sight import Inputs, inputs_of
from conductor.suites import Suite, families, windows
from conductor.tasks import SPLITS
from experiments.page import Grid, bullets, chapter, decimal, document, paragraph, picture, table
from experiments.runs import Run
from ga.controls import CONTROL_NAMES, places_of

if TYPE_CHECKING:
    from conductor.training import Training

PAGE = "training.html"
#: Rivals at the end of a training; ``python -m conductor.race`` has all of them.
RIVALS = (
    "tuned schedule",
    "frozen mean schedule",
    "frozen mean action",
    "shuffled features",
    "random around tuned",
    "success history on tuned",
)
#: States from which importances and rules are read.
STATES = 6000
#: Exchanges of labels that say what luck gives a probe of invariance; 19 are enough for a level of 5 %.
EXCHANGES = 19
#: Seeds of each window of the race.
SEEDS = 3


def judge(run: Run, training: "Training", conductor: Conductor) -> dict[str, Any]:
    """Race a trained conductor, print and write everything; return what ``report.json`` holds."""
    config, console = training.config.scaled(), training.console
    suites = _suites(training)
    practice = Practice(
        conductor,
        training.lessons.train,
        config.static.model_copy(update={"iterations": max(1, config.judging.schedule_iterations)}),
        min(config.judging.validation_tasks, 192),
        int(stream(config.seed, "practice").integers(2**31)),
        training.mapper,
    )
    names = [name for name in RIVALS if name != "tuned schedule" or config.judging.schedule_iterations]
    with training.step("race") as told:
        contestants = lineup(names, practice, config.seed)
        tables = [
            race(
                contestants,
                suite,
                variation=conductor.variation,
                mapper=training.mapper,
                told=lambda name, done, total, suite=suite: told(done, total, f"{suite.name}: {name}"),
            )
            for suite in suites
        ]
    results = pa.concat_tables(tables)
    write_results(run, results)
    notes = [
        *(f"{suite.sentence}." for suite in suites),
        "No run of them trained the network or chose its weights. Landscapes are new instances of the "
        f"families that trained; the families {', '.join(SPLITS['test'])} were never met before.",
    ]
    found = race_report.write(
        run,
        results,
        subject=SUBJECT,
        reference=REFERENCE,
        title=f"Conductor {conductor.variant}, seed {config.seed}",
        notes=notes,
    )
    with training.step("interpretation"):
        inputs, places, of_run = _watched(training, conductor, suites)
        explained = _explained(training, conductor, inputs, of_run)
    found["training"] = {
        "variant": conductor.variant,
        "tasks": list(training.lessons.origin),
        "static": conductor.steering.controls.to_dict(),
        "validation": list(training.fine_tuning.curve),
        "schooling": training.schooling,
        "seconds": {name: round(spent, 1) for name, spent in training.seconds.items()},
        "fitted_until": conductor.fitted_until,
        **explained,
    }
    run.write_json("report.json", race_report.plain(found))
    pictures = _pictures(conductor, training, places, explained)
    for path, (_, content) in pictures.items():
        run.write_bytes(path, content)
    run.write_bytes(PAGE, page(found, pictures))
    markdown = run.folder / race_report.MARKDOWN
    text = markdown.read_text(encoding="utf-8") + _markdown(found, pictures)
    run.write_bytes(race_report.MARKDOWN, text.encode())
    race_report.show(console, found)
    for sentence in _on_invariance(found["training"]):
        console.print(sentence, markup=False, soft_wrap=True)
    console.print(f"Conductor, race and plots: {run.folder}", soft_wrap=True)
    console.print(
        f"To use it: python -m ga.evolve --regime volatile --conductor {run.id}"
        + ("" if str(run.folder.parent) == "experiments/runs" else f" --runs {run.folder.parent}"),
        soft_wrap=True,
    )
    return found


def page(found: Mapping[str, Any], pictures: Mapping[str, tuple[str, bytes]]) -> bytes:
    """Return the page of a training: curves, controls, what matters, and rules."""
    told = found["training"]
    rows = tuple((name.replace("_", " "), f"{value:.4g}") for name, value in told["static"].items())
    static = Grid("static", ("control", "value"), rows, title="Tuned fixed controls")
    images = [picture(content, caption) for caption, content in pictures.values()]
    return document(
        f"Training of {found['title']}",
        chapter(
            "What was learned on",
            bullets(told["tasks"], "tasks"),
            paragraph("The race on unseen tasks is in race.html.", "note"),
        ),
        chapter("Training", *images, table(static)),
        chapter(
            "Rules distilled from the network",
            paragraph(
                "One short tree per control, fitted to the places that the network asks for; the share of "
                f"their variance on unseen runs that the trees explain is {decimal(told['fidelity'])} on "
                "average. They are a summary for people, not what conducts.",
                "note",
            ),
            bullets(told["rules"], "rules"),
        ),
        chapter("Invariance", bullets(_on_invariance(told), "invariance")) if _on_invariance(told) else "",
        chapter("Attention", paragraph(told["attention"]["sentence"])) if "attention" in told else "",
    )


def _suites(training: "Training") -> list[Suite]:
    config, lessons = training.config.scaled(), training.lessons
    suites = []
    if config.tasks != "windows":
        population, generations = config.landscapes.sizes[0]
        # Of all families, those that trained as new instances: three unseen ones alone decide nothing.
        n = max(2, config.judging.race_tasks // len(FAMILIES))
        dimension = sorted(config.landscapes.dimensions)[len(config.landscapes.dimensions) // 2]
        suites.append(
            families(
                dimension=dimension,
                n_instances=n,
                population_size=population,
                n_generations=generations,
                seed=config.seed,
                names=tuple(FAMILIES),
            )
        )
    if lessons.windows:
        n = max(2, config.judging.race_tasks // (2 * SEEDS))
        suites.append(windows(lessons.windows["test"], n_windows=n, n_seeds=SEEDS, seed=config.seed))
    return suites


class _Watching:
    """Conducts, and keeps what the network saw and the controls that followed."""

    def __init__(self, conducting: Conducting, batch: Batch, n_history: int) -> None:
        self._conducting, self._batch, self._n_history = conducting, batch, n_history
        self.inputs: list[Inputs] = []
        self.places: list[np.ndarray] = []
        self.live: list[np.ndarray] = []

    def __call__(self, states: np.ndarray, environment: Environment) -> np.ndarray:
        live = ~environment.finished
        self.inputs.append(inputs_of(environment, self._batch.outlook, self._n_history))
        controls = self._conducting(states, environment)
        self.places.append(np.where(live[:, None], places_of(controls), np.nan))
        self.live.append(live)
        return controls


def _watched(
    training: "Training", conductor: Conductor, suites: list[Suite]
) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """Return states met in unseen runs, the places of all controls in them, and which run each is of."""
    parts = []
    for suite in suites:
        rows = np.linspace(0, len(suite) - 1, min(len(suite), 96 // len(suites))).round().astype(int)
        parts.append(suite.part(np.unique(rows)))
    batch = Batch.joined(parts)
    conducting = Conducting(conductor.network, conductor.steering, batch.outlook)
    watching = _Watching(conducting, batch, conductor.network.n_history)
    batch.environment(conductor.variation, mapper=training.mapper).run(watching)
    places = np.stack(watching.places, axis=1)
    of_run = np.tile(np.arange(len(batch)), len(watching.inputs))
    live = np.concatenate(watching.live)
    inputs = Inputs(*(np.concatenate(column)[live] for column in zip(*watching.inputs, strict=True)))
    return inputs, places, of_run[live]


def _explained(
    training: "Training", conductor: Conductor, inputs: Inputs, of_run: np.ndarray
) -> dict[str, Any]:
    network, seed = conductor.network, training.config.seed
    chosen = np.sort(stream(seed, "states").permutation(len(of_run))[:STATES])
    few, few_runs = Inputs(*(part[chosen] for part in inputs)), of_run[chosen]
    rules: Rules = distilled(network, few, few_runs, conductor.steering, seed=seed)
    known = [value for value in rules.fidelity.values() if np.isfinite(value)]
    found: dict[str, Any] = {
        "importance": importance(network, few, seed=seed),
        "rules": list(rules.sentences),
        "fidelity": float(np.mean(known)) if known else float("nan"),
    }
    if hasattr(network, "attention"):
        maps = network.attention(tensors(Inputs(*(part[:512] for part in few))))
        found["attention"] = looked(np.asarray(maps), few.known[:512])
    # Of a hybrid the base is to be invariant; what its heads add depends on the regime by design.
    base = getattr(network, "base", network)
    if hasattr(base, "features") and training.lessons.windows:
        from conductor.invariance import evidence

        found["invariance"] = evidence(base, few, few_runs, seed=seed, n_exchanges=EXCHANGES)
    return found


def _pictures(
    conductor: Conductor, training: "Training", places: np.ndarray, explained: Mapping[str, Any]
) -> dict[str, tuple[str, bytes]]:
    curve = [
        {
            "generation": row["generation"],
            "validation": row["anytime"],
            "validation_final": row["final"],
        }
        for row in training.fine_tuning.curve
    ]
    changes = {name: one["change"] for name, one in explained["importance"].items()}
    drawn = {
        "plots/training.png": (
            "Validation while the weights were evolved: decades against the tuned fixed controls, lower is "
            "better. The lowest point is kept; it chose the weights, so it flatters.",
            lambda file: figures.training_curves(curve, file, "Validation", baseline=0.0),
        ),
        "plots/controls.png": (
            "The controls that the network chose in unseen runs: mean and the band of 80 % of the runs; the "
            "tuned fixed controls dashed.",
            lambda file: figures.control_trajectories(
                places, file, "Controls", reference=np.array(conductor.steering.static)
            ),
        ),
        "plots/importance.png": (
            "How much the residuals change when a feature is replaced by that of another run.",
            lambda file: figures.importances(changes, file, "Importance of features"),
        ),
    }
    pictures = {}
    for path, (caption, draw) in drawn.items():
        file = BytesIO()
        draw(file)
        pictures[path] = (caption, file.getvalue())
    return pictures


def _on_invariance(told: Mapping[str, Any]) -> list[str]:
    # What schooling found beside its twin without an adversary, and what the network shows in the race.
    schooled = told["schooling"].get("base", told["schooling"]).get("invariance", {})
    found = [f"After schooling: {schooled['sentence']}"] if schooled.get("sentence") else []
    if "invariance" in told:
        found.append(f"In unseen runs: {told['invariance']['sentence']}")
    return found


def _markdown(found: Mapping[str, Any], pictures: Mapping[str, tuple[str, bytes]]) -> str:
    told = found["training"]
    lines = ["", "## Training", "", *(f"- {one}" for one in told["tasks"]), ""]
    lines += ["Seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in told["seconds"].items()), ""]
    for path, (caption, _) in pictures.items():
        lines += [f"![{caption}]({path})", "", f"*{caption}*", ""]
    lines += ["### Tuned fixed controls", "", "| control | value |", "| --- | ---: |"]
    lines += [f"| {name} | {told['static'][name]:.4g} |" for name in CONTROL_NAMES]
    lines += ["", f"### Rules distilled from the network (fidelity {told['fidelity']:.2f})", ""]
    lines += [f"- {rule}" for rule in told["rules"]]
    if _on_invariance(told):
        lines += ["", "### Invariance", "", *(f"- {one}" for one in _on_invariance(told))]
    if "attention" in told:
        lines += ["", "### Attention", "", told["attention"]["sentence"]]
    return "\n".join(lines) + "\n"
