r"""Fine-tune any sequence classifier of the Hub, or a folder, on a table of texts: a Trainer script with EDGE.

The four lines marked EDGE are all that differs from a script for transformers.Trainer.

python examples/run_text_classification.py \
    --model_name_or_path roberta-base --train_file train.csv --validation_file dev.csv \
    --text_columns premise hypothesis --lora_rank 8 --alpha 1.0 \
    --output_dir runs/text --num_train_epochs 3 --learning_rate 3e-4 --per_device_train_batch_size 32
"""

from __future__ import annotations

from dataclasses import dataclass, field

import datasets
import numpy as np
import peft
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
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
    train_file: str = field(metadata={"help": "A CSV or JSON-lines file."})
    validation_file: str = field(metadata={"help": "The same for evaluation."})
    text_columns: list[str] = field(default_factory=lambda: ["text"], metadata={"help": "One column, or two."})
    label_column: str = field(default="label", metadata={"help": "Column of the class, a name or a number."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut, in tokens."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA on the model's usual layers; 0: all weights."})
    alpha: float = field(default=1.0, metadata={"help": "Strength of EDGE; 0 is plain fine-tuning."})  # EDGE


def read(path: str) -> datasets.Dataset:
    """A table by its ending."""
    kind = "csv" if path.endswith(".csv") else "json"
    return datasets.Dataset.from_csv(path) if kind == "csv" else datasets.Dataset.from_json(path)  # type: ignore[return-value]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float(np.mean(np.argmax(prediction.predictions, axis=1) == prediction.label_ids))}


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    arguments, training = HfArgumentParser((ScriptArguments, TrainingArguments)).parse_args_into_dataclasses()  # type: ignore[arg-type]
    set_seed(training.seed)
    train, validation = read(arguments.train_file), read(arguments.validation_file)
    names = sorted({*train[arguments.label_column], *validation[arguments.label_column]})
    label_ids = {name: i for i, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model_name_or_path,
        num_labels=len(names),
        id2label={i: str(name) for name, i in label_ids.items()},
        label2id={str(name): i for name, i in label_ids.items()},
    )
    if arguments.lora_rank:
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=arguments.lora_rank))

    def tokenize(rows: dict[str, list]) -> dict[str, list]:
        texts = [rows[column] for column in arguments.text_columns]
        tokens = dict(tokenizer(*texts, truncation=True, max_length=arguments.max_seq_length))
        return tokens | {"labels": [label_ids[name] for name in rows[arguments.label_column]]}

    train = train.map(tokenize, batched=True, remove_columns=train.column_names)
    validation = validation.map(tokenize, batched=True, remove_columns=validation.column_names)

    trainer = eh.Trainer(  # EDGE, in place of Trainer(
        method=eh.EDGE(alpha=arguments.alpha, projection="tensor"),  # EDGE
        model=model,
        args=training,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    tokenizer.save_pretrained(training.output_dir)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
