// Three planes of a patient on one canvas: the image in grey, outlines along the edges of voxels, and an error map.

export const PLANES = ["Axial", "Coronal", "Sagittal"];
export const AXES = [[0, 1, 2], [0, 2, 1], [1, 2, 0]]; // of each plane: across, up, and the one it is a slice of
// On the screen, as doctors look at it: the patient's right, or nose, is on the left.
const SIDES = [["R", "L", "A", "P"], ["R", "L", "H", "F"], ["A", "P", "H", "F"]];
const OPACITY = 0.6; // of the error map

/** One slice of a volume in rows from the top of the screen; `value` makes one number of the value of a voxel. */
function cut({ size, values }, plane, index, value = one => one) {
  const [across, up, through] = AXES[plane];
  const stride = [1, size[0], size[0] * size[1]];
  const [width, height] = [size[across], size[up]];
  const flat = { width, height, values: new Uint8Array(width * height) };
  let at = 0;
  for (let row = height - 1; row >= 0; row--) {
    for (let column = width - 1; column >= 0; column--) {
      flat.values[at++] = value(values[index * stride[through] + row * stride[up] + column * stride[across]]);
    }
  }
  return flat;
}

/** Where a layer marks a slice: 0 and 1. */
export function marks(layer, plane, index) {
  const { level } = layer;
  return cut(layer.volume, plane, index, value => value >= level);
}

/** A canvas with one pixel for each voxel; `paint` gives its colour as one number, see `packed`. */
function sheet({ width, height }, paint) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const colours = new Uint32Array(pixels.data.buffer);
  for (let at = 0; at < colours.length; at++) colours[at] = paint(at);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Red, green, blue and opacity, 0 to 255, as a canvas keeps them. */
const packed = (r, g, b, opacity) => r | g << 8 | b << 16 | opacity << 24;

/** The edges between voxels inside and outside a mask, from voxels to pixels of the screen by two functions. */
function edges({ width, height, values }, toX, toY) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] > 0;
  const path = new Path2D();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const here = inside(x, y);
      if (here !== inside(x - 1, y)) { path.moveTo(toX(x), toY(y)); path.lineTo(toX(x), toY(y + 1)); }
      if (here !== inside(x, y - 1)) { path.moveTo(toX(x), toY(y)); path.lineTo(toX(x + 1), toY(y)); }
    }
  }
  return path;
}

