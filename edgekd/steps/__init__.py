"""The stages of a run, one file each; `edgekd.pipeline` puts them in order."""
