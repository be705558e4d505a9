"""What leaves a project: its own rows with everything that is known of them, and the formats of other tools.

Every row of a file has the same columns, each of one type and never null, so that readers which guess types from the
first rows of a file (Arrow, `datasets`) are right about the rest. docs/exports.md lists the columns.
"""

from webapp.data.exports.formats import EXPORTS, Format, export_lines, format_of
from webapp.data.exports.selection import Selection, selection_of

__all__ = ["EXPORTS", "Format", "Selection", "export_lines", "format_of", "selection_of"]
