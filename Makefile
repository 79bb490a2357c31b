# Each target sets up what it needs, from a bare Debian or Ubuntu with Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
APT := xvfb xauth libgl1-mesa-dri libegl1 libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0 \
	libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-xinerama0 libxcb-shape0 \
	libxcb-cursor0 libdbus-1-3
XVFB := xvfb-run -a -s "-screen 0 1400x900x24"
WIDGET_TESTS := tests/e2e tests/widgets tests/test_reader_writer.py

.PHONY: soak test-lowest test-pyside6 lock demo test test-fast coverage lint docs bench bench-window screenshots system clean

$(VENV)/.ready: pyproject.toml lock.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a few minutes, most of them for torch (about 7 GB)"
	$(BIN)/python -m pip install -q --progress-bar on -c lock.txt -e '.[pyqt5,pyqt6,dev]'
	touch $@

system:
	@missing=$$(for p in $(APT); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null \
		| grep -q 'install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then \
			apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q $$missing; \
		else \
			echo "Please run: sudo apt-get install" $$missing; exit 1; \
		fi; \
	fi

# With a display a window opens; without one, the same under Xvfb writes demo.png.
demo: system $(VENV)/.ready
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
		QT_API=pyqt6 $(BIN)/napari-dino-uad demo; \
	else \
		QT_API=pyqt6 $(XVFB) $(BIN)/napari-dino-uad demo --screenshot demo.png; \
	fi

# One environment holds both bindings, since a second one would hold a second torch; a test sees
# that only the one asked for is loaded.
test: system $(VENV)/.ready
	QT_API=pyqt6 $(XVFB) $(BIN)/python -m pytest --durations=15
	QT_API=pyqt5 $(XVFB) $(BIN)/python -m pytest $(WIDGET_TESTS)

# The tests of the window on PySide6, in an environment that has nothing else of its own and borrows
# the rest. Not part of make test.
PYSIDE := .venv-pyside6
test-pyside6: system $(VENV)/.ready
	test -x $(PYSIDE)/bin/python || $(PYTHON) -m venv $(PYSIDE)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
		> "$$($(PYSIDE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
	$(PYSIDE)/bin/python -m pip install -q 'PySide6>6.7,!=6.11.0,!=6.11.1,<6.12'
	PYTHONPATH=$(CURDIR)/src QT_API=pyside6 $(XVFB) $(PYSIDE)/bin/python -m pytest $(WIDGET_TESTS)

# Hours: damaged files, killed runs, power cuts (as root), a walk through the window. Writes
# docs/reliability.md; SHARE=0.1 tries a tenth.
SHARE ?= 1
soak: system $(VENV)/.ready
	QT_API=pyqt6 $(XVFB) $(BIN)/python tests/faults/soak.py page --share $(SHARE)

# The oldest versions that pyproject.toml allows, in an environment of their own; their warnings
# are no errors.
test-lowest: system $(VENV)/.ready
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --allow-existing .venv-lowest --python $(PYTHON)
	$(BIN)/uv pip install -q --python .venv-lowest --resolution lowest-direct -e '.[test,pyqt6]'
	QT_API=pyqt6 $(XVFB) .venv-lowest/bin/python -m pytest -o filterwarnings=default --disable-warnings

# What this environment has becomes what make installs; run the tests before committing it. A newer
# version comes in by pip install -U first.
lock:
	@{ echo "# What make and CI install on Linux with Python 3.11, by make lock."; \
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip; } > lock.txt
	$(BIN)/python scripts/licences_page.py

coverage: system $(VENV)/.ready
	QT_API=pyqt6 $(XVFB) $(BIN)/python -m pytest --cov

# What needs neither a window nor the real backbone: about a minute.
test-fast: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not window and not backbone and not slow"

lint: $(VENV)/.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Into site/; a warning is an error.
docs: $(VENV)/.ready
	$(BIN)/python scripts/cli_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.ready
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# MODEL=model.safetensors SCAN=scan.nii.gz
bench-window: system $(VENV)/.ready
	QT_API=pyqt6 $(XVFB) $(BIN)/python benchmarks/window/threshold_drag.py $(MODEL) $(SCAN)

screenshots: system $(VENV)/.ready
	QT_API=pyqt6 XDG_CONFIG_HOME=$$(mktemp -d) $(XVFB) $(BIN)/python scripts/screenshots.py

clean:
	rm -rf $(VENV) .venv-lowest $(PYSIDE)
