"""Write the tables of docs/settings.md anew from the models: `python scripts/settings_docs.py`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from perf_middleware.configuration.schema import Schema, Setting  # noqa: E402
from perf_middleware.configuration.words import allowed_in_words, value_in_words  # noqa: E402
from perf_middleware.settings import Settings  # noqa: E402 - from this tree, not an installed one

PAGE = ROOT / "docs" / "settings.md"
BEGIN = "<!-- tables: written by scripts/settings_docs.py -->"
END = "<!-- end of tables -->"


def tables() -> str:
    """One table for the plain settings and one for each section, as Markdown."""
    schema = Schema.of(Settings)
    plain = [setting for setting in schema.settings.values() if setting.section is None]
    parts = [_table("Of the whole", "", plain)]
    for name, section in schema.sections.items():
        settings = [setting for setting in schema.settings.values() if setting.section == name]
        parts.append(_table(f"`{name}`", inspect.getdoc(section) or "", settings))
    return "\n".join(parts)


def page_with(page: str, new: str) -> str:
    """`page` with `new` in the place of its tables."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{new}\n{END}{after}"


def _table(title: str, text: str, settings: list[Setting]) -> str:
    lines = [f"### {title}", "", *([text, ""] if text else [])]
    lines += ["| key, environment | allowed | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        default = value_in_words(setting.info.default)
        cells = (
            f"`{setting.key}`<br>`{setting.env_name}`",
            re.sub(r"matching (\S+)$", r"matching `\1`", allowed_in_words(setting.info)),
            f"`{default}`",
            (setting.info.description or "").replace("|", "\\|"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text("utf-8"), tables()), "utf-8")
