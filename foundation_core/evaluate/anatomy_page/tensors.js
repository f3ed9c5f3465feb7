// The tensors of the page: one buffer, and a description that says what lies where.

/** Every number of 16 bits as a number: looked up, in plain loops, for each of millions of weights. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
});

const READERS = {
  float32: (buffer, at, size) => new Float32Array(buffer, at, size),
  float16: (buffer, at, size) => {
    const bits = new Uint16Array(buffer, at, size), numbers = new Float32Array(size);
    for (let i = 0; i < size; i++) numbers[i] = HALVES[bits[i]];
    return numbers;
  },
};

/** float16 for weights, float32 for positions and values. */
class Tensors {
  constructor(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    this.buffer = bytes.buffer;
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
      const numbers = READERS[tensor](this.buffer, at, size);
      this.known.set(at, shape.length === 1 ? numbers
        : Array.from({ length: shape[0] }, (_, row) => numbers.subarray(row * shape[1], (row + 1) * shape[1])));
    }
    return this.known.get(at);
  }
}
