"""Language models on pairs: loss, choices and generation against independent ways to get them; runs as typed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from networks import DECODERS
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from experiments import methods, training
from experiments.assets import fetch
from experiments.config import ModelSettings, TrainingSettings
from experiments.models import choose_runtime
from experiments.problems.encoding import IGNORED, Encoder
from experiments.problems.language import Language
from experiments.tasks import TextData
from lora.config import InputError
from lora.model import trainable_parameters

Cli = Callable[..., Any]  # conftest.cli
LORA = {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q+v"}
TASK: dict[str, Any] = {
    "format": "plain",
    "max_length": 64,
    "generation": {"beams": 1, "length_penalty": 1.0, "no_repeat_ngram": 0, "max_new_tokens": 8},
}
TRAINING = TrainingSettings(
    lr=1e-2,
    head_lr=None,
    epochs=1,
    batch_size=4,
    warmup_ratio=0.0,
    schedule="constant",
    weight_decay=0.0,
    max_grad_norm=1.0,
)
PROMPTS = [
    "a short one:",
    "a much longer prompt than the others are, of many words:",
    "b:",
    "what is it that you want?",
]
COMPLETIONS = [" yes", " of course not", " perhaps it is, who knows", " no"]


def data(choices: tuple[str, ...] = ()) -> TextData:
    train = [{"prompt": prompt, "completion": text} for prompt, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    test = [{"prompt": prompt, "references": [text]} for prompt, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    return TextData(Dataset.from_list(train), Dataset.from_list(test), Dataset.from_list(test), "accuracy", (), choices)


def problem(folder: Path, choices: tuple[str, ...] = (), **task: Any) -> Language:
    runtime = choose_runtime("cpu", "fp32", 1)
    return Language(
        ModelSettings(name="m", path=str(folder), dropout=0.0), TASK | task, LORA, data(choices), runtime, 3
    )


def trained_lora(folder: Path, **task: Any) -> Language:
    """A problem with adapters that matter."""
    found = problem(folder, **task)
    methods.apply(found.model, LORA, [])
    torch.manual_seed(1)
    for parameter in trainable_parameters(found.model).values():
        torch.nn.init.normal_(parameter, std=0.3)
    found.model.eval()
    return found


@pytest.mark.parametrize("family", DECODERS)
def test_the_loss_is_that_of_transformers(family: str, decoders: dict[str, Path]) -> None:
    found = problem(decoders[family])
    found.model.eval()
    rows = found.rows["train"]
    total = 0.0
    for row in rows:  # one by one, all logits, and transformers' own shift and mean
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        total += found.model(input_ids=ids, labels=labels).loss.item() * sum(
            label != IGNORED for label in row["labels"]
        )
    assert found.weight(rows) == sum(len(found.encoder.target(text)) + 1 for text in COMPLETIONS)
    assert found.loss(rows).item() == pytest.approx(total / found.weight(rows), rel=1e-5)


def test_logits_are_computed_for_target_tokens_alone(decoders: dict[str, Path]) -> None:
    found = problem(decoders["llama"])
    seen: list[torch.Size] = []
    found.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    found.loss(found.rows["train"])
    assert seen == [(found.weight(found.rows["train"]), found.model.config.vocab_size)]


def test_label_smoothing_mixes_in_the_uniform_distribution(decoders: dict[str, Path]) -> None:
    found = problem(decoders["gpt2"])
    found.model.eval()
    (row,) = found.rows["train"][:1]
    logits = found.model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    places = [index for index, label in enumerate(row["labels"]) if label != IGNORED]
    logits = logits.detach()
    own = -sum(logits[index - 1, row["labels"][index]] for index in places) / len(places)
    uniform = -sum(logits[index - 1].mean() for index in places) / len(places)
    assert found.loss([row], 0.1).item() == pytest.approx(float(0.9 * own + 0.1 * uniform), rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_a_batch_in_parts_has_the_same_gradient(parts: int, decoders: dict[str, Path]) -> None:
    results = []
    for accumulate in (None, parts):
        found = trained_lora(decoders["llama"])
        loss = training._backward(found, found.rows["train"], dataclasses.replace(TRAINING, accumulate=accumulate))
        results.append((loss, [parameter.grad for parameter in trainable_parameters(found.model).values()]))
    (loss, gradients), (other_loss, other_gradients) = results
    assert len(other_loss) > len(loss) == 1, "each part's share"
    assert other_loss.sum().item() == pytest.approx(loss.item(), rel=1e-5)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("beams", [1, 3])
def test_merged_and_unmerged_generate_the_same_text(
    family: str, beams: int, decoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = TASK["generation"] | {"beams": beams, "length_penalty": 0.9, "no_repeat_ngram": 4}
    found = trained_lora(decoders[family], generation=search)
    base = problem(decoders[family], generation=search)
    merged = found.generate("test")
    assert merged != base.generate("test")
    monkeypatch.setattr("experiments.problems.language.merge", lambda model: None)
    assert found.generate("test") == merged


def test_generation_in_batches_is_that_of_single_prompts(decoders: dict[str, Path]) -> None:
    found = trained_lora(decoders["gpt2"])
    together = found.generate("test")
    alone = []
    for prompt in PROMPTS:
        ids = torch.tensor([found.encoder.context(prompt)])
        for _ in range(8):  # greedy, without cache and without generate()
            following = found.model(input_ids=ids).logits[0, -1].argmax()
            if following == found.tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, following.view(1, 1)], dim=1)
        new = ids[0, len(found.encoder.context(prompt)) :]
        alone.append(found.tokenizer.decode(new, skip_special_tokens=True).strip())
    assert together == alone


@pytest.mark.parametrize("family", DECODERS)
def test_a_choice_is_the_likeliest_completion(family: str, decoders: dict[str, Path]) -> None:
    choices = (" yes", " no", " of course not", " of course", " perhaps it is, who knows")
    found = problem(decoders[family], choices)
    chosen = [output["output"] for output in found.evaluate("validation").outputs]
    for prompt, choice in zip(PROMPTS, chosen, strict=True):
        context = found.encoder.context(prompt)
        sums = []
        for text in choices:
            target = found.encoder.target(text)
            logits = found.model(input_ids=torch.tensor([context + target])).logits[0].log_softmax(-1)
            sums.append(sum(logits[len(context) - 1 + i, token].item() for i, token in enumerate(target)))
        assert choice == choices[max(range(len(choices)), key=sums.__getitem__)]


def test_pairs_as_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(tokenizer, "plain", 16)
    context, target = (
        tokenizer("a prompt:")["input_ids"],
        [*tokenizer(" its answer")["input_ids"], tokenizer.eos_token_id],
    )
    pair = encoder.pair("a prompt:", " its answer")
    assert pair == {"input_ids": context + target, "labels": [IGNORED] * len(context) + target}
    assert encoder.cut == 0
    short = encoder.pair("word " * 40 + "a prompt:", " its answer")
    assert (len(short["input_ids"]), encoder.cut) == (16, 1)
    assert short["input_ids"][-len(target) - 2 :] == (context + target)[-len(target) - 2 :]


def test_chat_format(tokenizer: PreTrainedTokenizerBase) -> None:
    pair = Encoder(tokenizer, "chat", 128).pair("Who?\n", " Nobody")
    text = tokenizer.decode(pair["input_ids"])
    assert text.endswith("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nNobody<|im_end|>")
    assert tokenizer.decode([label for label in pair["labels"] if label != IGNORED]) == "Nobody<|im_end|>"


def test_settings_of_the_text_that_cannot_be(tokenizer: PreTrainedTokenizerBase, decoders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="task.format = 'markdown': choose from plain, chat"):
        Encoder(tokenizer, "markdown", 16)
    bare = AutoTokenizer.from_pretrained(decoders["gpt2"])
    bare.chat_template = None
    with pytest.raises(InputError, match="no chat template; choose plain"):
        Encoder(bare, "chat", 16)
    with pytest.raises(InputError, match="max_new_tokens = 2000: the model has room for 1024"):
        problem(decoders["gpt2"], generation=TASK["generation"] | {"max_new_tokens": 2000})


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """The same answer to 40 questions."""
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"question {n}:", "completion": " it is so"} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def typed(folder: Path, file: Path) -> list[str]:
    """A run of a tiny decoder on the user's own pairs, as overrides."""
    own = ["model=hub", f"model.path={folder}", "task=local", f"task.path={file}", "preset=smoke"]
    return [*own, "runtime.threads=1", "task.generation.max_new_tokens=8", "runtime.precision=fp32"]


