"""From what a user asks for to a run that can begin: the task built, the settings chosen, the model checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evenhand.evaluation.progress import DataProgress, Progress
from evenhand.methods.base import Method
from evenhand.models.adapters import Adapters
from evenhand.models.source import ModelSource
from evenhand.runs.configuration import Configuration, check_parts, shipped_training, source_for
from evenhand.shortcuts.coding import Rule
from evenhand.tasks import TASKS, OwnData, Task, TaskSource
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.validation import UserError, check_seed, unknown_name


@dataclass(frozen=True)
class Asked:
    """What a user may say of a run beside its method and task; None leaves it to the task and the model.

    Attributes:
        model: The model's name.
        seed: Drives initialisation, order and dropout.
        data_seed: Drives the data's construction; the same as `seed` if None.
        epochs: Epochs a stage.
        lr: Learning rate.
        batch_size: Samples a step.
        bf16: Whether training runs under autocast to bfloat16.
        adapters: What trains beside the head; None trains the whole model.
        fresh: Whether a checkpoint gives its architecture only.
        shortcuts: Shortcuts that have a name, or their spellings.
    """

    model: str | None = None
    seed: int = 0
    data_seed: int | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    bf16: bool = False
    adapters: Adapters | None = None
    fresh: bool = False
    shortcuts: tuple[Rule | str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A run that can begin.

    Attributes:
        configuration: What is run.
        task: Its task, built.
        source: Where its models come from.
    """

    configuration: Configuration
    task: Task
    source: ModelSource


def prepare(
    owner: str, method: Method, task: str | TaskSource | Task, asked: Asked, progress: Progress | None = None
) -> Prepared:
    """Build the task, choose the settings, and refuse what doesn't fit together.

    Args:
        owner: The function that the user called, for messages.
        method: The method.
        task: The task by name, with its settings, or built.
        asked: What else was asked for.
        progress: Receives the task if it has a method `data`.

    Raises:
        UserError: If something given is wrong or unknown, or the model doesn't fit the task.
    """
    if not isinstance(method, Method):
        raise UserError(f"The 'method' parameter of {owner} must be a method such as evenhand.PGD(). Got {method!r}.")
    check_seed(owner, "seed", asked.seed)
    if asked.data_seed is not None:
        check_seed(owner, "data_seed", asked.data_seed)
    recipe, shortcuts = parted(_recipe(owner, task), asked.shortcuts)
    data_seed = asked.seed if asked.data_seed is None else asked.data_seed
    built = recipe if isinstance(recipe, Task) else recipe.build(data_seed)
    if shortcuts:
        built = with_shortcuts(built, shortcuts)
    model = asked.model or (recipe.usual_model if isinstance(recipe, TaskSource) else None)
    if model is None:
        raise UserError(f"The 'model' parameter of {owner} must be given for a task of your own.")
    if isinstance(progress, DataProgress):
        progress.data(built)
    source = source_for(built, model, asked.adapters, asked.fresh)
    _check_fit(method, built, source)
    shipped = shipped_training(recipe, model, asked.adapters, asked.fresh)
    configuration = Configuration(
        method=method,
        task=recipe,
        model=model,
        training=shipped.replaced(asked.epochs, asked.lr, asked.batch_size, asked.bf16),
        seed=asked.seed,
        data_seed=data_seed,
        adapters=asked.adapters,
        fresh=asked.fresh,
        shortcuts=() if built.shortcuts is None else built.shortcuts.rules,
    )
    return Prepared(configuration, built, source)


def prepared(configuration: Configuration, task: Task | None = None) -> Prepared:
    """The run of a configuration, such as a study's.

    Args:
        configuration: What is run.
        task: Its task, if that is built already.

    Raises:
        UserError: If the task can't be built, or the method or the model doesn't fit it.
    """
    recipe = configuration.task if task is None else task
    built = recipe if isinstance(recipe, Task) else recipe.build(configuration.data_seed)
    if configuration.shortcuts and built.shortcuts is None:
        built = with_shortcuts(built, configuration.shortcuts)
    source = configuration.source(built)
    _check_fit(configuration.method, built, source)
    return Prepared(configuration, built, source)


def _check_fit(method: Method, task: Task, source: ModelSource) -> None:
    source.config()  # an unknown or unfitting model is refused here
    method.check_start(pretrained=not source.starts_random)
    method.check_inputs(task.inputs)
    method.check_shortcuts(task.shortcuts)
    check_parts(method, source)


def parted(
    recipe: TaskSource | Task, asked: tuple[Rule | str, ...]
) -> tuple[TaskSource | Task, tuple[Rule | str, ...]]:
    """The task without its shortcuts, and the shortcuts: they are part of a run, whatever its task."""
    own: tuple[Any, ...] = tuple(recipe.shortcuts) if isinstance(recipe, OwnData) else ()
    if own and asked:
        raise UserError(
            f"Shortcuts are named twice, with the data ({', '.join(map(str, own))}) and beside them "
            f"({', '.join(map(str, asked))}): name all of them in one place."
        )
    return (replace(recipe, shortcuts=()), own) if isinstance(recipe, OwnData) and own else (recipe, asked)


def _recipe(owner: str, task: str | TaskSource | Task) -> TaskSource | Task:
    if isinstance(task, str):
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
        return TASKS[task]()
    if not isinstance(task, (TaskSource, Task)):
        raise UserError(f"The 'task' parameter of {owner} must be a task's name or a task. Got {task!r}.")
    return task
