// The tensors of the page: one buffer, and a description that says what lies where.

/** Every number of 16 bits as a number: made once, looked up for each weight. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
});

/** float16 for weights, float32 for positions and values. */
class Tensors {
  constructor(base64) {
    this.buffer = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
    this.known = new Map();
  }

  /** A description in which each tensor is there as its rows (a list of vectors), or as one vector. */
  fill(part) {
    if (Array.isArray(part)) return part.map((each) => this.fill(each));
    if (part === null || typeof part !== "object") return part;
    if (part.tensor) return this.read(part);
    return Object.fromEntries(Object.entries(part).map(([name, each]) => [name, this.fill(each)]));
  }

  /** A tensor; parts that share it get the same one. */
  read({ tensor, at, shape }) {
    if (!this.known.has(at)) {
      const size = shape.reduce((a, b) => a * b, 1);
      const numbers = tensor === "float16"
        ? Float32Array.from(new Uint16Array(this.buffer, at, size), (bits) => HALVES[bits])
        : new Float32Array(this.buffer, at, size);
      this.known.set(at, shape.length === 1 ? numbers
        : Array.from({ length: shape[0] }, (_, row) => numbers.subarray(row * shape[1], (row + 1) * shape[1])));
    }
    return this.known.get(at);
  }
}
