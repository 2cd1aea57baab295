"""The LightningModule, the LightningDataModule, and the measuring callback."""
