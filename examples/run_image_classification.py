r"""Fine-tune any image classifier of the Hub, or a folder, on folders of images: an ordinary Trainer script with EDGE.

The four lines marked EDGE are all that differs from a script for transformers.Trainer. A folder of images has one
folder a class: train/cat/1.png, train/dog/2.png, …

python examples/run_image_classification.py \
    --model_name_or_path google/vit-base-patch16-224-in21k --train_dir train --validation_dir dev --alpha 1.0 \
    --output_dir runs/images --num_train_epochs 3 --learning_rate 5e-5 --per_device_train_batch_size 32
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    HfArgumentParser,
    Trainer,  # noqa: F401  (what the EDGE line stands in for)
    TrainingArguments,
    set_seed,
)

import evenhand as eh  # EDGE


@dataclass
class ScriptArguments:
    """What to fine-tune on what."""

    model_name_or_path: str = field(metadata={"help": "A name on the Hub, or a folder."})
    train_dir: str = field(metadata={"help": "A folder with one folder of images a class."})
    validation_dir: str = field(metadata={"help": "The same for evaluation."})
    alpha: float = field(default=1.0, metadata={"help": "Strength of EDGE; 0 is plain fine-tuning."})  # EDGE


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float(np.mean(np.argmax(prediction.predictions, axis=1) == prediction.label_ids))}


def main() -> None:
    """Read, train, evaluate, save."""
    arguments, training = HfArgumentParser((ScriptArguments, TrainingArguments)).parse_args_into_dataclasses()  # type: ignore[arg-type]
    training.remove_unused_columns = False  # the images are made into pixel values in the collator
    set_seed(training.seed)
    # read together, so that a class has one number in both, also where it is missing in one
    files = {"train": f"{arguments.train_dir}/**", "validation": f"{arguments.validation_dir}/**"}
    images = datasets.load_dataset("imagefolder", data_files=files)
    train, validation = images["train"], images["validation"]
    names = train.features["label"].names
    processor = AutoImageProcessor.from_pretrained(arguments.model_name_or_path)
    model = AutoModelForImageClassification.from_pretrained(
        arguments.model_name_or_path,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = processor([row["image"].convert("RGB") for row in rows], return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.tensor([row["label"] for row in rows])}

    trainer = eh.Trainer(  # EDGE, in place of Trainer(
        method=eh.EDGE(alpha=arguments.alpha, projection="tensor"),  # EDGE
        model=model,
        args=training,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=accuracy,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    processor.save_pretrained(training.output_dir)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
