// What the sections are drawn with: elements, words, numbers, pixels, bars.
const find = (id) => document.getElementById(id);
const say = (name, ...values) => {
  const words = WORDS[state.language][name];
  return typeof words === "function" ? words(...values) : words;
};
const number = (value, digits) => value.toLocaleString(state.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = (value) => value.toLocaleString(state.language);
const percent = (share) => `${number(100 * share, share < 0.0995 ? 2 : 1)} %`;
const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A token as people can see it: spaces and line ends get a sign. */
function visible(id) {
  return tokenizer.decode([id]).replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** What stands at a place of a row, as people can see it: a token, or the number of a patch. */
const named = (row, { id }) => (row.isText ? visible(id) : say("patch", id + 1));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Pixels of numbers from -1 to 1, a row of them for each list; the sign is the hue, the size the strength. */
function pixels(rows, width) {
  const canvas = make("canvas", { width, height: rows.length });
  const image = canvas.getContext("2d").createImageData(width, rows.length);
  const hues = ["--accent-rgb", "--warm-rgb"].map((name) => colour(name).split(",").map(Number));
  rows.forEach((row, y) => row.forEach((value, x) => {
    const [r, g, b] = hues[value < 0 ? 1 : 0];
    image.data.set([r, g, b, 255 * Math.min(1, Math.abs(value))], 4 * (y * width + x));
  }));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const largest = (vectors) => Math.max(1e-9, ...vectors.flatMap((vector) => Array.from(vector, Math.abs)));
const strip = (vector, scale) => pixels([Array.from(vector, (value) => value / scale)], vector.length);

/** A patch as it looks: the mean of its channels. */
function patchPixels(sample, values, scale) {
  const [height, width] = sample.patch, size = height * width;
  const mean = (i) => count(sample.channels).reduce((sum, channel) => sum + values[channel * size + i], 0) / sample.channels;
  return pixels(count(height).map((y) => count(width).map((x) => mean(y * width + x) / scale)), width);
}

/** A share of one as a bar and in figures. */
function bar(share) {
  const whole = make("div", { className: "bar" }, make("i"));
  whole.firstChild.style.width = `${100 * share}%`;
  return [whole, make("span", { className: "number" }, percent(share))];
}
