"use strict";
(function () {
  const facts = JSON.parse(document.getElementById("viewer-facts").textContent);
  const chosen = document.getElementById("viewer-score"), slider = document.getElementById("viewer-threshold");
  const typed = document.getElementById("viewer-value"), readout = document.getElementById("viewer-readout");
  const [nx, ny, nz] = facts.shape, size = facts.size_mm, origin = facts.origin_mm;
  const rows = [...document.querySelectorAll("[data-mark]")].filter(row => row.dataset.mark.includes(";"));
  const thresholds = new Map(facts.scores.map(score => [score.name, score.threshold]));
  const overlay = document.createElement("canvas"), pen = overlay.getContext("2d");
  // Of what is on its way only what was asked for last is shown.
  let brain = null, levels = null, shown = facts.scores[0], wanted = shown, followed = null;
  const cache = new Map();

  function levelsOf(score) {
    if (!cache.has(score.name)) {
      const picture = new Image();
      cache.set(score.name, new Promise((done, failed) => {
        picture.onload = () => {
          const canvas = document.createElement("canvas");
          canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
          const brush = canvas.getContext("2d", { willReadFrequently: true });
          brush.drawImage(picture, 0, 0);
          const data = brush.getImageData(0, 0, canvas.width, canvas.height).data;
          const found = new Uint8Array(canvas.width * canvas.height);
          for (let i = 0; i < found.length; i++) found[i] = data[4 * i];
          done({ width: canvas.width, height: canvas.height, found });
        };
        picture.onerror = failed;
      }));
      picture.src = score.levels;
    }
    return cache.get(score.name);
  }
  const valueOf = level => shown.low + (level - 1) / 254 * (shown.high - shown.low);
  const levelOf = value => 1 + (value - shown.low) / (shown.high - shown.low) * 254;

  function paint() {
    const from = Math.max(1, Math.floor(levelOf(thresholds.get(shown.name)) + 1e-6)), image = pen.createImageData(levels.width, levels.height);
    const first = levelOf(thresholds.get(shown.name)), last = Math.max(first + 1e-6, levelOf(shown.bright));
    let count = 0;
    for (let i = 0; i < levels.found.length; i++) {
      const level = levels.found[i];
      if (level < from || level === 0) continue;
      const place = Math.round(255 * Math.min(1, Math.max(0, (level - first) / (last - first))));
      const [r, g, b] = facts.colours[place];
      image.data[4 * i] = r; image.data[4 * i + 1] = g; image.data[4 * i + 2] = b; image.data[4 * i + 3] = 255;
      count += 1;
    }
    pen.putImageData(image, 0, 0);
    overlay.dataset.count = count;
    if (brain.colorMap) { brain.colorMap.min = thresholds.get(shown.name); brain.colorMap.max = Math.max(shown.bright, thresholds.get(shown.name)); }
    draw();
  }
  function draw() { brain.init(); brain.drawAll(); tell(); }

  // The viewer counts x from the right, as radiologists look.
  const toMm = slice => [origin[0] + size * (nx - 1 - slice.X), origin[1] + size * slice.Y, origin[2] + size * slice.Z];
  function place() {
    const { X, Y, Z } = brain.numSlice, columns = levels.width / ny;
    return (Math.floor(X / columns) * nz + nz - 1 - Z) * levels.width + (X % columns) * ny + Y;
  }
  function tell() {
    const mm = toMm(brain.numSlice), level = levels.found[place()];
    const value = level ? `${shown.label}: about ${Number(valueOf(level).toPrecision(4))}` : `${shown.label}: outside the mask, or below ${Number(shown.low.toPrecision(4))}`;
    readout.textContent = `x ${mm[0].toFixed(1)}, y ${mm[1].toFixed(1)}, z ${mm[2].toFixed(1)} mm. ${value}`;
    readout.dataset.mm = mm.map(v => v.toFixed(3)).join(";"); readout.dataset.level = level;
  }
  function moveTo(mm) {
    const fit = (value, n) => Math.max(0, Math.min(n - 1, Math.round(value)));
    brain.numSlice = {
      X: nx - 1 - fit((mm[0] - origin[0]) / size, nx), Y: fit((mm[1] - origin[1]) / size, ny), Z: fit((mm[2] - origin[2]) / size, nz),
    };
    draw();
  }
  function setSlider() {
    const value = thresholds.get(shown.name);
    slider.min = 0; slider.max = 1000; slider.step = 1;
    slider.value = Math.round(1000 * (value - shown.low) / (shown.high - shown.low));
    typed.value = Number(value.toPrecision(4));
    document.getElementById("viewer-unit").textContent = shown.unit;
    document.getElementById("viewer-words").textContent = shown.words;
  }
  async function choose(name) {
    const asked = wanted = facts.scores.find(score => score.name === name) || facts.scores[0];
    if (chosen) chosen.value = asked.name;
    const found = await levelsOf(asked);
    if (asked !== wanted) return;
    shown = asked; levels = found;
    overlay.width = levels.width; overlay.height = levels.height;
    setSlider(); paint();
  }
  async function follow(row) {
    const [name, ...mm] = row.dataset.mark.split(";");
    followed = row;
    rows.forEach(other => other.classList.toggle("chosen", other === row));
    if (facts.scores.some(score => score.name === name) && !(name === shown.name && shown === wanted)) await choose(name);
    if (followed !== row) return;
    moveTo(mm.map(Number));
    document.getElementById("viewer").scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
  async function start() {
    brain = window.mednoveltyBrain;
    levels = await levelsOf(shown);
    // brainsprite adds 1 to each slice before it asks where that is.
    brain.affine = [[-size, 0, 0, origin[0] + size * nx], [0, size, 0, origin[1] - size], [0, 0, size, origin[2] - size], [0, 0, 0, 1]];
    brain.colorCrosshair = "rgba(77, 210, 255, 0.4)";  // What lies under it stays visible.
    brain.nanValue = true;  // Values are read from levels, not from colours.
    brain.overlay.sprite = overlay;
    brain.onclick = tell;
    await choose(shown.name);
    moveTo(facts.at_mm);
    if (chosen) chosen.addEventListener("change", () => choose(chosen.value));
    slider.addEventListener("input", () => {
      thresholds.set(shown.name, shown.low + slider.value / 1000 * (shown.high - shown.low));
      typed.value = Number(thresholds.get(shown.name).toPrecision(4)); paint();
    });
    typed.addEventListener("change", () => {
      // A comma is a point in many countries; what is no number leaves the threshold, and the field, as they were.
      const text = typed.value.trim().replace(",", ".").replace("\u2212", "-");
      const value = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : NaN;
      if (Number.isFinite(value)) thresholds.set(shown.name, Math.min(shown.high, Math.max(shown.low, value)));
      setSlider();
      if (Number.isFinite(value)) paint();
    });
    for (const row of rows) {
      row.style.cursor = "pointer";
      row.addEventListener("click", () => follow(row));
      if (row.tagName === "BUTTON") continue;
      row.tabIndex = 0;
      row.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); follow(row); } });
    }
    brain.canvas.tabIndex = 0;
    brain.canvas.setAttribute("role", "img");
    brain.canvas.setAttribute("aria-label", "Three slices through one point; arrow keys, Page Up and Page Down move it");
    brain.canvas.addEventListener("keydown", event => {
      const step = { ArrowLeft: [size, 0, 0], ArrowRight: [-size, 0, 0], ArrowUp: [0, size, 0], ArrowDown: [0, -size, 0], PageUp: [0, 0, size], PageDown: [0, 0, -size] }[event.key];
      if (!step) return;
      event.preventDefault(); moveTo(toMm(brain.numSlice).map((value, axis) => value + step[axis]));
    });
    // Where three slices have no room the axial one, the last, is seen first.
    const frame = brain.canvas.closest(".viewer-frame");
    frame.scrollLeft = frame.scrollWidth;
    document.getElementById("viewer").dataset.ready = "yes";
  }
  // nilearn starts the viewer once its pictures are there, which may be after this script.
  (function wait() { window.mednoveltyBrain ? start() : setTimeout(wait, 20); })();
})();
