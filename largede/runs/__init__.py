"""The folder of a run, as every part of largede that looks at one knows it: needs neither torch nor ranks."""
