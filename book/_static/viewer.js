// The viewer of volumes: table of patients, three planes, thresholds, a 3-D view. npcrepro/book/html/viewer.py writes
// its page, on which still images stay where this cannot run.

import { AXES, PLANES, Slices, marks } from "./viewer-slices.js";
import { Layer, dice, load } from "./viewer-volumes.js";

const NARROW = "(max-width: 600px)"; // a phone, which shows one plane at the start

/** Bring a viewer to life when a reader comes near it. */
export function start(id) {
  const root = document.getElementById(id);
  dress();
  const content = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const table = new Table(root);
  const observer = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    const viewer = new Viewer(root, content);
    table.choose = number => viewer.show(number);
    viewer.show(table.chosen);
  }, { rootMargin: "200px" });
  observer.observe(root);
}

function dress() {
  const href = new URL("viewer.css", import.meta.url).href;
  if ([...document.styleSheets].some(sheet => sheet.href === href)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

/** The table: a click on a row, or its button, chooses the patient. */
class Table {
  constructor(root) {
    this.rows = [...root.querySelectorAll(".npc-cases tbody tr")];
    this.stills = [...root.querySelectorAll(".npc-still figure")];
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
  constructor(root, content) {
    this.root = root;
    this.content = content;
    this.find = selector => root.querySelector(selector);
    this.all = selector => [...root.querySelectorAll(selector)];
    this.canvas = this.find(".npc-slices");
    this.slices = new Slices(this.canvas, Object.values(content.errors));
    this.thresholds = { ...content.thresholds }; // each method keeps its own
    this.view = matchMedia(NARROW).matches ? "Axial" : "All";
    this.plane = 0; // the one that was touched last
    this.turn = [200, 15];
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.find(".npc-picture"));
  }

  // --- What is shown

  show(number) {
    this.patient = this.content.patients[number];
    this.place = null;
    this.offer(".npc-series", Object.keys(this.patient.series));
    this.offer(".npc-structure", Object.keys(this.patient.structures));
    return this.load();
  }

  /** Fill a list of choices, and keep what was chosen where it is among them. */
  offer(selector, titles) {
    const select = this.find(selector);
    const kept = select.value;
    select.replaceChildren(...titles.map(title => new Option(title)));
    select.value = titles.includes(kept) ? kept : titles[0];
    select.parentElement.hidden = titles.length < 2;
  }

  /** Load what the choices need; a later choice overtakes an earlier one. */
  async load() {
    const turn = this.latest = Symbol();
    try {
      this.say("Loading the volumes …", "loading");
      const { patient } = this;
      const structure = this.find(".npc-structure").value;
      this.series = this.find(".npc-series").value;
      const files = patient.structures[structure];
      const [image, ...volumes] = await Promise.all([patient.series[this.series], ...Object.values(files)].map(load));
      if (turn !== this.latest) return;
      this.image = image;
      this.layers = Object.entries(files).map(([title, file], number) =>
        new Layer(title, file, volumes[number], this.content.colours[title], this.thresholds[title]));
      this.methods = this.layers.filter(layer => layer.threshold !== undefined);
      this.reference = this.methods.length ? this.layers[0] : null;
      this.methods.forEach(layer => layer.compare(this.reference));
      if (this.structure !== structure) this.place = null;
      this.structure = structure;
      if (!this.place) this.zoom(this.place = [...patient.start[structure]]);
      this.find(".npc-live").hidden = false;
      this.find(".npc-still").hidden = true;
      await this.arrange();
      this.say("", "ready");
    } catch (error) {
      if (turn === this.latest) this.stay(error);
    }
  }

  say(text, state) {
    this.find(".npc-note").textContent = text;
    this.root.dataset.state = state;
  }

  stay(error) {
    console.error(error);
    this.find(".npc-live").hidden = true;
    this.find(".npc-still").hidden = false;
    this.say("The volumes could not be loaded.", "still");
  }

  /** The view, at the true sizes of the patient so that no room is lost. */
  async arrange() {
    const flat = this.image.size[2] === 1; // a single slice
    this.find(".npc-views").hidden = flat;
    if (flat) this.view = "Axial";
    if (this.view === "3-D" && !await this.raise()) this.view = "All";
    if (PLANES.includes(this.view)) this.plane = PLANES.indexOf(this.view);
    this.all("[data-view]").forEach(button =>
      button.setAttribute("aria-pressed", String(button.dataset.view === this.view)));
    const ratio = this.slices.arrange(this.view, this.image);
    const picture = this.find(".npc-picture");
    picture.style.aspectRatio = ratio;
    // A tall picture is made narrower rather than higher than the window.
    picture.style.width = `min(100%, ${80 * ratio}vh)`;
    this.find(".npc-head").style.visibility = this.view === "3-D" ? "" : "hidden";
    this.find("[data-zoom]").parentElement.hidden = this.view === "3-D";
    this.all("[data-3d]").forEach(one => { one.hidden = this.view !== "3-D"; });
    this.all("[data-plane]").forEach((input, plane) => {
      input.parentElement.hidden = this.view !== "All" && this.plane !== plane || this.view === "3-D" || flat;
    });
    this.mix();
  }

  /** Enlarge the slices around a place. */
  zoom(place) {
    this.slices.zoom = this.find("[data-zoom]").valueAsNumber;
    this.slices.focus = [...place];
  }

  /** Make the 3-D view ready; false where this browser cannot show it. */
  async raise() {
    try {
      const { open } = await import("./viewer-head.js");
      const lost = () => { this.head = null; this.view = "All"; this.arrange(); };
      this.head ??= await open(this.find(".npc-head"), Object.values(this.content.colours), lost);
      await this.head.load(this.patient.series[this.series], this.layers);
      return true;
    } catch (error) {
      this.find("[data-view='3-D']").disabled = true;
      this.find(".npc-no-3d").hidden = false;
      return false;
    }
  }

  /** Layers whose outline is wanted; with the error map that of the reference alone. */
  get shown() {
    const ticked = this.all("[type=checkbox]").filter(box => box.checked).map(box => box.value);
    return this.layers.filter(layer => ticked.includes(layer.title) && (!this.mapped || layer === this.reference));
  }

  get mapped() {
    return this.find("[data-show='errors']")?.getAttribute("aria-pressed") === "true";
  }

  /** The method that the threshold moves and the error map shows. */
  get chosen() {
    return this.methods.find(layer => layer.title === this.find(".npc-method").value);
  }

  mix() {
    // The error map has colours of its own, and no outline but the reference.
    this.all(".npc-one").forEach(row => {
      const idle = this.mapped && row.dataset.title !== this.reference?.title;
      row.querySelector("[type=checkbox]").disabled = idle;
      row.classList.toggle("npc-idle", idle);
    });
    if (this.view === "3-D") this.head.mix(this.shown);
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.place) return;
      if (this.view === "3-D") this.head.draw(this.turn, this.find("[data-head]").valueAsNumber / 100);
      this.slices.active = this.plane;
      this.slices.draw(this.at, this.shown, this.reference, this.mapped ? this.chosen : null);
      this.tell();
    });
  }

  // --- What is said of it

  tell() {
    const said = PLANES.map((plane, number) => {
      const through = AXES[number][2];
      const input = this.find(`[data-plane="${number}"]`);
      input.max = this.image.size[through] - 1;
      input.value = this.at[through];
      const text = `${this.at[through] + 1} of ${this.image.size[through]}`;
      input.nextElementSibling.value = text;
      input.setAttribute("aria-valuetext", text);
      return `${plane.toLowerCase()} slice ${text}`;
    });
    this.find("[data-zoom]").nextElementSibling.value = `${this.slices.zoom} ×`;
    this.find("[data-head]").nextElementSibling.value = `${this.find("[data-head]").value} %`;
    this.find("[data-turn]").nextElementSibling.value = `${this.turn[0]}°`;
    this.find("[data-turn]").value = this.turn[0];
    this.canvas.setAttribute("aria-label", `${this.patient.name}, ${this.series}: ${said.join(", ")}`);
    const there = this.layers.map(layer => layer.title);
    this.all("[type=checkbox]").forEach(box => { box.closest(".npc-one").hidden = !there.includes(box.value); });
    if (this.reference) this.score();
  }

  /** The threshold, and DSC of each method in the volume and in the slice that was touched last. */
  score() {
    const { chosen, plane } = this;
    const index = this.at[AXES[plane][2]];
    const text = (value, digits) => Number.isNaN(value) ? "–" : value.toFixed(digits);
    this.find(".npc-slice").textContent = `${PLANES[plane].toLowerCase()} ${index + 1}`;
    const truth = marks(this.reference, plane, index).values;
    const voxel = this.content.millilitres ? this.image.spacing.reduce((a, b) => a * b, 1 / 1000) : NaN;
    const fill = (title, ...cells) => this.all(".npc-one").find(row => row.dataset.title === title)
      .querySelectorAll("output").forEach((cell, number) => { cell.value = cells[number]; });
    fill(this.reference.title, "", "", "", text(this.methods[0].hit[0] * voxel, 1));
    for (const layer of this.methods) {
      const found = marks(layer, plane, index).values;
      let both = 0, marked = 0, size = 0;
      found.forEach((here, at) => { marked += here; size += truth[at]; both += here & truth[at]; });
      const cells = [layer.dsc, dice(both, marked, size)].map(value => text(value, 3));
      fill(layer.title, layer.threshold.toFixed(2), ...cells, text(layer.count * voxel, 1));
    }
    this.all(".npc-one").forEach(row => row.classList.toggle("npc-chosen", row.dataset.title === chosen.title));
    const input = this.find("[data-threshold]");
    input.value = chosen.threshold;
    input.nextElementSibling.value = chosen.threshold.toFixed(2);
    input.setAttribute("aria-valuetext", `${chosen.threshold.toFixed(2)}, DSC ${text(chosen.dsc, 3)}`);
  }

  // --- What a reader does

  listen() {
    const on = (selector, kind, act) => this.all(selector).forEach((one, number) =>
      one.addEventListener(kind, () => act(one, number)));
    on("[data-view]", "click", button => { this.view = button.dataset.view; this.arrange(); });
    on("[data-show]", "click", button => {
      this.all("[data-show]").forEach(other => other.setAttribute("aria-pressed", String(other === button)));
      this.find(".npc-errors").hidden = !this.mapped;
      this.mix();
    });
    on(".npc-series, .npc-structure", "change", () => this.load());
    on(".npc-method", "change", () => this.draw());
    on("[type=checkbox]", "change", () => this.mix());
    on("[data-plane]", "input", (input, plane) => { this.plane = plane; this.move(AXES[plane][2], input.valueAsNumber); });
    on("[data-threshold]", "input", input => {
      this.chosen.threshold = this.thresholds[this.chosen.title] = input.valueAsNumber;
      this.mix();
    });
    on("[data-zoom]", "input", () => { this.zoom(this.place); this.draw(); });
    on("[data-head]", "input", () => this.draw());
    on("[data-turn]", "input", input => { this.turn[0] = input.valueAsNumber; this.draw(); });
    const { canvas } = this;
    canvas.addEventListener("pointerdown", event => this.press(event));
    canvas.addEventListener("pointermove", event => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.held = null; });
    canvas.addEventListener("keydown", event => this.key(event));
    canvas.addEventListener("wheel", event => {
      // A page that is only scrolled past the picture goes on scrolling.
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      this.step(-Math.sign(event.deltaY));
    }, { passive: false });
  }

  /** Numbers of the three slices, from parts of the patient: a patient in another image stays where he is. */
  get at() {
    return this.place.map((part, axis) => Math.min(this.image.size[axis] - 1, Math.floor(part * this.image.size[axis])));
  }

  move(axis, index) {
    const inside = Math.max(0, Math.min(this.image.size[axis] - 1, index));
    this.place[axis] = (inside + 0.5) / this.image.size[axis];
    this.draw();
  }

  step(by) {
    const axis = AXES[this.plane][2];
    this.move(axis, this.at[axis] + by);
  }

  key(event) {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 1, PageDown: -1 }[event.key];
    const turn = this.view === "3-D" && { ArrowLeft: -10, ArrowRight: 10 }[event.key];
    if (!step && !turn) return;
    event.preventDefault();
    if (turn) this.rotate(turn, 0);
    else this.step(step);
  }

  rotate(right, up) {
    this.turn[0] = ((Math.round(this.turn[0] + right) % 360) + 360) % 360;
    this.turn[1] = Math.max(-90, Math.min(90, this.turn[1] + up));
    this.draw();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.held = [event.offsetX, event.offsetY];
    this.plane = this.slices.under(event)?.plane ?? this.plane;
    this.drag(event);
  }

  /** Turn the head, or move the cross to the pointer. */
  drag(event) {
    if (!this.held) return;
    const [x, y] = this.held;
    this.held = [event.offsetX, event.offsetY];
    if (this.view === "3-D") return this.rotate(x - event.offsetX, event.offsetY - y);
    const under = this.slices.under(event);
    if (under?.plane === this.plane) under.place.forEach((index, axis) => this.move(axis, index));
  }
}
