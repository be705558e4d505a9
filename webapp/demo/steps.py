"""The steps of the loop. Each looks at what is there, does the next thing and says whether it is through.

A step may be called again at any time, by another worker, after a kill: what it made before is found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from annotations.models import Task
from annotations.services.imported import ImportedDemonstration, import_demonstrations
from annotations.services.tasks import open_write_tasks
from webapp.accounts.services import change_settings
from webapp.datasets.models import Corpus
from webapp.datasets.services import NewDocument, add_documents, create_corpus
from webapp.demo import chats, labeling
from webapp.demo.people import join_all, sample_user
from webapp.demo.report import make_report
from webapp.demo.round import SOURCE, Round
from webapp.demo.world.cases import Case
from webapp.demo.world.crowd import WRITERS
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import deployments_of
from webapp.registry.services import deploy
from webapp.runs.services import import_samples

WORK_SECONDS: Final = 5.0  # of labeling in one go, so that a worker is free for others in between


def join_people(demo_round: Round) -> bool:
    join_all(demo_round.project, demo_round.admin)
    return True


def text(demo_round: Round) -> bool:
    corpus = Corpus.objects.filter(project=demo_round.project, name="Sample pages").first() or create_corpus(
        project=demo_round.project,
        name="Sample pages",
        by=demo_round.admin,
        licence="CC0",
        origin="made up by the sample project",
    )
    add_documents(
        corpus=corpus,
        documents=(NewDocument(d.text, d.format, d.source) for d in demo_round.world.documents),
    )
    return True


def corpus(demo_round: Round) -> bool:
    return demo_round.ran(
        "Sample corpus", "corpus", lambda: {"snapshots": [demo_round.snapshot("Sample text", "documents")]}
    )


def tokenizer(demo_round: Round) -> bool:
    return demo_round.ran("Sample tokenizer", "tokenizer", lambda: {"corpus_run": demo_round.run("Sample corpus")})


def pretrain(demo_round: Round) -> bool:
    def inputs() -> dict[str, Any]:
        return {"corpus_run": demo_round.run("Sample corpus"), "tokenizer": demo_round.made_by("Sample tokenizer")}

    return demo_round.ran("Sample base", "pretrain", inputs)


def collect_demonstrations(demo_round: Round) -> bool:
    """Most come from a file, as if collected before; the first few dozen are written at the desk."""
    demos = demo_round.world.demonstrations
    desk = demo_round.prompts(demo.case for demo in demos[: demo_round.plan.written])
    waiting = [prompt for prompt in desk if not prompt.tasks.exists()]
    if waiting:
        open_write_tasks(prompts=waiting, overlap=1, source_ref=SOURCE)
    imported = [*demos[demo_round.plan.written :], *demo_round.world.heldout_demonstrations]
    for writer in WRITERS:
        rows = [
            ImportedDemonstration(demo.case.messages, demo.reply, SOURCE)
            for demo in imported
            if demo.writer == writer.name
        ]
        import_demonstrations(project=demo_round.project, author=sample_user(writer.name), rows=rows)
    return labeling.work(demo_round, Task.Kind.WRITE, WORK_SECONDS)


def run_sft(demo_round: Round) -> bool:
    def inputs() -> dict[str, Any]:
        snapshot = demo_round.snapshot("Sample demonstrations", "demonstrations")
        return {"snapshots": [snapshot], "base": demo_round.made_by("Sample base")}

    return demo_round.ran("Sample SFT", "sft", inputs)


def first_deployment(demo_round: Round) -> bool:
    return live(demo_round, demo_round.made_by("Sample SFT"), "The first model that can answer.")


def sample_replies(demo_round: Round) -> bool:
    """K replies to each prompt to rank; they become rank tasks by themselves, those held out for more people."""
    train = sampled_replies(demo_round, "Sample replies", demo_round.world.rank, demo_round.plan.rank_overlap)
    return train and sampled_replies(
        demo_round, "Sample replies, held out", demo_round.world.heldout_rank, demo_round.plan.heldout_rank_overlap
    )


def sampled_replies(demo_round: Round, name: str, cases: Sequence[Case], overlap: int) -> bool:
    """Whether the SFT model's replies to these cases are there to be ranked, by as many people as `overlap` says."""

    def inputs() -> dict[str, Any]:
        change_settings(
            project=demo_round.project, changes={"rank_overlap": overlap}
        )  # read when the replies are there
        prompts = demo_round.prompts(cases)
        chosen = demo_round.snapshot(
            f"Prompts of {name[0].lower()}{name[1:]}", "prompts", ids=[prompt.pk for prompt in prompts]
        )
        return {"snapshots": [chosen], "base": demo_round.made_by("Sample SFT"), "rank_replies": True}

    if not demo_round.ran(name, "sample", inputs, replies=4, sampling=demo_round.plan.sampling):
        return False
    import_samples(run=demo_round.run(name))
    return True


def collect_rankings(demo_round: Round) -> bool:
    through = labeling.work(demo_round, Task.Kind.RANK, WORK_SECONDS)
    tasks = Task.objects.filter(project=demo_round.project, kind=Task.Kind.RANK)
    full = tasks.exclude(state=Task.State.OPEN).count()
    demo_round.note(f"{full:,} of {tasks.count():,} sets of replies ranked", full / max(1, tasks.count()))
    return through


