// The files of the viewer, and what a threshold marks in them.

const STEPS = 255; // probabilities are stored in steps of 1/255
const loaded = new Map();

/** A volume of the book by its file name: number of voxels and size of a voxel along x, y and z, and its values. */
export function load(name) {
  if (!loaded.has(name)) loaded.set(name, read(address(name)));
  return loaded.get(name);
}

export function address(name) {
  return new URL(`volumes/${name}`, import.meta.url).href;
}

async function read(url) {
  // NIfTI-1, as npcrepro/book/html/volume_files.py writes it: 8 bits, x to the right, y to the front, z upwards.
  const bytes = await unzipped(url);
  const header = new DataView(bytes);
  const along = (first, step, get) => [1, 2, 3].map(axis => header[get](first + axis * step, true));
  return {
    size: along(40, 2, "getInt16"),
    spacing: along(76, 4, "getFloat32"),
    values: new Uint8Array(bytes, header.getFloat32(108, true)),
  };
}

export async function unzipped(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${url}`);
  const bytes = await response.arrayBuffer();
  const [first, second] = new Uint8Array(bytes, 0, 2);
  // Some hosts declare such a file as compressed, and the browser has unpacked it already.
  if (first !== 0x1f || second !== 0x8b) return bytes;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** The lowest step that reaches a threshold. Steps are whole, the product may be a little more. */
export function level(threshold) {
  return Math.ceil(threshold * STEPS - 1e-9);
}

/** A mask, or the probability of a method: a voxel is inside where its value is at least `level`. */
export class Layer {
  constructor(title, file, volume, colour, threshold) {
    Object.assign(this, { title, file, volume, colour, threshold });
  }

  get level() {
    return this.threshold === undefined ? 1 : level(this.threshold);
  }

  /** Voxels inside this layer, and those of them inside a reference, for every level at once. */
  compare(reference) {
    this.marked = new Uint32Array(STEPS + 2);
    this.hit = new Uint32Array(STEPS + 2);
    const { values } = this.volume;
    for (let at = 0; at < values.length; at++) {
      this.marked[values[at]]++;
      if (reference.volume.values[at]) this.hit[values[at]]++;
    }
    for (let step = STEPS - 1; step >= 0; step--) {
      this.marked[step] += this.marked[step + 1];
      this.hit[step] += this.hit[step + 1];
    }
  }

  get count() {
    return this.marked[this.level];
  }

  /** DSC of the whole volume; without a voxel in either mask there is none. */
  get dsc() {
    return dice(this.hit[this.level], this.count, this.hit[0]);
  }
}

export function dice(both, marked, reference) {
  return marked + reference ? 2 * both / (marked + reference) : NaN;
}