def stored(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = [path for path in (tmp_path / "results" / "runs").iterdir() if not path.name.startswith(".")]
    return folder, json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_learns_to_write(cli: Cli, decoders: dict[str, Path], pairs: Path, tmp_path: Path, method: str) -> None:
    everywhere = ["method.weight_types=q+k+v+o+up+gate+down", "method.modules=[lm_head]", "method.r=16"]
    learn = [f"method={method}", "training.lr=1e-2", "preset.epochs=25", "training.batch_size=8"]
    result = cli(*typed(decoders["llama"], pairs), *learn, *(everywhere if method == "lora" else []))
    assert result.code == 0, result.err
    folder, metrics = stored(tmp_path)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["output"] for line in lines] == ["it is so"] * 4
    assert all(line["prompt"].startswith("question") and line["references"] for line in lines)
    scores = {(row["split"], row["metric"]): row["value"] for row in metrics["metrics"]}
    assert scores["test", "rouge_lf"] == 1.0
    assert {metric for split, metric in scores if split == "validation"} == {"loss"}
    assert (metrics["main_metric"], metrics["validation_metric"]) == ("rouge_lf", "loss")
    assert scores["validation", "loss"] < 0.5


def test_a_learning_rate_for_text_is_chosen_by_the_loss(
    cli: Cli, decoders: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    rates = ["training.lr=tuned", "tuning.lr_grid=[1e-5,1e-3,2e-2]", "tuning.extend=0", "preset.epochs=4"]
    result = cli(*typed(decoders["llama"], pairs), *rates)
    assert result.code == 0, result.err
    losses = {}
    for folder in (tmp_path / "results" / "runs").glob("[!.]*"):
        scores = json.loads((folder / "metrics.json").read_text())["metrics"]
        (loss,) = [row["value"] for row in scores if (row["split"], row["metric"]) == ("validation", "loss")]
        losses[folder.name] = loss
    best = min(losses, key=losses.__getitem__)
    assert len(losses) == 3
    assert result.out.splitlines()[-1].startswith(best)


def test_a_frozen_model_is_scored_as_it_is(cli: Cli, decoders: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    result = cli(*typed(decoders["llama"], pairs), "method=frozen")
    assert result.code == 0, result.err
    folder, metrics = stored(tmp_path)
    assert (metrics["trainable_params"], metrics["train_seconds"], metrics["tokens_per_second"]) == (0, 0.0, None)
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 4
    assert len((folder / "history.csv").read_text().splitlines()) == 1


def test_frozen_is_not_for_a_model_with_a_new_head(cli: Cli, tiny: list[str]) -> None:
    result = cli(*tiny, "method=frozen")
    assert (result.code, "choose head_only" in result.err) == (2, True)


def test_an_encoder_writes_no_text(cli: Cli, tiny_model: Path, pairs: Path) -> None:
    result = cli(*typed(tiny_model, pairs))
    assert result.code == 2
    assert "is a bert model, which does not write text" in result.err


def test_the_default_decoder_knows_something() -> None:
    folder = fetch("smollm2")
    assert not list(folder.glob("*.gguf"))
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    ids = tokens("The capital of France is", return_tensors="pt")
    written = model.float().generate(**ids, max_new_tokens=3, do_sample=False, pad_token_id=tokens.pad_token_id)
    assert "Paris" in tokens.decode(written[0])
