"""Train and rank with one model of RecBole 1.2.1; `python -m benchmarks.training --peer PYTHON` times it beside ours.

RecBole lives in an environment of its own, never in the project's; two commands make it:

    python3 -m venv recbole-env && recbole-env/bin/pip install -r benchmarks/peers/requirements-recbole.txt
    recbole-env/bin/pip install --no-deps recbole==1.2.1

It reads FOLDER/NAME/NAME.inter, whose times are positions in the project's sequences, so that splits are the project's.
It prints one JSON object: seconds of the fastest training epoch, training examples a second (an example is one prefix
with its next item), seconds of one full ranking of all test users, users a second, and the metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import Any

CUTOFFS = [5, 10, 20]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER")
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument("--model", default="SASRec", choices=["SASRec", "GRU4Rec", "Caser"])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--max-length", type=int, default=50)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def settings(args: argparse.Namespace, scratch: str) -> dict[str, Any]:
    """Leave-one-out by time, cross-entropy over all items, full ranking; nothing else of RecBole's defaults changes."""
    return {
        "data_path": args.data,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "MAX_ITEM_LIST_LENGTH": args.max_length,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": CUTOFFS,
        "valid_metric": "NDCG@10",
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "epochs": args.epochs,
        "train_batch_size": args.batch_size,
        "eval_batch_size": 2048,
        "show_progress": False,
        "state": "ERROR",
        "save_dataset": False,
        "checkpoint_dir": scratch,
        "seed": 2020,
    }


def main() -> None:
    args = arguments()

    import torch

    torch.set_num_threads(args.threads)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with tempfile.TemporaryDirectory() as scratch:
        config = Config(model=args.model, dataset=args.dataset, config_dict=settings(args, scratch))
        init_seed(config["seed"], True)
        train, _, test = data_preparation(config, create_dataset(config))
        model = get_model(config["model"])(config, train.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        epochs = []
        for epoch in range(args.epochs):
            began = time.perf_counter()
            trainer._train_epoch(train, epoch, show_progress=False)
            epochs.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = trainer.evaluate(test, load_best_model=False, show_progress=False)
        ranking = time.perf_counter() - began
    examples, users = len(train.dataset), len(test.dataset)
    print(
        json.dumps(
            {
                "peer": "recbole 1.2.1",
                "model": args.model,
                "dataset": args.dataset,
                "device": str(config["device"]),
                "train_examples": examples,
                "epoch_seconds": round(min(epochs), 3),
                "examples_per_second": round(examples / min(epochs), 1),
                "test_users": users,
                "evaluation_seconds": round(ranking, 3),
                "users_per_second": round(users / ranking, 1),
                **{name: float(value) for name, value in found.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
