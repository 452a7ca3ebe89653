"""Tags of pictures, read from and written to the common formats."""

from mupvss.data.tags.read import read_tags
from mupvss.data.tags.table import write_tags
from mupvss.data.tags.tag_table import Tags, TagTable

__all__ = ["TagTable", "Tags", "read_tags", "write_tags"]
