// The forward pass of a decoder. T token number, H head, E width of a head; a stream is a list of T vectors.

/** The tensors of the page: float16 for weights, float32 for positions. */
class Tensors {
  constructor(base64) {
    this.buffer = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
  }

  /** A description in which each tensor is there as its rows (a list of vectors), or as one vector. */
  fill(part) {
    if (Array.isArray(part)) return part.map((each) => this.fill(each));
    if (part === null || typeof part !== "object") return part;
    if (part.tensor) return this.read(part);
    return Object.fromEntries(Object.entries(part).map(([name, each]) => [name, this.fill(each)]));
  }

  read({ tensor, at, shape }) {
    const size = shape.reduce((a, b) => a * b, 1);
    const numbers = tensor === "float16"
      ? Float32Array.from(new Uint16Array(this.buffer, at, size), fromHalf)
      : new Float32Array(this.buffer, at, size);
    if (shape.length === 1) return numbers;
    return Array.from({ length: shape[0] }, (_, row) => numbers.subarray(row * shape[1], (row + 1) * shape[1]));
  }
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
const plus = (a, b) => (b ? a.map((value, i) => value + b[i]) : a);
const sumOf = (x, y) => x.map((vector, t) => plus(vector, y[t]));
const linear = (layer, vector) => plus(Float32Array.from(layer.weight, (row) => dot(row, vector)), layer.bias);

function softmax(scores) {
  const highest = Math.max(...scores);
  const shares = scores.map((score) => Math.exp(score - highest));
  const total = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / total);
}

const NORMS = {
  none: (norm, vector) => vector,
  layer: (norm, vector) => {
    const mean = vector.reduce((a, b) => a + b, 0) / vector.length;
    return NORMS.rms(norm, vector.map((value) => value - mean));
  },
  rms: (norm, vector) => {
    const size = Math.sqrt(dot(vector, vector) / vector.length + norm.eps);
    return plus(vector.map((value, i) => (value / size) * (norm.weight ? norm.weight[i] : 1)), norm.bias);
  },
};
const normalised = (norm, vector) => NORMS[norm.kind](norm, vector);

/** Where a residual has its norm: before the branch, after the sum, on the branch. */
const PLACES = {
  pre: (x, norm, branch) => sumOf(x, branch(x.map(norm))),
  post: (x, norm, branch) => sumOf(x, branch(x)).map(norm),
  branch: (x, norm, branch) => sumOf(x, branch(x).map(norm)),
};
const residual = (part, x, branch) => PLACES[part.place](x, (vector) => normalised(part.norm, vector), branch);

// Abramowitz and Stegun, 7.1.26: wrong by 1.5e-7 at the most.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}
const ACTIVATIONS = {
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
  silu: (x) => x / (1 + Math.exp(-x)),
};

function feedForward(part, vector) {
  const activate = ACTIVATIONS[part.activation], up = linear(part.up, vector);
  if (!part.gate) return linear(part.out, up.map(activate));
  return linear(part.out, linear(part.gate, vector).map((gate, i) => activate(gate) * up[i]));
}

/** Queries or keys of one token, cut into heads, normalised and turned by the token's position. */
function heads(vector, width, norm, cos, sin) {
  const half = width / 2;
  return Array.from({ length: vector.length / width }, (_, head) => {
    const plain = normalised(norm, vector.subarray(head * width, (head + 1) * width));
    if (!cos) return plain;
    return plain.map((value, i) =>
      i < half ? value * cos[i] - plain[i + half] * sin[i] : value * cos[i - half] + plain[i - half] * sin[i - half]);
  });
}

/** What attention adds to the stream; `seen` gets all that happened on the way. */
function attention(part, model, x, seen) {
  const width = model.head_width, identity = { kind: "none" };
  const turn = (t) => (model.cos ? [model.cos[t], model.sin[t]] : []);
  seen.query = x.map((vector, t) => heads(linear(part.query, vector), width, part.query_norm, ...turn(t)));
  seen.key = x.map((vector, t) => heads(linear(part.key, vector), width, part.key_norm, ...turn(t)));
  seen.value = x.map((vector) => heads(linear(part.value, vector), width, identity));
  const H = seen.query[0].length, shared = H / seen.key[0].length;
  seen.keyHead = (head) => Math.floor(head / shared);
  const each = (work) => Array.from({ length: H }, (_, head) => x.map((_, t) => work(head, t)));
  const past = (t) => Array.from({ length: t + 1 }, (_, s) => s);
  seen.match = each((head, t) => past(t).map((s) => {
    const match = dot(seen.query[t][head], seen.key[s][seen.keyHead(head)]) / Math.sqrt(width);
    return match + (model.bias ? model.bias[head][t - s] : 0);
  }));
  seen.weight = each((head, t) => softmax(seen.match[head][t]));
  seen.found = each((head, t) => {
    const sum = new Float32Array(width);
    seen.weight[head][t].forEach((weight, s) => {
      const value = seen.value[s][seen.keyHead(head)];
      for (let i = 0; i < width; i++) sum[i] += weight * value[i];
    });
    return sum;
  });
  return x.map((_, t) => {
    const all = new Float32Array(H * width);
    seen.found.forEach((found, head) => all.set(found[t], head * width));
    return linear(part.out, all);
  });
}

/** The stream at the end, and what each block's attention saw. */
function forward(model, ids) {
  let x = ids.map((id, t) => plus(model.embed[id], model.place && model.place[t]));
  if (model.stem_norm) x = x.map((vector) => normalised(model.stem_norm, vector));
  const blocks = model.blocks.map((block) => {
    const seen = {};
    x = residual(block.mix, x, (y) => attention(block.mix, model, y, seen));
    x = residual(block.feed, x, (y) => y.map((vector) => feedForward(block.feed, vector)));
    return seen;
  });
  return { x: x.map((vector) => normalised(model.norm, vector)), blocks };
}

/** The logit of each possible next token, after one token. */
const logitsAt = (model, trace, t) => linear(model.head, trace.x[t]);
