"""The version of the toolbox: what a file of results and a checkpoint say they were written by."""

VERSION = "0.2.0"
