"""Fine-tune with live memorization metrics: `python train.py fit --config configs/quickstart.yaml`."""

from lit_mem.cli.start import run

if __name__ == "__main__":
    run()
