"""The core: measures over one scoring pass, with no trainer."""