export class Slices {
  /** `errors`: colours of what was found, wrongly marked and missed. */
  constructor(canvas, errors) {
    this.canvas = canvas;
    this.zoom = 1;
    this.errors = errors.map(colour =>
      packed(...[1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16)), 255 * OPACITY));
  }

  /** Choose the planes of a view; returns how much wider than high they are together, at the true sizes of voxels. */
  arrange(view, image) {
    this.image = image;
    this.extent = image.size.map((count, axis) => count * image.spacing[axis]);
    const [x, y, z] = this.extent;
    const plane = PLANES.indexOf(view);
    if (view === "3-D") {
      this.tiles = [];
      return 1.3;
    }
    if (plane >= 0) {
      const [across, up] = AXES[plane];
      this.tiles = [{ plane, left: 0, top: 0, width: 1, height: 1 }];
      return this.extent[across] / this.extent[up];
    }
    // The axial slice, and beside it the two others one above the other, as wide as they fit.
    const wide = Math.min(x, y / (z / x + z / y)), all = x + wide;
    const heights = [z / x, z / y].map(ratio => wide * ratio / y);
    const above = (1 - heights[0] - heights[1]) / 2;
    const beside = { left: x / all, width: wide / all };
    this.tiles = [
      { plane: 0, left: 0, top: 0, width: x / all, height: 1 },
      { plane: 1, ...beside, top: above, height: heights[0] },
      { plane: 2, ...beside, top: above + heights[0], height: heights[1] },
    ];
    return all / y;
  }

  /** Draw the slices through a voxel: `outlines` are layers; with `wrong` its errors against `reference` as well. */
  draw(at, outlines, reference, wrong) {
    const { canvas } = this;
    const pixel = window.devicePixelRatio;
    canvas.width = Math.round(canvas.clientWidth * pixel);
    canvas.height = Math.round(canvas.clientHeight * pixel);
    const context = canvas.getContext("2d");
    for (const tile of this.tiles) this.tile(context, tile, pixel, at, outlines, reference, wrong);
  }

  tile(context, tile, pixel, at, outlines, reference, wrong) {
    const { plane } = tile;
    const index = at[AXES[plane][2]];
    const frame = this.box(tile);
    const [left, top, width, height] = this.enlarged(plane, frame);
    context.save();
    context.beginPath();
    context.rect(...frame);
    context.clip();
    const grey = cut(this.image, plane, index);
    context.imageSmoothingEnabled = true;
    const image = sheet(grey, i => packed(grey.values[i], grey.values[i], grey.values[i], 255));
    context.drawImage(image, left, top, width, height);
    if (wrong) {
      const [found, truth] = [wrong, reference].map(layer => marks(layer, plane, index).values);
      const [right, added, missed] = this.errors;
      const colour = i => found[i] ? (truth[i] ? right : added) : (truth[i] ? missed : 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(sheet(grey, colour), left, top, width, height);
    }
    this.cross(context, plane, at, [left, top, width, height], pixel);
    context.lineJoin = context.lineCap = "round";
    for (const layer of outlines) {
      context.strokeStyle = layer.colour;
      // The reference is wider, so that it shows where another lies on it.
      context.lineWidth = (layer === reference ? 4 : 2) * pixel;
      const toX = x => left + width * x / grey.width, toY = y => top + height * y / grey.height;
      context.stroke(edges(marks(layer, plane, index), toX, toY));
    }
    this.letters(context, plane, frame, pixel);
    if (this.tiles.length > 1 && plane === this.active) {
      // The plane that the arrow keys move.
      context.strokeStyle = "#fff"; // no colour of a method
      context.lineWidth = 2 * pixel;
      context.strokeRect(...frame);
    }
    context.restore();
  }

  /** Where a whole slice lies when what is around the focus is enlarged; the focus itself stays where it is. */
  enlarged(plane, [left, top, width, height]) {
    const [x, y] = AXES[plane].slice(0, 2).map(axis => 1 - this.focus[axis]);
    const more = this.zoom - 1;
    return [left - more * x * width, top - more * y * height, this.zoom * width, this.zoom * height];
  }

  box({ left, top, width, height }) {
    const { canvas } = this;
    return [left * canvas.width, top * canvas.height, width * canvas.width, height * canvas.height];
  }

  /** Where the two other planes go through, with room around the place itself. */
  cross(context, plane, at, [left, top, width, height], pixel) {
    if (this.tiles.length === 1) return;
    const [x, y] = AXES[plane].slice(0, 2).map(axis => 1 - (at[axis] + 0.5) / this.image.size[axis]);
    const [middleX, middleY, gap] = [left + x * width, top + y * height, 10 * pixel];
    context.strokeStyle = "rgba(180, 180, 180, 0.8)";
    context.lineWidth = pixel;
    context.beginPath();
    for (const [from, to] of [[left, middleX - gap], [middleX + gap, left + width]]) {
      if (from < to) { context.moveTo(from, middleY); context.lineTo(to, middleY); }
    }
    for (const [from, to] of [[top, middleY - gap], [middleY + gap, top + height]]) {
      if (from < to) { context.moveTo(middleX, from); context.lineTo(middleX, to); }
    }
    context.stroke();
  }

  letters(context, plane, [left, top, width, height], pixel) {
    const [first, last, above, below] = SIDES[plane];
    context.font = `${11 * pixel}px sans-serif`;
    context.fillStyle = "#e6e6e6";
    context.textBaseline = "middle";
    const edge = 8 * pixel;
    const places = [
      [first, left + edge, top + height / 2], [last, left + width - edge, top + height / 2],
      [above, left + width / 2, top + edge], [below, left + width / 2, top + height - edge],
    ];
    context.textAlign = "center";
    // A dark edge, so that they show on bone, too.
    context.strokeStyle = "#000";
    context.lineWidth = 3 * pixel;
    context.lineJoin = "round";
    for (const [letter, x, y] of places) {
      context.strokeText(letter, x, y);
      context.fillText(letter, x, y);
    }
  }

  /** The plane under a pointer and the voxel there, of which the third place is `undefined`. */
  under(event) {
    const part = [event.offsetX / this.canvas.clientWidth, event.offsetY / this.canvas.clientHeight];
    const tile = this.tiles.find(({ left, top, width, height }) =>
      part[0] >= left && part[1] >= top && part[0] < left + width && part[1] < top + height);
    if (!tile) return null;
    const place = [];
    const [left, top, width, height] = this.enlarged(tile.plane, [tile.left, tile.top, tile.width, tile.height]);
    const inside = [(part[0] - left) / width, (part[1] - top) / height];
    AXES[tile.plane].slice(0, 2).forEach((axis, side) => {
      place[axis] = Math.floor((1 - inside[side]) * this.image.size[axis]);
    });
    return { plane: tile.plane, place };
  }
}
