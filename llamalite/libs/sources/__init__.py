"""Where builds of libllama are: GitHub, npm, PyPI, this computer.

Reading order: `releases` and `assets` (what is pinned, how upstream names its files), `github` with
`github_api` and `github_tags`, `npm`, `pypi` with `pip` and `index`, `local`, `plan` (which of them
are tried, in which order), `offers` (what there is to choose from).
"""
