#!/bin/sh
# Check a release's packages: build them unless a folder has them, then install each into a separate environment and run
# it outside the repository.
#   experiments/release_check.sh              builds into build/release/dist
#   experiments/release_check.sh FOLDER       the wheel and the source distribution in FOLDER
# PYTHON names the interpreter, TORCH the torch to install (the Makefile's, for the CPU), WORK the folder to work in.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
mkdir -p "${WORK:-$root/build/release}"
work=$(cd "${WORK:-$root/build/release}" && pwd)

if [ $# -gt 0 ]; then
  dist=$(cd "$1" && pwd)
else
  dist=$work/dist
  rm -rf "$dist" "$work/tools"
  "$python" -m venv "$work/tools"
  "$work/tools/bin/pip" install --quiet build twine
  "$work/tools/bin/python" -m build --outdir "$dist" "$root"
  "$work/tools/bin/python" -m twine check --strict "$dist"/*
fi

# The source distribution is complete if a wheel built from it has the same files.
for file in "$dist"/*.whl; do wheel=$file; done
for file in "$dist"/*.tar.gz; do sdist=$file; done
rm -rf "$work/env" "$work/again" "$work/run"
"$python" -m venv "$work/env"
"$work/env/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/again" "$sdist"
"$work/env/bin/python" - "$wheel" "$work"/again/*.whl <<'EOF'
import sys
from zipfile import ZipFile

first, second = ({item.filename: item.CRC for item in ZipFile(name).infolist() if "RECORD" not in item.filename} for name in sys.argv[1:])
sys.exit(f"wheel and source distribution differ: {sorted(first.items() ^ second.items())[:5]}" if first != second else 0)
EOF

"$work/env/bin/pip" install --quiet "$torch"
"$work/env/bin/pip" install --quiet -c "$root/constraints.txt" "$wheel"
mkdir "$work/run"
cd "$work/run"
unset PYTHONPATH
"$work/env/bin/tltrain" --version
"$work/env/bin/tltrain" --help > help.txt
"$work/env/bin/tltrain" stage=check data=toolworld data.size=20 > check.txt
"$work/env/bin/tltrain" model=tiny tracking=none hydra.run.dir=demo stage.train_size="${TRAIN_SIZE:-200}" stage.test_size="${TEST_SIZE:-60}"
test -s demo/metrics.json
echo "release check passed: $(basename "$wheel"), $(basename "$sdist")"
