# RLHF, Executed. `make book` and `make test` are all one needs; both make their own
# environment in .venv with the first Python >= 3.11 found (or PYTHON=/path/to/python).
#
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu    takes torch from there first: on
#   Linux without an NVIDIA card this saves some 4 GB of download.

PYTHON ?=
TORCH_INDEX ?=
BOOK_FLAGS ?=
LAB_FLAGS ?=
ORDER ?=
NOTEBOOKS ?= notebooks
DIR ?= _course
PORT ?= 8000

PY := .venv/bin/python
BUILD := $(PY) -c "from jupyter_book.cli.main import main; main()" build -q $(BOOK_FLAGS) .
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help environment book test execute models records serve look pdf browser mutants clean

help:
	@echo "make lab      open JupyterLab (installed first) on your own folder, my/"
	@echo "make course   write a course for nbgrader to $(DIR) (or DIR=elsewhere)"
	@echo "make book     build the site (installs what is pinned into .venv first)"
	@echo "make test     unit tests, every notebook under nbval, the house rules"
	@echo "make test-real  what needs a real model and TRL (400 MB, installed first)"
	@echo "make execute  run every notebook again and store its outputs"
	@echo "make models   make the committed models anew (about 45 minutes)"
	@echo "make records  make the long runs anew whose code has changed (may take hours)"
	@echo "make serve    look at the site on http://localhost:$(PORT)"
	@echo "make pdf      print the book into one PDF, with a headless Chromium"
	@echo "make look     check the built pages in a headless browser (for developers)"
	@echo "make mutants  plant small faults in the losses and count those that the tests notice"
	@echo "make clean    remove the built site; the environment stays"

environment:
	@found="$(PYTHON)"; \
	if [ -z "$$found" ]; then \
	  for each in python3 python3.13 python3.12 python3.11 python; do \
	    command -v $$each >/dev/null 2>&1 || continue; \
	    if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$each; break; fi; \
	    oldest=$${oldest:-$$each}; \
	  done; \
	fi; \
	found="$${found:-$$oldest}"; \
	if ! command -v "$$found" >/dev/null 2>&1; then \
	  echo "No Python found ($${found:-python3}). Install Python 3.11 or newer, or say make PYTHON=/path/to/python"; \
	  exit 2; \
	fi; \
	"$$found" tools/preflight.py "$(TORCH_INDEX)"

book: environment
	@$(PY) -m tools.student
	@$(PY) -m tools.execute --stale
	@$(BUILD) > /dev/null
	@$(PY) -c "from pathlib import Path; p = Path('_build/html/index.html').resolve(); \
	print(f'\nThe book lies in {p.parent}\nOpen it: {p.as_uri()}   or: make serve')"

test: environment
	@$(PY) -m ruff check .
	@$(PY) -m pytest -q -ra -W error --strict-markers -n 2 --dist loadfile --nbval --nbval-current-env \
	  --nbval-cell-timeout 400 $(if $(ORDER),--random-order-seed=$(ORDER)) tests $(NOTEBOOKS)

execute: environment
	@$(PY) -m tools.mend
	@$(PY) -m tools.student
	@$(PY) -m tools.execute

models: environment
	@$(PY) -m tools.models all

records: environment
	@$(PY) -m labs.record

serve: book
	@echo "The book is at http://localhost:$(PORT) (Ctrl-C ends)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

browser: environment
	@$(PY) -m tools.extras requirements-browser.txt

look: browser
	@$(PY) -m pytest -q -ra -W error --strict-markers tests/browser

pdf: book browser
	@$(PY) -m tools.pdf

mutants: environment
	@$(PY) -m tools.extras requirements-mutants.txt
	@$(PY) -m mutmut run
	@$(PY) -m mutmut results
	@$(PY) -m mutmut export-cicd-stats
	@$(PY) -c "import json; s = json.load(open('mutants/mutmut-cicd-stats.json')); \
	share = s['killed'] / s['total']; print(f'{share:.1%} killed'); raise SystemExit(share < 0.95)"

clean:
	rm -rf _build

.PHONY: lab course test-course test-real

lab: environment
	@$(PY) -m tools.lab $(LAB_FLAGS)

course: environment
	@$(PY) -m tools.course "$(DIR)"

test-course: environment
	@$(PY) -m tools.extras requirements-course.txt
	@$(PY) -m pytest -q -ra -W error --strict-markers tests/course

test-real: environment
	@$(PY) -m tools.extras requirements-trl.txt
	@$(PY) -m tools.extras --no-deps requirements-real.txt
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -q -ra --strict-markers tests/real
