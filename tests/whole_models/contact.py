"""Print what a first contact with well-known models looks like.

``python tests/whole_models/contact.py > docs/first_contact.md`` (``tox -e vision`` compares): each
command is run in a terminal of 100 columns, beside a copy of ``contact_models.py``; nothing is
downloaded, all weights are drawn.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "first_contact.md"

#: Title, what is to be said of it, and what is run.
MODELS: list[tuple[str, str, list[str]]] = [
    (
        "ResNet-50",
        "timm's; the last norm of each branch starts at zero, and what is behind it gets its "
        "gradient after a step.",
        ["pytest", '--param-model=timm:create_model("resnet50")'],
    ),
    (
        "ViT",
        "timm's.",
        ["pytest", '--param-model=timm:create_model("vit_tiny_patch16_224")'],
    ),
    (
        "BERT",
        "transformers', small, with the head of a masked language model, tied to the embedding.",
        ["pytest", "--param-model=contact_models:bert"],
    ),
    ("Llama", "transformers', small.", ["pytest", "--param-model=contact_models:llama"]),
    (
        "Llama with LoRA",
        "peft's: all but the adapters is frozen, and the first of two factors gets its gradient "
        "once the second one has left zero.",
        ["pytest", "--param-model=contact_models:llama_with_lora"],
    ),
    (
        "UNet",
        "One's own, with the `example_input_array` that Lightning asks for.",
        ["pytest", "--param-model=contact_models:UNet"],
    ),
    (
        "nanoGPT",
        "One's own; nobody says what it takes.",
        ["pytest", "--param-model=contact_models:GPT"],
    ),
    (
        "nanoGPT, declared",
        "With its inputs, its tie, nothing frozen and its optimizer in a `ModelCase`.",
        ["pytest", "--param-model=contact_models:NANO_GPT"],
    ),
    (
        "ResNet-50 that writes its declaration",
        "",
        ["python", "-m", "pytest_paramcheck", "declare", 'timm:create_model("resnet50")'],
    ),
    (
        "Llama with LoRA that writes its declaration",
        "",
        ["python", "-m", "pytest_paramcheck", "declare", "contact_models:llama_with_lora"],
    ),
]


def output(command: list[str], folder: str) -> str:
    """Return what a command prints, without what is another in each run or on each machine."""
    environment = {**os.environ, "COLUMNS": "100", "PYTHONWARNINGS": "ignore"}
    # Only what is ours: other plugins of the environment have lines of their own.
    options = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:warnings"]
    words = [sys.executable, *(options if command[0] == "pytest" else []), *command[1:]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    lines = []
    for line in done.stdout.splitlines():
        if re.match(r"(platform|rootdir|plugins|hypothesis profile|configfile) ?", line):
            continue
        if re.match(r"=+ .* in [0-9.]+s", line):
            line = re.sub(r" in [0-9.]+s( \([0-9:]+\))?", "", line).strip("= ")
            line = f" {line} ".center(100, "=")
        lines.append(line.rstrip())
    return "\n".join(lines).strip()


def page() -> str:
    """Return the page."""
    lines = [
        "# First contact",
        "",
        "What `pytest --param-model` says of well-known models, with nothing declared but where it",
        "is said, and a declaration that writes itself. Written by",
        "`python tests/whole_models/contact.py > docs/first_contact.md`.",
    ]
    for title, said, command in MODELS:
        lines += ["", f"## {title}", *(["", said] if said else [])]
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(HERE / "contact_models.py", folder)
            shown = output(command, folder)
        lines += ["", f"`{shlex.join(command)}`", "", "```text", shown, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if page() == PAGE.read_text(encoding="utf-8") else f"{PAGE} is not up to date")
    sys.stdout.write(page())
