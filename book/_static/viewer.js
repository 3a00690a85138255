// The viewer of volumes: table of patients, three planes and a 3-D view. See npcrepro/book/html/viewer.py, which writes its page.
// NiiVue draws slices and the 3-D view on one canvas; outlines are drawn here, on a second canvas above it, so that
// each has its own colour where they overlap and follows the edges of voxels.

const PLANES = ["Axial", "Coronal", "Sagittal"]; // as NiiVue numbers them
const AXES = [[0, 1, 2], [0, 2, 1], [1, 2, 0]]; // of each plane: across, up, and the one it is a slice of
const RENDER = 4; // NiiVue's number of the 3-D view
const GAP = 0.01;

let library;

/** Bring a viewer to life when a reader comes near it. Without WebGL2 the still images stay. */
export function start(id) {
  const root = document.getElementById(id);
  dress();
  const content = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const table = new Table(root, content.patients);
  if (!document.createElement("canvas").getContext("webgl2")) {
    stay(root, "This browser has no WebGL2, so that the volumes cannot be turned and moved through.");
    return;
  }
  const observer = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    open(root, content, table).catch(error => fail(root, error));
  }, { rootMargin: "200px" });
  observer.observe(root);
}

function dress() {
  const href = new URL("viewer.css", import.meta.url).href;
  if ([...document.styleSheets].some(sheet => sheet.href === href)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

async function open(root, content, table) {
  root.dataset.state = "loading";
  root.querySelector(".npc-note").textContent = "Loading the volumes …";
  const { Niivue, NVImage } = await niivue();
  const viewer = new Viewer(root, content, NVImage);
  await viewer.attach(Niivue);
  table.choose = number => viewer.show(number);
  await viewer.show(table.chosen);
}

function fail(root, error) {
  console.error(error);
  stay(root, "The volumes could not be loaded.");
}

function stay(root, reason) {
  root.querySelector(".npc-live").hidden = true;
  root.querySelector(".npc-still").hidden = false;
  root.querySelector(".npc-note").textContent = reason;
  root.dataset.state = "still";
}

/** The library, which the book carries compressed: hosts that compress nothing would send three times as much. */
function niivue() {
  library ??= (async () => {
    const code = await unzipped(new URL("vendor/niivue.mjs.gz", import.meta.url));
    return import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  })();
  return library;
}

async function unzipped(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${url}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // Some hosts declare such a file as compressed, and the browser has unpacked it already.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** The table: a click on a row, or its button, chooses the patient. */
class Table {
  constructor(root, patients) {
    this.rows = [...root.querySelectorAll(".npc-cases tbody tr")];
    this.stills = [...root.querySelectorAll(".npc-still img")];
    this.chosen = 0;
    this.choose = () => {};
    this.rows.forEach((row, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...row.cells[0].childNodes);
      row.cells[0].append(button);
      row.style.cursor = "pointer";
      row.addEventListener("click", () => this.mark(number));
    });
    this.mark(0);
  }

  mark(number) {
    this.chosen = number;
    this.rows.forEach((row, other) => {
      row.classList.toggle("npc-chosen", other === number);
      row.querySelector("button").setAttribute("aria-pressed", String(other === number));
    });
    this.stills.forEach((still, other) => { still.hidden = other !== number; });
    this.choose(number);
  }
}

class Viewer {
  constructor(root, content, NVImage) {
    this.root = root;
    this.content = content;
    this.NVImage = NVImage;
    this.files = new Map();
    this.find = selector => root.querySelector(selector);
    this.picture = this.find(".npc-picture");
    this.lines = this.find(".npc-lines");
    this.view = "All";
    this.plane = 0; // the one that was touched last
    this.turn = [200, 15];
    this.opacity = 1;
    this.head = 0.4; // in 3-D; opaque, it would hide what is inside
  }

  async attach(Niivue) {
    this.find(".npc-live").hidden = false;
    const nv = this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      interactive: false, // what a mouse or finger does is decided below
      isRadiologicalConvention: true, // as doctors look at it, and as every other figure of the book
      crosshairColor: [0.7, 0.7, 0.7, 1],
      crosshairWidth: 0.8,
      crosshairWidthUnit: "mm",
      fontColor: [0.9, 0.9, 0.9, 1],
      fontMinPx: 11,
      fontSizeScaling: 0.25,
      logLevel: "error",
      loadingText: "",
    });
    nv.overlayAlphaShader = 0; // masks are filled in 3-D alone
    for (const colour of Object.values(this.content.colours)) {
      const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
      nv.addColormap(`npc ${colour}`, { R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 255] });
    }
    await nv.attachToCanvas(this.find(".npc-volume"));
    this.find(".npc-volume").addEventListener("webglcontextlost", () => {
      stay(this.root, "The browser has taken the graphics memory away; load the page again to see the volumes.");
    });
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  // --- What is shown

  show(number) {
    this.patient = this.content.patients[number];
    this.place = null;
    const select = this.find(".npc-series");
    const kept = select.value;
    select.replaceChildren(...Object.keys(this.patient.series).map(title => new Option(title)));
    select.value = kept in this.patient.series ? kept : select.options[0].value;
    return this.load().catch(error => fail(this.root, error));
  }

  /** Load what the chosen patient and series need; a later choice overtakes an earlier one. */
  async load() {
    const { patient, nv } = this;
    const series = this.find(".npc-series").value;
    const turn = this.latest = Symbol();
    this.root.dataset.state = "loading";
    this.find(".npc-note").textContent = "Loading the volumes …";
    const image = this.file(patient.series[series], { cal_min: 0, cal_max: 255, ignoreZeroVoxels: false });
    const masks = Object.entries(patient.outlines).map(([title, file]) =>
      this.file(file, { colormap: `npc ${this.content.colours[title]}`, cal_min: 0, cal_max: 1 }).then(mask => [title, mask]));
    const [back, ...found] = await Promise.all([image, ...masks]);
    if (turn !== this.latest) return;
    this.masks = new Map(found);
    nv.volumes = [back, ...this.masks.values()];
    nv.back = back;
    nv.overlays = nv.volumes.slice(1);
    this.size = back.hdr.dims.slice(1, 4);
    this.extent = this.size.map((count, axis) => count * back.hdr.pixDims[axis + 1]);
    this.place ??= [...patient.start];
    this.find(".npc-note").textContent = "";
    this.find(".npc-still").hidden = true;
    this.arrange();
    this.mix();
    this.root.dataset.state = "ready";
  }

  file(name, options) {
    // A file is kept with the look it was loaded with: an image and a mask are never the same.
    const key = `${name} ${options.colormap}`;
    if (!this.files.has(key)) {
      const url = new URL(`volumes/${name}`, import.meta.url).href;
      this.files.set(key, this.NVImage.loadFromUrl({ url, name, ...options }));
    }
    return this.files.get(key);
  }

  /** Masks in the 3-D view. */
  mix() {
    for (const [title, mask] of this.masks) mask.opacity = this.wanted(title) ? this.opacity : 0;
    this.nv.updateGLVolume();
    this.draw();
  }

  wanted(title) {
    const boxes = [...this.root.querySelectorAll("[type=checkbox]")];
    return boxes.some(box => box.value === title && box.checked);
  }

  /** Tiles of the view, at the true sizes of the patient so that no room is lost. */
  arrange() {
    const [x, y, z] = this.extent;
    const tile = (sliceType, ...position) => ({ sliceType, position });
    let ratio;
    if (this.view === "All") {
      const across = x / (x + y), up = y / (y + z);
      ratio = (x + y) / (y + z);
      this.nv.customLayout = [
        tile(0, 0, 0, across - GAP, up - GAP),
        tile(RENDER, across, 0, 1 - across, up - GAP),
        tile(1, 0, up, across - GAP, 1 - up),
        tile(2, across, up, 1 - across, 1 - up),
      ];
    } else {
      const plane = PLANES.indexOf(this.view);
      const [across, up] = AXES[plane] ?? [0, 1];
      ratio = plane < 0 ? 1.3 : this.extent[across] / this.extent[up];
      this.nv.customLayout = [tile(plane < 0 ? RENDER : plane, 0, 0, 1, 1)];
      if (plane >= 0) this.plane = plane;
    }
    this.picture.style.aspectRatio = ratio;
    // A tall picture is made narrower rather than higher than the window.
    this.picture.style.width = `min(100%, ${80 * ratio}vh)`;
    this.nv.resizeListener();
  }

  // --- Drawing

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.place) return;
      const { nv } = this;
      nv.scene.crosshairPos = [...this.place];
      nv.scene.renderAzimuth = this.turn[0];
      nv.scene.renderElevation = this.turn[1];
      // NiiVue has one opacity for slices and 3-D; this is the one of its 3-D shader alone.
      nv.renderShader.use(nv.gl);
      nv.gl.uniform1f(nv.renderShader.uniforms.backOpacity, this.head);
      nv.drawScene();
      this.outline();
      this.tell();
    });
  }

  outline() {
    const { nv, lines } = this;
    lines.width = nv.canvas.width;
    lines.height = nv.canvas.height;
    const context = lines.getContext("2d");
    const pixel = lines.width / lines.clientWidth;
    context.globalAlpha = this.opacity;
    context.lineJoin = context.lineCap = "round";
    for (const slice of nv.screenSlices) {
      if (slice.axCorSag === RENDER) continue;
      let width = 3 * pixel; // the first, the reference, is wider, so that it shows where another lies on it
      for (const [title, mask] of this.masks) {
        context.strokeStyle = this.content.colours[title];
        context.lineWidth = width;
        if (this.wanted(title)) context.stroke(this.edges(mask, slice));
        width = 1.5 * pixel;
      }
    }
  }

  /** The edges between voxels inside and outside a mask in one slice, in pixels of the canvas. */
  edges(mask, slice) {
    const [across, up, through] = AXES[slice.axCorSag];
    const strides = [1, this.size[0], this.size[0] * this.size[1]];
    const first = this.index(through) * strides[through];
    const [width, height] = [this.size[across], this.size[up]];
    const inside = (i, j) => i >= 0 && j >= 0 && i < width && j < height
      && mask.img[first + i * strides[across] + j * strides[up]] > 0;
    const [toX, toY] = this.onScreen(slice);
    const path = new Path2D();
    for (let j = 0; j <= height; j++) {
      for (let i = 0; i <= width; i++) {
        const here = inside(i, j);
        if (here !== inside(i - 1, j)) { path.moveTo(toX(i), toY(j)); path.lineTo(toX(i), toY(j + 1)); }
        if (here !== inside(i, j - 1)) { path.moveTo(toX(i), toY(j)); path.lineTo(toX(i + 1), toY(j)); }
      }
    }
    return path;
  }

  /** From edges of voxels to pixels of the canvas, across and up. */
  onScreen({ axCorSag, leftTopWidthHeight: [left, top, width, height], leftTopMM, fovMM }) {
    const ends = [this.nv.frac2mm([0, 0, 0]), this.nv.frac2mm([1, 1, 1])];
    const along = (axis, start, extent) => i => {
      const mm = ends[0][axis] + (ends[1][axis] - ends[0][axis]) * i / this.size[axis];
      return (mm - start) / extent;
    };
    const [across, up] = AXES[axCorSag];
    const x = along(across, leftTopMM[0], fovMM[0]), y = along(up, leftTopMM[1], fovMM[1]);
    return [i => left + width * x(i), j => top + height * (1 - y(j))];
  }

  /** Sliders, and what a screen reader says of the picture. */
  tell() {
    const said = PLANES.map((plane, number) => {
      const through = AXES[number][2];
      const input = this.find(`[data-plane="${number}"]`);
      input.max = this.size[through] - 1;
      input.value = this.index(through);
      const text = `${this.index(through) + 1} of ${this.size[through]}`;
      input.nextElementSibling.value = text;
      return `${plane.toLowerCase()} slice ${text}`;
    });
    this.find("[data-opacity]").nextElementSibling.value = `${Math.round(100 * this.opacity)} %`;
    this.find("[data-head]").nextElementSibling.value = `${Math.round(100 * this.head)} %`;
    this.find("[data-turn]").nextElementSibling.value = `${this.turn[0]}°`;
    this.find("[data-turn]").value = this.turn[0];
    const series = this.find(".npc-series").value;
    this.lines.setAttribute("aria-label", `${this.patient.name}, ${series}: ${said.join(", ")}`);
  }

  // --- What a reader does

  listen() {
    this.root.querySelectorAll("[data-view]").forEach(button => button.addEventListener("click", () => {
      this.view = button.dataset.view;
      this.root.querySelectorAll("[data-view]").forEach(other =>
        other.setAttribute("aria-pressed", String(other === button)));
      this.arrange();
      this.draw();
    }));
    this.find(".npc-series").addEventListener("change", () => {
      this.load().catch(error => fail(this.root, error));
    });
    this.root.querySelectorAll("[type=checkbox]").forEach(box => box.addEventListener("change", () => this.mix()));
    this.root.querySelectorAll("[data-plane]").forEach((input, plane) => input.addEventListener("input", () => {
      this.plane = plane;
      this.move(AXES[plane][2], input.valueAsNumber);
    }));
    const [opacity, head, turn] = ["opacity", "head", "turn"].map(name => this.find(`[data-${name}]`));
    opacity.addEventListener("input", () => { this.opacity = opacity.valueAsNumber / 100; this.mix(); });
    head.addEventListener("input", () => { this.head = head.valueAsNumber / 100; this.draw(); });
    turn.addEventListener("input", () => { this.turn[0] = turn.valueAsNumber; this.draw(); });
    this.lines.addEventListener("pointerdown", event => this.press(event));
    this.lines.addEventListener("pointermove", event => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.lines.addEventListener(end, () => { this.turning = null; });
    }
    this.lines.addEventListener("keydown", event => this.key(event));
    this.lines.addEventListener("wheel", event => {
      // A page that is only scrolled past the picture goes on scrolling.
      if (document.activeElement !== this.lines) return;
      event.preventDefault();
      this.step(-Math.sign(event.deltaY));
    }, { passive: false });
  }

  index(axis) {
    return Math.min(this.size[axis] - 1, Math.floor(this.place[axis] * this.size[axis]));
  }

  move(axis, index) {
    const inside = Math.max(0, Math.min(this.size[axis] - 1, index));
    this.place[axis] = (inside + 0.5) / this.size[axis];
    this.draw();
  }

  step(by) {
    const axis = AXES[this.plane][2];
    this.move(axis, this.index(axis) + by);
  }

  key(event) {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 1, PageDown: -1 }[event.key];
    const turn = { ArrowLeft: -10, ArrowRight: 10 }[event.key];
    if (!step && !turn) return;
    event.preventDefault();
    if (step) this.step(step);
    if (turn) this.rotate(turn, 0);
  }

  rotate(right, up) {
    this.turn[0] = ((Math.round(this.turn[0] + right) % 360) + 360) % 360;
    this.turn[1] = Math.max(-90, Math.min(90, this.turn[1] + up));
    this.draw();
  }

  /** The tile under a pointer, and where on the canvas it is. */
  under(event) {
    const pixel = this.lines.width / this.lines.clientWidth;
    const [x, y] = [event.offsetX * pixel, event.offsetY * pixel];
    const slice = this.nv.screenSlices.find(({ leftTopWidthHeight: [left, top, width, height] }) =>
      x >= left && y >= top && x < left + width && y < top + height);
    return { slice, x, y };
  }

  press(event) {
    const { slice } = this.under(event);
    if (!slice) return;
    this.lines.setPointerCapture(event.pointerId);
    if (slice.axCorSag === RENDER) {
      this.turning = [event.offsetX, event.offsetY];
      return;
    }
    this.plane = slice.axCorSag;
    this.aim(event);
  }

  drag(event) {
    if (!event.buttons) return;
    if (!this.turning) return this.aim(event);
    const [x, y] = this.turning;
    this.turning = [event.offsetX, event.offsetY];
    this.rotate(x - event.offsetX, event.offsetY - y);
  }

  /** Move the cross to the pointer. */
  aim(event) {
    const { slice, x, y } = this.under(event);
    if (slice?.axCorSag !== this.plane) return;
    const [across, up] = AXES[this.plane];
    const [toX, toY] = this.onScreen(slice);
    const part = (to, at, count) => (at - to(0)) / (to(count) - to(0)) * count;
    this.move(across, Math.floor(part(toX, x, this.size[across])));
    this.move(up, Math.floor(part(toY, y, this.size[up])));
  }
}
