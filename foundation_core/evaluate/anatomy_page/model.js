// The forward pass of any model: rows of blocks of residuals. T token number, H head, E width of a head; a stream is a list
// of T vectors. What a part computes is found by the name that its description has.

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
const plus = (a, b) => (b ? a.map((value, i) => value + b[i]) : a);
const sumOf = (x, y) => x.map((vector, t) => plus(vector, y[t]));
const linear = (layer, vector) => plus(Float32Array.from(layer.weight, (row) => dot(row, vector)), layer.bias);
const count = (length) => Array.from({ length }, (_, number) => number);

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

/** How many of the S keys token t may read: always the first ones. */
const REACHES = {
  causal: (t) => t + 1,
  prefix: (t, S, prefix) => Math.max(t + 1, Math.min(prefix, S)),
  both: (t, S) => S,
};

/** The vectors that a row begins with. */
const STEMS = {
  tokens: (stem, ids) => ids.map((id, t) => (stem.runs ? plus(stem.embed[id], runsBefore(stem.runs, ids, t)) : stem.embed[id])),
  patches: (stem, patches) => patches.map((values) => linear(stem.embed, values)),
};

/** What is looked up for the runs that end with token t: the hash takes one token more with each step back. */
function runsBefore(runs, ids, t) {
  let key = 0, sum = new Float32Array(runs.tables[0][0].length);
  for (let before = 0; before < Math.max(...runs.lengths); before++) {
    key = Math.imul(key + (before <= t ? ids[t - before] + 1 : 0), 0x5bd1e995) >>> 0;
    key = (key ^ (key >>> 15)) >>> 0;
    const table = runs.tables[runs.lengths.indexOf(before + 1)];
    if (table) sum = plus(sum, table[key % runs.rows]);
  }
  return sum;
}

/** What a residual adds to the stream `x`; `seen` gets all that happened on the way. */
const BRANCHES = {
  attention,
  feed: (part, x) => x.map((vector) => linear(part.out, linear(part.up, vector).map(ACTIVATIONS[part.activation]))),
  gated: (part, x) => x.map((vector) => {
    const up = linear(part.up, vector);
    return linear(part.out, linear(part.gate, vector).map((gate, i) => ACTIVATIONS[part.activation](gate) * up[i]));
  }),
  experts: (part, x, where, seen) => {
    seen.probability = x.map((vector) => softmax(linear(part.router, vector)));
    seen.chosen = seen.probability.map((shares) => choice(shares, part.chosen));
    return x.map((vector, t) => {
      const made = seen.chosen[t].map(({ expert, weight }) =>
        BRANCHES[part.experts[expert].kind](part.experts[expert], [vector])[0].map((value) => weight * value));
      return made.reduce((sum, each) => plus(sum, each));
    });
  },
};

/** The experts that a token passes, the most probable first. Of several, the weights sum to one; a single one keeps its own. */
function choice(shares, chosen) {
  const best = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, chosen);
  const total = chosen > 1 ? best.reduce((sum, expert) => sum + shares[expert], 0) : 1;
  return best.map((expert) => ({ expert, weight: shares[expert] / total }));
}

/** Queries or keys of one token, cut into heads, normalised and turned by the token's position. */
function heads(vector, width, norm, cos, sin) {
  const half = width / 2;
  return count(vector.length / width).map((head) => {
    const plain = normalised(norm, vector.subarray(head * width, (head + 1) * width));
    if (!cos) return plain;
    return plain.map((value, i) =>
      i < half ? value * cos[i] - plain[i + half] * sin[i] : value * cos[i - half] + plain[i - half] * sin[i - half]);
  });
}

/** How a row reads itself, turned and biased by its positions, or all of the row before it, without positions. */
const READINGS = {
  own: (x, { row, prefix }) => ({
    source: x,
    turn: (t) => (row.cos ? [row.cos[t], row.sin[t]] : []),
    bias: (head, t, s) => (row.bias ? row.bias[head][s - t + row.most_tokens - 1] : 0),
    reach: (t) => REACHES[row.reach](t, x.length, prefix),
  }),
  memory: (x, { memory }) => ({ source: memory, turn: () => [], bias: () => 0, reach: () => memory.length }),
};

function attention(part, x, where, seen) {
  const { source, turn, bias, reach } = READINGS[where.reads](x, where), width = part.width, identity = { kind: "none" };
  seen.query = x.map((vector, t) => heads(linear(part.query, vector), width, part.query_norm, ...turn(t)));
  seen.key = source.map((vector, s) => heads(linear(part.key, vector), width, part.key_norm, ...turn(s)));
  seen.value = source.map((vector) => heads(linear(part.value, vector), width, identity));
  const H = part.heads, shared = H / seen.key[0].length;
  seen.keyHead = (head) => Math.floor(head / shared);
  const each = (work) => count(H).map((head) => x.map((_, t) => work(head, t)));
  seen.match = each((head, t) => count(reach(t)).map((s) =>
    dot(seen.query[t][head], seen.key[s][seen.keyHead(head)]) / Math.sqrt(width) + bias(head, t, s)));
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

/** One row: its stream at the end, and for each block what each residual saw. */
function readRow(row, input, memory, prefix) {
  let x = STEMS[row.stem.kind](row.stem, input).map((vector, t) => normalised(row.stem.norm, plus(vector, row.stem.place && row.stem.place[t])));
  const blocks = row.blocks.map((block) => block.map((part) => {
    const seen = { kind: part.branch.kind }, where = { row, memory, prefix, reads: part.reads };
    x = PLACES[part.place](x, (vector) => normalised(part.norm, vector), (y) => BRANCHES[part.branch.kind](part.branch, y, where, seen));
    return seen;
  }));
  return { x: x.map((vector) => normalised(row.norm, vector)), blocks };
}

/** What happens in each row; a row reads, as its memory, the one before it. Inputs are ids or patches of each row. */
function forward(model, inputs, prefix = 1) {
  const traces = [];
  model.rows.forEach((row, r) => traces.push(readRow(row, inputs[r], r ? traces[r - 1].x : null, prefix)));
  return traces;
}

/** The logits of a row with a head, after or at one token. */
const logitsAt = (row, trace, t) => linear(row.head, trace.x[t]);
