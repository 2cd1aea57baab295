"""`python -m lit_mem`: the same as `lit-mem`."""

from lit_mem.cli.start import run

if __name__ == "__main__":
    run()
