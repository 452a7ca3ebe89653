"""What is in each picture, from any of the forms people keep it in."""

from mupvss.data.tags.read import Tags, read_tags
from mupvss.data.tags.table import write_tags

__all__ = ["Tags", "read_tags", "write_tags"]
