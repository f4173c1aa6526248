#!/usr/bin/env bash
# The whole main job on a fresh machine: installs largede into .venv, then mines question and answer pairs from the
# documentation strings of the installed packages, trains on them, and compares the model with BM25.
#
#   bash launch/quickstart.sh                 about ten minutes on two CPU cores after installation, or every GPU
#   bash launch/quickstart.sh --minutes 2     less training; see `largede quickstart --help`
#
# Needs Python 3.11 or newer with venv. A second run skips what is done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_largede
exec largede quickstart "$@"
