"""MedNovelty for 3D Slicer: score a scan with a detector, look at the maps, jump to what was found.

It runs the program mednovelty in a process of its own, and installs nothing, here or elsewhere.
"""

import logging
import os
from pathlib import Path

import qt
import slicer
from MedNoveltyLib import layers, program, results
from MedNoveltyLib.panel import Panel
from MedNoveltyLib.process import Run, environment
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

POLL_MS = 200


class MedNovelty(ScriptedLoadableModule):
    """What 3D Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "MedNovelty"
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = []
        self.parent.contributors = ["The mednovelty authors"]
        self.parent.helpText = (
            "Finds what is abnormal in a scan by a detector that was trained on healthy scans only. "
            "Choose the program mednovelty, a detector and a scan; then load its maps and clusters. "
            "Research software, not a medical device."
        )
        self.parent.acknowledgementText = ""


class MedNoveltyWidget(ScriptedLoadableModuleWidget):
    """The panel: what is scored, how far it is, what was found."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedNoveltyLogic()
        self.logic.told, self.logic.ended = self.onTold, self.onEnded
        self._found, self._clusters = [], []
        self._loaded = results.ScanResult("", Path())
        self.panel = Panel(self.layout)
        self.panel.runButton.connect("clicked(bool)", self.onRun)
        self.panel.cancelButton.connect("clicked(bool)", self.onCancel)
        self.panel.findButton.connect("clicked(bool)", self.onFind)
        self.panel.loadButton.connect("clicked(bool)", self.onLoad)
        self.panel.score.connect("currentIndexChanged(int)", self.onScore)
        self.panel.threshold.connect("valueChanged(double)", self.onThreshold)
        self.panel.table.connect("currentCellChanged(int,int,int,int)", self.onCluster)
        self.panel.restore()
        self._update()

    def cleanup(self):
        """Stop what runs: nobody would be told of it."""
        self.logic.cancel()

    # While it runs.

    def onRun(self):
        """Start scoring."""
        self.panel.remember()
        self.panel.log.clear()
        with slicer.util.tryWithErrorDisplay("MedNovelty: not started.", waitCursor=True):
            self.logic.start(
                self.panel.programPath.currentPath,
                self.panel.modelPath.currentPath,
                self.logic.saved(self.panel.volumeSelector.currentNode(), self.panel.modelPath.currentPath)
                or self.panel.scanPath.currentPath,
                self.panel.outputPath.currentPath,
                scores=self.panel.scores.text,
                rule=self.panel.rule.currentData,
                level=self.panel.level.value,
                overwrite=self.panel.overwrite.checked,
            )
        self._update()

    def onCancel(self):
        """Ask the program to stop."""
        self.panel.status.text = "stopping; what is done is kept"
        self.logic.cancel()

    def onTold(self, lines, progress):
        """Show what the program says."""
        for line in lines:
            self.panel.log.appendPlainText(line)
        self.panel.status.text = progress.message
        self._showFraction(progress.fraction)

    def onEnded(self, code, words):
        """Tell how it ended, and offer what is there."""
        self.panel.status.text = words
        self._update()
        self.onFind()
        if code == 0 and len(self._found) == 1:
            self.onLoad()
        if code not in (0, 130, 143) and not self.logic.wasCancelled:
            slicer.util.errorDisplay(f"MedNovelty: {words}")

    def _update(self):
        running = self.logic.running
        self.panel.runButton.enabled, self.panel.cancelButton.enabled = not running, running
        self.panel.progress.setVisible(running)
        self._showFraction(None)

    def _showFraction(self, fraction):
        # A range of 0 shows that it works, and not how far it is.
        self.panel.progress.setRange(0, 0 if fraction is None else 100)
        if fraction is not None:
            self.panel.progress.setValue(round(100 * fraction))

    # What was found.

    def onFind(self):
        """List the scans of the output folder."""
        self.panel.scan.clear()
        self._found = results.find_results(self.panel.outputPath.currentPath)
        for one in self._found:
            self.panel.scan.addItem(one.id)

    def onLoad(self):
        """Load a scan's scene beside what is there."""
        index = self.panel.scan.currentIndex
        if not 0 <= index < len(self._found):
            return
        with slicer.util.tryWithErrorDisplay("MedNovelty: not loaded.", waitCursor=True):
            self.logic.load(self._found[index])
            self._loaded = self._found[index]
            first = layers.shown_score(slicer.mrmlScene)
            wasBlocked = self.panel.score.blockSignals(True)
            self.panel.score.clear()
            for score in self.logic.maps:
                self.panel.score.addItem(score)
            self.panel.score.setCurrentIndex(max(self.panel.score.findText(first), 0))
            self.panel.score.blockSignals(wasBlocked)
            self.onScore()

    def onScore(self, index=None):
        """Show another score: map, outlines and table."""
        score = self.panel.score.currentText
        volume = self.logic.volume(score)
        if volume is None:
            return
        self.logic.show(score)
        lower, upper = layers.threshold_of(volume)
        low = volume.GetImageData().GetScalarRange()[0]
        wasBlocked = self.panel.threshold.blockSignals(True)
        self.panel.threshold.minimum, self.panel.threshold.maximum = low, upper
        self.panel.threshold.singleStep = (upper - low) / 200 or 0.001
        self.panel.threshold.value = lower
        self.panel.threshold.blockSignals(wasBlocked)
        self._fill(results.read_clusters(self._loaded.clusters(score)))

    def onThreshold(self, value):
        """Show a map from another value on."""
        volume = self.logic.volume(self.panel.score.currentText)
        if volume is not None:
            layers.set_threshold(volume, value)

    def onCluster(self, row, *rest):
        """Cut the views at a cluster's peak."""
        if 0 <= row < len(self._clusters):
            layers.jump(slicer.mrmlScene, self._clusters[row].peak_mm)

    def _fill(self, clusters):
        self._clusters = clusters
        self.panel.table.setRowCount(len(clusters))
        for row, one in enumerate(clusters):
            for column, text in enumerate(one.cells):
                self.panel.table.setItem(row, column, qt.QTableWidgetItem(text))


