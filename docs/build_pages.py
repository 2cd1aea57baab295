"""What pages get when the site is built: tables of contents, the Python API, every option and every logged name.

The pages themselves are plain Markdown, which GitHub shows as it is; what is generated is appended to them.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
INCLUDED: Final = {
    "reliability/security": "SECURITY.md",
    "contributing": "CONTRIBUTING.md",
}
"""Pages that are a file of the repository: what stands there is a link to it, for GitHub."""
API: Final = {
    "reference/api/lit_mem": [
        ("lit_mem", ["Memorization", "CausalLM", "TextDataModule"]), ("lit_mem.audit.run", ["run_audit"]),
        ("lit_mem.audit.result", ["AuditResult"]), ("lit_mem.audit.suite", ["suite"]),
        ("lit_mem.audit.extraction_options", ["ExtractionOptions"]),
        ("lit_mem.types", None), ("lit_mem.errors", None),
    ],
    "reference/api/hf": [("lit_mem.hf", None)],
    "reference/api/callbacks": [("lit_mem.callbacks", None)],
    "reference/api/attacks": [("lit_mem.attacks", None)],
    "reference/api/extraction": [("lit_mem.extraction", None)],
    "reference/api/measures": [
        ("lit_mem.audit.measure", ["Measure"]), ("lit_mem.audit.table", ["ExampleTable"]),
        ("lit_mem.audit.measures", None),
    ],
    "reference/api/adapters": [("lit_mem.adapters", None)],
    "reference/api/data": [
        ("lit_mem.data.sources", None), ("lit_mem.data.canaries", None), ("lit_mem.data.detectors", None),
        ("lit_mem.data.chunk_options", ["Chunk"]), ("lit_mem.data.options", None),
    ],
    "reference/api/training": [
        ("lit_mem.training.objective", None), ("lit_mem.privacy.dpsgd", ["DPSGD"]), ("lit_mem.files.record", None),
    ],
}  # fmt: skip
"""Page -> packages and modules, with the names that are public; None: `__all__`, or what the module itself defines."""


def source_read(_app: Any, page: str, source: list[str]) -> None:
    """Sphinx's hook: complete the Markdown of a page."""
    if page in INCLUDED:
        source[0] = relinked((ROOT / INCLUDED[page]).read_text("utf-8"), page)
    else:
        source[0] = relinked_out(source[0], page)
    if page == "index":
        source[0] += contents(source[0])
    elif page in API:
        source[0] += api(page)
    elif page == "reference/options":
        source[0] += options()
    elif page == "reference/names":
        source[0] += names()


# -- links -----------------------------------------------------------------------------------------------------

_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def _rewritten(text: str, folder: Path, page: str) -> str:
    def link(found: re.Match[str]) -> str:
        words, path, anchor = found[1], found[2], found[3] or ""
        if re.match(r"[a-z]+:", path):
            return found[0]
        target = os.path.relpath(folder / path, ROOT)
        target = next((f"docs/{one}.md" for one, file in INCLUDED.items() if file == target), target)
        seen = os.path.relpath(ROOT / target, (ROOT / "docs" / page).parent)
        if target.endswith(".md") and not target.startswith("docs/"):
            return f"{{download}}`{words} <{seen}>`"  # Markdown that is not a page
        return f"[{words}]({seen}{anchor})"

    return _LINK.sub(link, text)


def relinked(text: str, page: str) -> str:
    """The text of a file at the root of the repository, with links as seen from a page."""
    return _rewritten(text, ROOT, page)


def relinked_out(text: str, page: str) -> str:
    """A page's text, with links to files that are pages of the site themselves led there."""
    return _rewritten(text, (ROOT / "docs" / page).parent, page)


def contents(text: str) -> str:
    """The trees of the side bar, from the lists of links below each heading of the index."""
    made = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = re.findall(r"^ *- \[([^\]]+)\]\(([^)#]+)\.md\)", section, re.MULTILINE)
        if pages:
            lines = "\n".join(f"{title} <{page}>" for title, page in pages)
            made.append(f"\n```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{lines}\n```\n")
    return "".join(made)


