// The 3-D view, by NiiVue, which a page loads when a reader asks for it; it needs WebGL2.

import { address, unzipped } from "./viewer-volumes.js";

const RENDER = 4; // NiiVue's number of the 3-D view
let library;

/** The library, which the book carries compressed: hosts that compress nothing would send three times as much. */
function niivue() {
  library ??= (async () => {
    const code = await unzipped(new URL("vendor/niivue.mjs.gz", import.meta.url));
    return import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  })();
  return library;
}

/** A head on a canvas; `colours` are those of all outlines, `lost` is called when the browser takes it away. */
export async function open(canvas, colours, lost) {
  const { Niivue, NVImage } = await niivue();
  const nv = new Niivue({ backColor: [0, 0, 0, 1], interactive: false, logLevel: "error", loadingText: "" });
  for (const colour of colours) {
    const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
    nv.addColormap(`npc ${colour}`, { R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 255] });
  }
  await nv.attachToCanvas(canvas);
  canvas.addEventListener("webglcontextlost", lost);
  return new Head(nv, NVImage);
}

class Head {
  constructor(nv, NVImage) {
    this.nv = nv;
    this.NVImage = NVImage;
    this.files = new Map();
    nv.opts.crosshairWidth = 0;
  }

  file(name, options) {
    // A file is kept with the look it was loaded with: an image and a mask are never the same.
    const key = `${name} ${options.colormap}`;
    if (!this.files.has(key)) this.files.set(key, this.NVImage.loadFromUrl({ url: address(name), name, ...options }));
    return this.files.get(key);
  }

  /** Load an image and the layers of a patient. */
  async load(image, layers) {
    const loading = layers.map(layer => this.file(layer.file, { colormap: `npc ${layer.colour}` }));
    const [back, ...masks] = await Promise.all([
      this.file(image, { cal_min: 0, cal_max: 255, ignoreZeroVoxels: false }), ...loading,
    ]);
    this.layers = layers;
    this.masks = masks;
    this.nv.volumes = [back, ...masks];
    this.nv.back = back;
    this.nv.overlays = masks;
    this.nv.customLayout = [{ sliceType: RENDER, position: [0, 0, 1, 1] }];
    this.nv.resizeListener();
  }

  /** Show these layers at their thresholds. */
  mix(shown) {
    this.masks.forEach((mask, number) => {
      const layer = this.layers[number];
      mask.opacity = shown.includes(layer) ? 1 : 0;
      [mask.cal_min, mask.cal_max] = [layer.level - 1, layer.level];
    });
    this.nv.updateGLVolume();
  }

  draw([azimuth, elevation], opacity) {
    const { nv } = this;
    nv.scene.renderAzimuth = azimuth;
    nv.scene.renderElevation = elevation;
    nv.renderShader.use(nv.gl);
    nv.gl.uniform1f(nv.renderShader.uniforms.backOpacity, opacity);
    nv.drawScene();
  }
}
