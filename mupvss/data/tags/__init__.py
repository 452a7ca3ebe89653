"""Tags of pictures, read from and written to the common formats."""

from mupvss.data.tags.read import Tags, read_tags
from mupvss.data.tags.table import write_tags

__all__ = ["Tags", "read_tags", "write_tags"]
