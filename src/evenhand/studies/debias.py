"""`evenhand.debias`: audit, ask which likely shortcuts the model must not rely on, train, choose, and leave a model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from transformers import PreTrainedModel

from evenhand.auditing import Audit
from evenhand.auditing.audit import audited
from evenhand.auditing.scoring import FOLDS, score_all
from evenhand.auditing.sources import subject_to_train
from evenhand.evaluation.progress import Progress
from evenhand.files import alone_in, whole_folder
from evenhand.methods import ERM, Balance, Even, LogitCorrection, Method
from evenhand.models.adapters import AdapterKind, Adapters, adapters_of
from evenhand.models.inference import Device, ready, torch_device
from evenhand.models.saved import load_model
from evenhand.report import write_audit, write_report
from evenhand.runs.configuration import Configuration
from evenhand.runs.fit import carry_out, model_folder
from evenhand.runs.prepared import Asked, Prepared, prepare, prepared
from evenhand.runs.record import Record, read_json
from evenhand.runs.seals import REPORT
from evenhand.runs.shared_stages import SharedStages
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.own import OwnShortcut
from evenhand.studies.choice import Choice, called, choose, perfect_leak
from evenhand.studies.confirm import Question, questions
from evenhand.studies.kept import Kept
from evenhand.tasks import Task, TaskSource
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.training.stage import StageError
from evenhand.validation import UserError, check_integer, check_path, count
from evenhand.wording import duration, listed

Confirm = Callable[[Question], bool]
"""Says of a likely shortcut whether the model must not rely on it."""


@runtime_checkable
class Spoken(Progress, Protocol):
    """A progress that is told in words what goes on."""

    def begin(self, run: str) -> None:
        """Name the run whose stages come next."""
        ...

    def say(self, line: str) -> None:
        """A sentence."""
        ...


@dataclass(frozen=True, eq=False)
class Debiased:
    """A model that was chosen among several.

    Attributes:
        chosen: The chosen run's method, by name.
        choice: How it was chosen, and what it gives.
        runs: Method → record of its run.
        folder: Where everything lies: a folder for each run, `audit/`, `model/`, and the page.
        page: The page of all runs.
        audit: The audit; None where the shortcuts were named and no training was to spare for one.
        device: Where the model is loaded to.
    """

    chosen: str
    choice: Choice
    runs: Mapping[str, Record]
    folder: Path
    page: Path
    audit: Audit | None
    device: torch.device

    @property
    def sentence(self) -> str:
        """What the chosen model gives, beside plain training."""
        return self.choice.sentence

    @cached_property
    def model(self) -> PreTrainedModel:
        """The chosen model, in eval mode."""
        return ready(load_model(self.folder / "model"), self.device)


def debias(
    data: str | TaskSource | Task,
    model: str | None = None,
    *,
    shortcuts: Sequence[Rule | str] | Literal["found"] | None = None,
    confirm: Confirm | None = None,
    budget: int | None = None,
    seed: int = 0,
    data_seed: int | None = None,
    output_dir: Path | str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    bf16: bool = False,
    peft: Adapters | AdapterKind | None = None,
    fresh: bool = False,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Debiased:
    """Find shortcuts, train with and without correcting them, and keep the model that validation rows speak for.

    Args:
        data: The task: by name, with its settings (`OwnData(...)`), or built by yourself.
        model: What training starts from; the task's own default if None.
        shortcuts: What the model must not rely on: spellings or shortcuts from Python; `found`: every likely shortcut
            that the audit finds. With None, `confirm` says so; without `confirm`, only methods that need no name are
            compared.
        confirm: Is asked about each likely shortcut, once.
        budget: How many models may be trained in all; None trains every method that may help.
        seed: As of `fit`, like the options below. What was stopped goes on where it was.
        data_seed: Drives the data's construction.
        output_dir: The folder; runs/<task>/debias-… if None.
        epochs: Epochs a stage.
        lr: Learning rate.
        batch_size: Samples a step.
        bf16: Train under autocast to bfloat16.
        peft: Adapters to train.
        fresh: Take the checkpoint's architecture only.
        device: `auto` takes a GPU if there is one.
        progress: Receives how far each stage is; where it has `begin` and `say`, what goes on in sentences.

    Raises:
        UserError: If something given is wrong.
        StageError: If the training of ERM diverged.
    """
    _check(shortcuts, confirm, output_dir)
    place, found = torch_device(device), isinstance(shortcuts, str) and shortcuts == "found"
    names = () if found or shortcuts is None else (shortcuts,) if isinstance(shortcuts, str) else tuple(shortcuts)
    asked = Asked(model, seed, data_seed, epochs, lr, batch_size, bf16, adapters_of(peft), fresh, names)
    plain = prepare("debias", ERM(), data, asked, progress)
    given = [_spelled(rule) for rule in plain.configuration.shortcuts]
    if given and (found or confirm is not None):
        raise UserError(f"The data name their shortcuts already ({', '.join(given)}): give nothing beside.")
    source = given or ("found" if found else "asked" if confirm is not None else None)
    folder = Path(output_dir) if output_dir is not None else _default_folder(plain.configuration, source)
    kept = Kept.open(folder, plain.configuration, source)
    work = _Work(plain, kept, source, confirm, _checked(budget, named=bool(given)), place, device, progress)
    with alone_in(folder):
        kept.save()
        return work.done()


def _check(shortcuts: Any, confirm: Confirm | None, output_dir: Path | str | None) -> None:
    if shortcuts is not None and confirm is not None:
        raise UserError("'confirm' asks which shortcuts the model must not rely on and 'shortcuts' says so: give one.")
    if output_dir is not None:
        check_path(output_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("debias runs as one process: start it without torchrun or accelerate launch.")


def planned(*, named: bool, compared: bool, audited: bool, budget: int | None) -> list[Method]:
    """The methods to train, in order of worth, as far as the budget goes.

    Balance comes before Even: a name that is known says more than what biased models get wrong, and it is one model.

    Args:
        named: Whether some training row goes against a named shortcut.
        compared: Whether, without a name, something speaks for a method that needs none.
        audited: Whether the audit has trained Even's biased models.
        budget: Models that may be trained, those of the audit included.
    """
    spent = FOLDS if audited else 0
    methods: list[Method] = []
    for method in (ERM(), *((Balance(), Even(), LogitCorrection()) if named else (Even(),) if compared else ())):
        models = method.models_trained() - (FOLDS if audited and isinstance(method, Even) else 0)
        if budget is None or spent + models <= budget:
            methods.append(method)
            spent += models
    return methods


@dataclass
class _Work:
    plain: Prepared
    kept: Kept
    source: Any
    confirm: Confirm | None
    budget: int | None
    place: torch.device
    device: Device
    progress: Progress | None

    @property
    def folder(self) -> Path:
        return self.kept.folder

    @property
    def stages(self) -> SharedStages:
        return SharedStages(self.folder / "stages")

    def done(self) -> Debiased:
        """Everything, from where it was left."""
        given = isinstance(self.source, list)
        named = any(one.conflicting for one in self.plain.task.shortcuts.fitted) if self.plain.task.shortcuts else False
        methods = planned(named=named, compared=False, audited=False, budget=self.budget)
        found = None
        if not given or any(isinstance(method, Even) for method in methods):
            found = self.audit()
        rules, remark = ((), "") if given or found is None else self.settled(found)
        ready_ = self.plain if not rules else self.named(rules)
        fitted = ready_.task.shortcuts.fitted if ready_.task.shortcuts else ()
        perfect = [one.name for one in fitted if one.is_perfect]
        named = any(one.conflicting for one in fitted)
        compared = not fitted and found is not None and self.is_open(found)
        methods = planned(named=named, compared=compared, audited=found is not None, budget=self.budget)
        self.say(remark)
        records = self.trained(ready_, methods, found)
        choice = choose(records, [one.name for one in fitted if one.conflicting] or perfect)
        if perfect:
            remarks = (perfect_leak(records[ERM.name], perfect), *choice.remarks)
            choice = replace(choice, remarks=remarks)
        elif remark:
            choice = replace(choice, remarks=(remark, *choice.remarks))
        with whole_folder(self.folder / "model") as partial:
            shutil.copytree(model_folder(self.folder / choice.method), partial, dirs_exist_ok=True)
        self.kept.choice = choice.as_dict()
        self.kept.save()
        page = write_report(self.folder).html
        return Debiased(choice.method, choice, records, self.folder, page, found, self.place)

    # ---- what the model must not rely on ----------------------------------------------------------------------------

    def audit(self) -> Audit:
        """The audit, written into its own folder; its biased models are those that Even needs."""
        self.begin("audit")
        seed = self.plain.configuration.seed
        subject = subject_to_train(self.plain, [seed], self.folder / "audit", self.device, self.stages)
        found = audited(subject, score_all(subject.models, subject.task, subject.scoring, self.place, self.progress))
        write_audit(found)
        self.say(f"The audit {found.verdict}")
        return found

    def is_open(self, found: Audit) -> bool:
        """Whether something was found that nobody has answered for."""
        return found.opposites.unnamed or (self.source is None and bool(questions(found)))

    def settled(self, found: Audit) -> tuple[tuple[str, ...], str]:
        """The shortcuts that the model must not rely on, and what is to be said where there is none."""
        asked = questions(found)
        if not asked:
            unnamed = "a shortcut that has no name" if found.opposites.unnamed else "nothing that it must not rely on"
            return (), f"The audit found {unnamed}, so no shortcut is corrected by its name."
        if self.source is None:
            return (), (
                f"Nobody was asked whether the model must not rely on {called([one.shortcut for one in asked])}, so "
                "only methods are compared that need no name. Name it with --shortcut, or take all that is likely with "
                "--yes (in Python: shortcuts=[...] or 'found')."
            )
        for question in asked:
            if question.shortcut not in self.kept.answers:
                self.kept.answers[question.shortcut] = self.confirm is None or bool(self.confirm(question))
                self.kept.save()
        write_audit(replace(found, confirmed=self.kept.answers))  # for who passes the audit on
        rules = tuple(one.shortcut for one in asked if self.kept.answers[one.shortcut])
        return rules, "" if rules else "The model may rely on all that was found, so nothing is corrected."

    def named(self, rules: Sequence[str]) -> Prepared:
        """ERM's run with shortcuts that have a name."""
        task = with_shortcuts(self.plain.task, rules)
        assert task.shortcuts is not None
        return prepared(replace(self.plain.configuration, shortcuts=task.shortcuts.rules), task)

    # ---- training ---------------------------------------------------------------------------------------------------

    def trained(self, plain: Prepared, methods: Sequence[Method], found: Audit | None) -> dict[str, Record]:
        """The finished runs, by method; one that diverges is left out, unless it is ERM."""
        runs = [prepared(replace(plain.configuration, method=method), plain.task) for method in methods]
        self.say(self.plan(runs, audited=found is not None))
        records = {}
        for method, run in zip(methods, runs, strict=True):
            self.begin(method.title)
            folder = self.folder / method.name
            try:
                carry_out(run, folder, self.place, self.progress, self.stages if isinstance(method, Even) else None)
            except StageError as error:
                if isinstance(method, ERM):
                    raise
                self.say(f"{method.title} failed: {error}")
                continue
            records[method.name] = Record.load(folder / "record.json")
        return records

    def plan(self, runs: Sequence[Prepared], *, audited: bool) -> str:
        """As in "Trains ERM, Balance and Even (its biased models are the audit's): 3 models, about 6 min"."""
        left = [run.configuration.method for run in runs if not self.is_done(run.configuration.method)]
        if not left:
            return "All runs are done."
        models = sum(m.models_trained() - (FOLDS if audited and isinstance(m, Even) else 0) for m in left)
        also = " (its two biased models are the audit's)"
        told = [f"{method.title}{also if audited and isinstance(method, Even) else ''}" for method in left]
        stages = (self.folder / "audit" / "models").glob(f"*/stages/*/{REPORT}")
        seconds = [report["seconds"] for report in map(read_json, stages) if "steps" in report]
        time = f", about {duration(models * mean(seconds))}" if seconds else ""
        return f"Now trained: {listed(told)}: {count(models, 'model')}{time}."

    def is_done(self, method: Method) -> bool:
        """Whether a run lies there already, finished."""
        path = self.folder / method.name / "record.json"
        return path.exists() and Record.load(path).is_done

    # ---- words ------------------------------------------------------------------------------------------------------

    def begin(self, run: str) -> None:
        if isinstance(self.progress, Spoken):
            self.progress.begin(run)

    def say(self, line: str) -> None:
        if line and isinstance(self.progress, Spoken):
            self.progress.say(line)


def _checked(budget: int | None, *, named: bool) -> int | None:
    """The budget; it must be enough for ERM and one thing beside it."""
    if budget is not None:
        check_integer("debias", "budget", budget, 1)
        least, why = (2, "ERM and one that corrects") if named else (FOLDS + 1, f"the audit's {FOLDS} and ERM")
        if budget < least:
            raise UserError(f"The 'budget' parameter of debias must be at least {least} here: {why}. Got {budget}.")
    return budget


def _spelled(rule: Rule) -> str:
    """What tells a shortcut from others: its spelling, or of one from Python its name and its values."""
    return f"{rule.name} ({rule.sha256[:16]})" if isinstance(rule, OwnShortcut) else rule.spelling


def _default_folder(configuration: Configuration, source: Any) -> Path:
    """runs/<task>/debias-<what is asked>-seed<seed>."""
    asked = hashlib.sha256(json.dumps([configuration.cell_hash, source]).encode()).hexdigest()[:8]
    seeds = f"seed{configuration.seed}"
    if configuration.data_seed != configuration.seed:
        seeds += f"-data{configuration.data_seed}"
    return Path("runs") / configuration.task.name / f"debias-{asked}-{seeds}"
