"""One definition of mIoU, used by every stage and command."""
