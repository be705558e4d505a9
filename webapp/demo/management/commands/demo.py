"""manage.py demo: a sample project once around the whole loop, and what came of it."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from tqdm import tqdm

from webapp.demo.models import Demo
from webapp.demo.people import new_logins
from webapp.demo.plan import PLANS
from webapp.demo.selectors import current_step, demo_progress
from webapp.demo.services import start_demo
from webapp.demo.steps import STEPS
from webapp.demo.text_report import as_text
from webapp.home_folder import service_url
from webapp.links import address_of

LOOK_SECONDS: Final = 0.5


class Command(BaseCommand):
    help = (
        "Make a sample project and take it round the loop with simulated annotators: text, base model, SFT, rankings, "
        "reward model, PPO, evaluation, deployment. Starts what it needs where the application is not running."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=0, help="another seed makes another world and other people")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the report's figures to this file too")
        parser.add_argument("--size", choices=list(PLANS), default="full", help="quick: a minute, to see that it works")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["seed"] < 0:
            raise CommandError("--seed must not be negative.")
        if options["json"] and not options["json"].absolute().parent.is_dir():
            raise CommandError(f"--json {options['json']}: there is no folder {options['json'].absolute().parent}.")
        demo = start_demo(seed=options["seed"], size=options["size"])
        site = service_url("SITE_URL").rstrip("/")
        self.stdout.write(
            f"{demo.project.name} (seed {demo.seed}) {site}{address_of('demo_report', demo.project.slug)}"
        )
        logins = new_logins()
        for login in logins:
            self.stdout.write(f"  sign in as the sample {login.role}: {login.email}  password {login.password}")
        self.follow(demo)
        if demo.state == Demo.State.FAILED:
            raise CommandError(demo.error)
        self.stdout.write(as_text(demo.report))
        if options["json"]:
            options["json"].write_text(json.dumps(demo.report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def follow(self, demo: Demo) -> None:
        """Show how far the workers are, until the demo is over: a bar on a terminal, elsewhere a line for each step."""
        if not self.stderr.isatty():
            self.follow_in_lines(demo)
            return
        shape = "{percentage:3.0f}% |{bar:24}| {elapsed}  {desc}"
        with tqdm(total=1.0, bar_format=shape, file=self.stderr._out) as bar:
            while demo.state == Demo.State.RUNNING:
                bar.set_description_str(current_step(demo), refresh=False)
                bar.n = round(demo_progress(demo), 4)
                bar.refresh()
                time.sleep(LOOK_SECONDS)
                demo.refresh_from_db()
            bar.n = round(demo_progress(demo), 4)
            bar.set_description_str(current_step(demo))

    def follow_in_lines(self, demo: Demo) -> None:
        last_step = -1
        while True:
            for step in STEPS[last_step + 1 : demo.step + 1]:
                self.stderr.write(f"{timezone.now():%H:%M:%S} {demo_progress(demo):4.0%}  {step.title}")
            last_step = demo.step
            if demo.state != Demo.State.RUNNING:
                return
            time.sleep(LOOK_SECONDS)
            demo.refresh_from_db()
