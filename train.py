"""Fine-tune with live memorization: `python train.py fit --config configs/quickstart.yaml`."""

from lit_mem.cli import main

if __name__ == "__main__":
    main()
