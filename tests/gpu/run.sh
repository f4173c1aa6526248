#!/usr/bin/env bash
# Every check that needs an NVIDIA GPU, in one command; needs largede installed with the gpu and dev extras
# (launch/quickstart.sh and launch/test.sh install both). Figures are printed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -x .venv/bin/python ]] && export PATH="$PWD/.venv/bin:$PATH"
python - <<'PY'
import torch
print("GPUs:", [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or "none: every test will be skipped")
PY
exec pytest -s -rs tests/gpu "$@"