# -- API -------------------------------------------------------------------------------------------------------


def api(page: str) -> str:
    """Directives of autodoc for what a page's packages make public."""
    made = []
    for module, public in API[page]:
        loaded = import_module(module)
        found = public or getattr(loaded, "__all__", None) or _defined_in(loaded)
        made.append(f"\n## {module}\n\n")
        doc = (inspect.getdoc(loaded) or "").strip()
        made.append(f"{escaped(doc.partition(chr(10))[0])}\n\n" if doc else "")
        for name in found:
            one = getattr(loaded, name)
            kind = "class" if inspect.isclass(one) else "function" if callable(one) else "data"
            kind = "exception" if kind == "class" and issubclass(one, BaseException) else kind
            made.append(f"```{{eval-rst}}\n.. auto{kind}:: {module}.{name}\n```\n\n")
    return "".join(made)


def _defined_in(module: Any) -> list[str]:
    return [
        name
        for name, one in vars(module).items()
        if not name.startswith("_") and getattr(one, "__module__", None) == module.__name__ and callable(one)
    ]


# -- options ---------------------------------------------------------------------------------------------------

FAMILIES: Final = {
    "Adapters (`--model.adapter`)": "lit_mem.adapters",
    "Sources (`--data.source`)": "lit_mem.data.sources",
    "Canaries (`--data.canaries`)": "lit_mem.data.canaries",
    "Detectors (`--data.detector`)": "lit_mem.data.detectors",
    "Attacks (`memorization.attacks`, `MembershipInference.attacks`)": "lit_mem.attacks",
    "Extraction measures (`memorization.extraction.measures`)": "lit_mem.extraction",
    "Callbacks and measures (`trainer.callbacks`, `memorization.measures`)": "lit_mem.callbacks",
}
"""Heading -> package whose classes an option takes by name."""


def options() -> str:
    """Every option of every command, with its type, default and help, from the parsers."""
    made = [
        "\n## fit, validate, test\n\nThose of Lightning's trainer (`--trainer…`) are in Lightning's documentation.\n\n"
    ]
    made += _listed(action for action in _fit() if not action.option_strings[0].startswith("--trainer"))
    for heading, package in FAMILIES.items():
        made.append(f"\n## {heading}\n\n")
        module = import_module(package)
        for name in getattr(module, "__all__", None) or _defined_in(module):
            one = getattr(module, name)
            if inspect.isclass(one) and not inspect.isabstract(one):
                made += [f"### {name}\n\n", f"{escaped(_summary(one))}\n\n", *_listed(_of_class(one))]
    made += ["\n## Parts of options\n\n"]
    for path in (
        "lit_mem.audit.extraction_options.ExtractionOptions",
        "lit_mem.privacy.dpsgd.DPSGD",
        "lit_mem.data.chunk_options.Chunk",
    ):
        module_name, _, name = path.rpartition(".")
        one = getattr(import_module(module_name), name)
        made += [f"### {name}\n\n", f"{escaped(_summary(one))}\n\n", *_listed(_of_class(one))]
    for command, parser in _commands():
        made += [f"\n## {command}\n\n", f"{escaped(' '.join((parser.description or '').split()))}\n\n"]
        made += _listed(parser._actions)
    return "".join(made)


def _summary(one: type) -> str:
    return " ".join((inspect.getdoc(one) or "").split("\n\n")[0].split())


