"""The core of lora-lab in a plain PyTorch loop: adapt, train, save, merge, load again.

python examples/core_alone.py sentence-transformers/all-MiniLM-L6-v2

Any model of transformers with a classification head will do, and so will any other whose projections have the usual
names. Only torch and `lora` are used of what trains; transformers opens the model.
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lora

TEXTS = ["a warm and wonderful film", "a dull and dreadful film", "wonderful, from start to end", "dreadful and long"]
LABELS = torch.tensor([1, 0, 1, 0])
STEPS = 30


def main(name: str) -> None:
    """Adapt the model `name`, train it on four sentences, and bring its adapter back."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")

    lora.inject(model, lora.LoRAConfig(r={"q": 4, "v": 8}, alpha=16, weight_types=("q", "v")))
    lora.freeze(model, trained=["classifier"])  # the adapters and the head are trained, nothing else
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    print(f"{sum(one.numel() for one in trained):,} of {sum(one.numel() for one in model.parameters()):,} parameters")

    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for step in range(STEPS):
        loss = model(**batch, labels=LABELS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, STEPS - 1):
            print(f"step {step + 1}: loss {loss.item():.4f}")

    model.eval()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        adapted = model(**batch).logits
        lora.save(model, Path(folder) / "adapter")  # A, B and the head
        lora.merge(model)  # the weights are W0 + (alpha / r) B A now: no added latency
        print(f"merged, logits differ by {(model(**batch).logits - adapted).abs().max():.1e}")

        fresh = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2).eval()
        lora.load(fresh, Path(folder) / "adapter")
        print(f"loaded, logits differ by {(fresh(**batch).logits - adapted).abs().max():.1e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2")
