"""The panel of the module: what stands in it, without what happens."""

from __future__ import annotations

import ctk
import qt
import slicer

from .results import COLUMNS

_RULES = (("as before, else 5 % false discoveries", ""), ("false discovery rate", "fdr"), ("p", "p"))
_SETTINGS = "MedNovelty/"
"""Before the names of what is remembered."""


class Panel:
    """Scan and detector, the run, its results; widgets are attributes."""

    def __init__(self, layout):
        self._layout = layout
        self._set_up_inputs()
        self._set_up_run()
        self._set_up_results()
        layout.addStretch(1)

    @property
    def paths(self):
        """Name to the line of each path."""
        return {
            "program": self.programPath,
            "model": self.modelPath,
            "scan": self.scanPath,
            "output": self.outputPath,
        }

    def remember(self):
        """Keep the paths until 3D Slicer is started again."""
        settings = qt.QSettings()
        for name, line in self.paths.items():
            settings.setValue(_SETTINGS + name, line.currentPath)

    def restore(self):
        """Fill in the paths that were kept."""
        settings = qt.QSettings()
        for name, line in self.paths.items():
            line.currentPath = settings.value(_SETTINGS + name, "") or ""

    def _set_up_inputs(self):
        form, any_path = (
            self._section("Scan and detector"),
            ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Dirs,
        )
        self.programPath = self._path(form, "Program:", ctk.ctkPathLineEdit.Files)
        self.programPath.setToolTip("Path of the program mednovelty; empty: as the system finds it")
        self.modelPath = self._path(form, "Detector:", ctk.ctkPathLineEdit.Dirs)
        self.scanPath = self._path(form, "Scan:", any_path)
        self.scanPath.setToolTip("An image, or a folder of scans")
        self.volumeSelector = slicer.qMRMLNodeComboBox()
        self.volumeSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumeSelector.noneEnabled = True
        self.volumeSelector.addEnabled = self.volumeSelector.removeEnabled = False
        self.volumeSelector.setMRMLScene(slicer.mrmlScene)
        self.volumeSelector.setCurrentNode(None)
        self.volumeSelector.setToolTip("Instead of a file, for detectors of one contrast: a loaded volume")
        form.addRow("or volume:", self.volumeSelector)
        self.outputPath = self._path(form, "Output:", ctk.ctkPathLineEdit.Dirs)
        self.scores = qt.QLineEdit()
        self.scores.setPlaceholderText("the detector's own")
        self.scores.setToolTip("Names or groups, with commas: all, fast, latent, ...")
        form.addRow("Scores:", self.scores)
        self._set_up_threshold(form)
        self.overwrite = qt.QCheckBox("Replace maps of another detector")
        form.addRow(self.overwrite)

    def _set_up_threshold(self, form):
        self.rule = qt.QComboBox()
        for text, value in _RULES:
            self.rule.addItem(text, value)
        self.level = qt.QDoubleSpinBox()
        self.level.setDecimals(6)
        self.level.setRange(1e-6, 0.499999)
        self.level.setSingleStep(0.001)
        self.level.setValue(0.05)
        form.addRow("Threshold:", self.rule)
        form.addRow("Level:", self.level)

    def _set_up_run(self):
        form = self._section("Run")
        self.runButton, self.cancelButton = qt.QPushButton("Score"), qt.QPushButton("Cancel")
        self.progress, self.log = qt.QProgressBar(), qt.QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(2000)
        self.status = qt.QLabel("")
        self.status.setWordWrap(True)
        for widget in (self.runButton, self.cancelButton, self.progress, self.status, self.log):
            form.addRow(widget)

    def _set_up_results(self):
        form = self._section("Results")
        self.scan, self.score = qt.QComboBox(), qt.QComboBox()
        self.findButton, self.loadButton = qt.QPushButton("Find in output folder"), qt.QPushButton("Load")
        self.threshold = ctk.ctkSliderWidget()
        self.threshold.decimals = 3
        self.table = qt.QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        form.addRow(self.findButton)
        form.addRow("Scan:", self.scan)
        form.addRow(self.loadButton)
        form.addRow("Score:", self.score)
        form.addRow("Shown from:", self.threshold)
        form.addRow(self.table)

    def _section(self, title):
        box = ctk.ctkCollapsibleButton()
        box.text = title
        self._layout.addWidget(box)
        return qt.QFormLayout(box)

    def _path(self, form, label, filters):
        line = ctk.ctkPathLineEdit()
        line.filters = filters
        form.addRow(label, line)
        return line