def _fit() -> list[Any]:
    from lit_mem.cli.trainer_cli import MemorizationCLI

    found: list[Any] = []

    class OnlyParser(MemorizationCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            found.extend(parser._subcommands_action._name_parser_map["fit"]._actions)
            raise SystemExit

    with suppress(SystemExit):
        OnlyParser(["fit"])
    return [action for action in found if action.option_strings]


def _of_class(one: type) -> list[Any]:
    from lit_mem.lightning.parser import OneLineParser

    parser = OneLineParser()
    parser.add_class_arguments(one, None, fail_untyped=False)
    return parser._actions


def _commands() -> Iterator[tuple[str, Any]]:
    from lit_mem.cli.commands import COMMANDS

    for name, command in COMMANDS.items():
        if command.module is None:
            continue
        loaded = import_module(command.module)
        made = getattr(loaded, "_parser", None) or getattr(loaded, "parser", None)
        if made is not None and name != "where":
            yield name, made()


def _listed(actions: Iterable[Any]) -> Iterator[str]:
    for action in actions:
        words = [word for word in action.option_strings or [action.dest] if not word.endswith("+")]
        if {"-h", "--help"} & set(words) or words[0].endswith(".help") or action.help == "==SUPPRESS==":
            continue
        if action.help == "Path to a configuration file.":
            continue
        kind = _kind(getattr(action, "_typehint", None) or action.type)
        default = "" if action.default in (None, "==SUPPRESS==") else f", default `{_plain(action.default)}`"
        about = f" ({kind}{default})" if kind else f" ({default[2:]})" if default else ""
        text = escaped(" ".join((action.help or "").replace("%%", "%").split()))
        text = re.sub(r" ?\\?\((required, )?type: .*$", "", text)
        yield f"- {', '.join(f'`{word}`' for word in words)}{about}{': ' if text else ''}{text}\n"


def _kind(hint: Any) -> str:
    if hint is None:
        return ""
    text = hint.__name__ if inspect.isclass(hint) and "[" not in str(hint) else str(hint)
    text = re.sub(r"\b[a-z_]+(?:\.[a-z_0-9]+)*\.(?=[A-Z])", "", text.replace("typing.", "").replace("NoneType", "None"))
    text = text.replace("<class '", "").replace("'>", "")
    return f"`{text}`" if len(text) < 80 and "function" not in text and " at 0x" not in text else ""


def _plain(value: Any) -> str:
    text = str(value.as_dict()) if hasattr(value, "as_dict") else repr(value)
    return text if len(text) < 120 else "…"


def escaped(text: str) -> str:
    """Prose with what Markdown would take as markup escaped, except for code in backticks."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(p if i % 2 else re.sub(r"([*_<>\[\]{}$|])", r"\\\1", p) for i, p in enumerate(parts))


# -- names -----------------------------------------------------------------------------------------------------

_SUFFIXES: Final = re.compile(r"((?:_base)?(?:_heldout)?)(_low|_high)?$")


def names() -> str:
    """Every metric that the suites, canaries and the audit may log, a table for each measure."""
    from lit_mem.audit.glossary import explained
    from lit_mem.audit.headline import is_main
    from lit_mem.audit.suite import ExtractionOptions, of_canaries, suite
    from lit_mem.callbacks import Stopwatch

    measures: list[Any] = suite("full", extraction=ExtractionOptions())
    measures += [*of_canaries(measures), Stopwatch()]
    made = []
    for measure in measures:
        given = measure.names()
        made.append(f"\n## {type(measure).__name__}\n\n{escaped(_summary(type(measure)))}\n\n")
        if not given:
            patterns = ", ".join(f"`{prefix}…`" for prefix in getattr(measure, "name_prefixes", ()))
            made.append(f"Its names depend on the data. They begin with {patterns}.\n\n" if patterns else "")
            continue
        made.append("| name | also | meaning | sent to loggers |\n| --- | --- | --- | --- |\n")
        found: dict[str, set[str]] = {}
        for name in given:
            end = _SUFFIXES.search(name)
            found.setdefault(name[: end.start()] if end else name, set()).add(end[0] if end else "")
        for name, ends in found.items():
            also = " ".join(f"`{end}`" for end in sorted(ends - {""}, key=lambda e: (len(e), e)))
            title, meaning = explained(name)
            said = title if not meaning else f"{title}: {meaning}"
            said = "" if said == name else escaped(said)
            made.append(f"| `{name}` | {also} | {said} | {'yes' if is_main(name) else ''} |\n")
    return "".join(made)