def reward(demo_round: Round) -> bool:
    def inputs() -> dict[str, Any]:
        return {
            "snapshots": [demo_round.snapshot("Sample rankings", "rankings")],
            "base": demo_round.made_by("Sample SFT"),
        }

    return demo_round.ran("Sample reward", "reward", inputs)


def ppo(demo_round: Round) -> bool:
    """The held-out prompts that choose the best policy are those of the rankings, never those of the evaluation."""

    def inputs() -> dict[str, Any]:
        prompts = demo_round.prompts([*demo_round.world.ppo, *demo_round.world.heldout_rank])
        chosen = demo_round.snapshot("Prompts for PPO", "prompts", ids=[prompt.pk for prompt in prompts])
        return {
            "snapshots": [chosen],
            "base": demo_round.made_by("Sample SFT"),
            "reward": demo_round.made_by("Sample reward"),
        }

    return demo_round.ran("Sample PPO", "ppo", inputs, sampling=demo_round.plan.sampling)


def evaluation(name: str, policy: str, baseline: str) -> Callable[[Round], bool]:
    """Replies of two models to the evaluation's prompts."""

    def step(demo_round: Round) -> bool:
        def inputs() -> dict[str, Any]:
            prompts = demo_round.prompts(demo_round.world.evaluation)
            chosen = demo_round.snapshot("Prompts of the evaluation", "prompts", ids=[prompt.pk for prompt in prompts])
            return {
                "snapshots": [chosen],
                "base": demo_round.made_by(policy),
                "baseline": demo_round.made_by(baseline),
                "reward": demo_round.made_by("Sample reward"),
            }

        return demo_round.ran(name, "evaluate", inputs, sampling=demo_round.plan.sampling)

    return step


def deployment(demo_round: Round) -> bool:
    return live(demo_round, demo_round.made_by("Sample PPO"), "It won the evaluation against the model before.")


def live(demo_round: Round, model: ModelVersion, reason: str) -> bool:
    """The model answers in the chat; it is deployed once, whatever people have done with it since."""
    if not deployments_of(demo_round.project).filter(model=model).exists():
        deploy(project=demo_round.project, model=model, by=demo_round.admin, why=reason)
    return True


def next_round(demo_round: Round) -> bool:
    """Work for those who come now: replies of the new model to rank, prompts to answer, demonstrations to review."""

    def inputs() -> dict[str, Any]:
        prompts = demo_round.prompts(demo_round.world.ppo[: demo_round.plan.left_to_rank])
        chosen = demo_round.snapshot("Prompts of the next round", "prompts", ids=[prompt.pk for prompt in prompts])
        return {"snapshots": [chosen], "base": demo_round.made_by("Sample PPO"), "rank_replies": True}

    change_settings(project=demo_round.project, changes={"review_overlap": 1})
    if not demo_round.ran("Replies of the next round", "sample", inputs, replies=4, sampling=demo_round.plan.sampling):
        return False
    import_samples(run=demo_round.run("Replies of the next round"))
    ranked_count = demo_round.plan.left_to_rank
    fresh = demo_round.prompts(demo_round.world.ppo[ranked_count : ranked_count + demo_round.plan.left_to_write])
    open_write_tasks(prompts=[prompt for prompt in fresh if not prompt.tasks.exists()], overlap=1, source_ref=SOURCE)
    return True


def report(demo_round: Round) -> bool:
    make_report(demo_round)
    return True


class DemoStep(NamedTuple):
    """`key` names its seconds in the report, `title` is for people, `weight` its usual share of the time."""

    key: str
    title: str
    weight: float
    do: Callable[[Round], bool]


STEPS: Final = (
    DemoStep("people", "People join", 1, join_people),
    DemoStep("text", "Text is collected", 4, text),
    DemoStep("corpus", "Text is cleaned", 15, corpus),
    DemoStep("tokenizer", "A tokenizer is learned", 8, tokenizer),
    DemoStep("pretrain", "A base model reads the text", 170, pretrain),
    DemoStep("demonstrations", "People show how to answer", 5, collect_demonstrations),
    DemoStep("sft", "The model learns to answer", 70, run_sft),
    DemoStep("first deployment", "It goes live", 5, first_deployment),
    DemoStep("sample", "It gives four replies to each prompt", 25, sample_replies),
    DemoStep("rankings", "People rank the replies", 30, collect_rankings),
    DemoStep("reward", "A reward model learns what they prefer", 40, reward),
    DemoStep("ppo", "PPO improves the model", 150, ppo),
    DemoStep("evaluate sft", "SFT is compared with the base model", 15, evaluation(
        "SFT against base", "Sample SFT", "Sample base")),
    DemoStep("evaluate ppo", "PPO is compared with SFT", 15, evaluation("PPO against SFT", "Sample PPO", "Sample SFT")),
    DemoStep("deployment", "The better model goes live", 5, deployment),
    DemoStep("chats", "People chat with it", 8, chats.talk),
    DemoStep("next round", "The next round is prepared", 15, next_round),
    DemoStep("report", "The report is written", 2, report),
)  # fmt: skip