class MedNoveltyLogic(ScriptedLoadableModuleLogic):
    """Runs the program, and loads what it wrote."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.told = lambda lines, progress: None
        self.ended = lambda code, words: None
        self.wasCancelled = False
        self._run, self._progress, self._ids = Run([], {}), program.Progress(), []
        self.running = False
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._onTimer)

    def start(self, programPath, model, scan, output, **how):
        """Start the program; raises RequestError where it cannot be."""
        if self.running:
            raise program.RequestError("a scan is being scored already; cancel it, or wait")
        env = environment(slicer.util.startupEnvironment())
        found = program.find_program(programPath, env.get("PATH"))
        program.Detector.read(model)
        request = program.Request(found, str(model), str(scan), str(output), **how)
        run = Run(request.commands(), env)
        run.start()
        # Of a folder it is not known how many scans are in it.
        self._progress = program.Progress(1 if os.path.isfile(request.scan) else None)
        self._run, self.running, self.wasCancelled = run, True, False
        self._timer.start()

    def cancel(self):
        """Ask the program to stop, if it runs."""
        if self.running:
            self.wasCancelled = True
            self._run.cancel()

    def _onTimer(self):
        lines, code = self._run.poll()
        for line in lines:
            self._progress.take(line)
        self.told(lines, self._progress)
        if code is None:
            return
        self._timer.stop()
        self.running = False
        words = program.ending(code, self._progress.problems)
        logging.info("MedNovelty: %s", words)
        self.ended(code, words)

    def saved(self, volume, model):
        """Return the file of a loaded volume, saved for the program; empty where there is no volume."""
        if volume is None:
            return ""
        folder = slicer.util.tempDirectory(key="MedNovelty")
        path = program.file_to_score(program.Detector.read(model), volume.GetName(), folder)
        os.makedirs(path.parent, exist_ok=True)
        if not slicer.util.saveNode(volume, str(path)):
            raise program.RequestError(f"{volume.GetName()}: could not be saved to {path}")
        return str(path)

    def load(self, result):
        """Load a scan's scene beside what is there; its maps and segmentations are then those of ``maps``."""
        before = self._nodeIds()
        slicer.util.loadScene(str(result.scene))
        self._ids = [id for id in self._nodeIds() if id not in before]

    @property
    def maps(self):
        """Score to volume, of the scan that was loaded last."""
        return layers.maps_in(slicer.mrmlScene, self._ids)

    def volume(self, score):
        """Return the map of a score; None where there is none."""
        return self.maps.get(score)

    def show(self, score):
        """Show the map of a score, and the outlines of its clusters alone."""
        segmentations = layers.segmentations_in(slicer.mrmlScene)
        mine = layers.segmentations_in(slicer.mrmlScene, self._ids)
        for one in segmentations.values():
            if one not in mine.values() and one.GetDisplayNode() is not None:
                one.GetDisplayNode().SetVisibility(0)
        layers.show(slicer.mrmlScene, self.maps[score], list(mine.values()))

    def _nodeIds(self):
        scene = slicer.mrmlScene
        return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


class MedNoveltyTest(ScriptedLoadableModuleTest):
    """The module's own test: no network, no detector, and no program are needed."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all."""
        self.setUp()
        self.test_what_cannot_be_run_is_refused()
        self.setUp()
        self.test_layers_follow_the_score()
        self.delayDisplay("MedNovelty: passed")

    def test_what_cannot_be_run_is_refused(self):
        """Missing programs and folders are told, and nothing is started."""
        logic = MedNoveltyLogic()
        with self.assertRaises(program.RequestError):
            logic.start("/no/such/program", "", "", "")
        with self.assertRaises(program.RequestError):
            program.Detector.read(slicer.app.temporaryPath)
        self.assertFalse(logic.running)

    def test_layers_follow_the_score(self):
        """Two maps, two scores: the views show the one that is chosen, from the value that is set."""
        import numpy as np

        volumes = []
        for score in ("one", "two"):
            volume = slicer.util.addVolumeFromArray(np.random.default_rng(0).random((5, 6, 7)))
            volume.SetAttribute(layers.ROLE, "map")
            volume.SetAttribute(layers.SCORE, score)
            volume.CreateDefaultDisplayNodes()
            volumes.append(volume)
        self.assertEqual(set(layers.maps_in(slicer.mrmlScene)), {"one", "two"})
        layers.show(slicer.mrmlScene, volumes[1])
        self.assertEqual(layers.shown_score(slicer.mrmlScene), "two")
        layers.set_threshold(volumes[1], 0.5)
        self.assertEqual(layers.threshold_of(volumes[1])[0], 0.5)
        layers.jump(slicer.mrmlScene, (1.0, 2.0, 3.0))
        red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        self.assertAlmostEqual(red.GetSliceToRAS().GetElement(2, 3), 3.0)
