"""Sources of texts, one file per kind."""

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.sources.chats import ChatFiles
from lit_mem.data.sources.hub import HubDataset
from lit_mem.data.sources.phee import PHEE
from lit_mem.data.sources.text import TextFiles

__all__ = ["PHEE", "CaseReports", "ChatFiles", "Corpus", "HubDataset", "Source", "TextFiles"]
