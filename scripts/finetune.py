"""Fine-tune a model as a recipe says: `unitok train` as a script, for torchrun.

    python scripts/finetune.py recipe.toml --set out=runs/mine
    torchrun --nproc-per-node 8 scripts/finetune.py recipe.toml --set memory.sharding=fsdp

docs/finetuning.md explains recipes, runs and results.
"""

import sys

from unitok.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
