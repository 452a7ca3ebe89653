"""The one inference path from pictures to masks, whatever the network and the runtime; and access to finished runs."""
