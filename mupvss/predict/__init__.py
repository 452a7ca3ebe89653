"""The one inference path: pictures in, masks out, whatever network and runtime is behind it; and what a finished run holds."""
